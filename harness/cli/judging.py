"""`enginegate judge`: a run's accuracy once more, from what it kept."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.cli.commands import add_command
from harness.cli.speaking import print_to_reader


def add_judge(commands: Any) -> None:
    command = add_command(commands, "judge", judge, "judge a run's accuracy again from the rows it kept, under other bounds; run no engine")
    command.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of a finished run, on any machine")
    command.add_argument(
        "--config",
        "--gate-file",
        dest="gate_file",
        type=Path,
        metavar="FILE",
        help="where the bounds are (default ./gate.toml, else the packaged one)",
    )
    command.add_argument(
        "--locate", action="store_true", help="also say which block and quantizer loses accuracy, with a plot in the run directory"
    )
    command.add_argument("--weights", action="append", default=[], metavar="[ARCH=]PATH", help="for --locate: checkpoint file of the run")
    command.add_argument("--cache-dir", type=Path, metavar="DIR", help="for --locate: where built artifacts are kept")
    command.epilog = (
        "A gate file adds to the packaged bounds, as for gate. Verdicts of other suites, and those that need the engine itself, are "
        "listed and not judged again; the exit code is that of the gates that are."
    )


def judge(options: argparse.Namespace) -> int:
    """Judge what a run kept; with `--locate --json`, the one document is the localisation's."""
    from harness.pipeline.rejudging import rejudge

    judged = rejudge(options.run_dir, options.gate_file)
    if not (options.json and options.locate):  # of two documents on stdout no program could read either
        print_to_reader(judged.document if options.json else judged.text)
    located = _located(options)
    return judged.record.summary.exit_code or located


def _located(options: argparse.Namespace) -> int:
    if not options.locate:
        return 0
    from harness.cli.locating import locate

    return locate(options.run_dir, weights=options.weights, cache_dir=options.cache_dir, as_json=options.json)
