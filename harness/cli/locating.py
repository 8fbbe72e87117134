"""`enginegate judge RUN_DIR --locate`: where the engines of a finished run lose their accuracy."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from harness.cli.speaking import only_json_on_stdout, print_to_reader, progress_on_stderr
from harness.errors import UsageError


def locate(run_dir: Path, *, weights: Sequence[str], cache_dir: Path | None, as_json: bool) -> int:
    """Print where accuracy is lost, and leave a record and a plot of each engine in the run directory.

    Args:
        weights: `ARCH=PATH`, the checkpoint file of a configuration; a path alone is that of all.

    Returns:
        The exit code: 0, or 4 where an engine could not be looked at.
    """
    from harness.pipeline.locating_runs import locate_run

    with only_json_on_stdout() if as_json else contextlib.nullcontext():
        located = locate_run(run_dir, cache_dir=cache_dir, weights=_by_arch(weights), progress=progress_on_stderr)
    print_to_reader(located.document if as_json else located.text)
    return located.exit_code


def _by_arch(weights: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for given in weights:
        arch, separator, path = given.partition("=")
        key, value = (arch, path) if separator else ("", given)
        if not value or key in found:
            raise UsageError(f"--weights {given}: expected ARCH=PATH, once for each configuration")
        found[key] = value
    return found
