"""`enginegate explain`: where the time of two engines goes, and where it differs."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from harness.cli.commands import add_command
from harness.cli.speaking import only_json_on_stdout, print_to_reader, progress_on_stderr


def add_explain(commands: Any) -> None:
    command = add_command(commands, "explain", explain, "where the time of two engines goes, layer by layer, and where it differs")
    for name in ("a", "b"):
        command.add_argument(
            f"engine_{name}", type=Path, metavar=f"ENGINE_{name.upper()}", help="engine file of build --out, or a *.profile.json[.gz]"
        )
    for name in ("a", "b"):
        command.add_argument(f"--onnx-{name}", type=Path, metavar="FILE", help=f"the graph that engine {name.upper()} was built from")
    command.add_argument("--out", type=Path, metavar="DIR", help="leave both profiles, the explanation and a plot here")
    command.add_argument("--batch", type=_count, metavar="N", help="rows a launch (default: each engine's optimum)")
    command.add_argument("--launches", type=_count, default=30, metavar="N", help="profiled launches (default %(default)s)")
    command.add_argument("--threads", type=_count, default=1, metavar="N", help="of a backend on the host (default %(default)s)")
    command.add_argument("--no-ceilings", action="store_true", help="do not measure what the GPU reaches at best")
    command.add_argument("--timeout", type=float, default=300.0, metavar="S", help="seconds a worker may be silent (default %(default)s)")
    command.add_argument("--cache-dir", type=Path, metavar="DIR", help="where graphs are looked for that no option names")
    command.epilog = (
        "Each engine is profiled in a process of its own, which slows its launches down; whole launches without the profiler are timed "
        "beside it. Nothing is judged. Exit code: 0; 2 something named cannot be used; 4 a machine, a worker or a measurement broke."
    )


def explain(options: argparse.Namespace) -> int:
    """Profile, lay side by side, and leave what was asked for."""
    from harness.pipeline.explaining_gain import Explaining, explain_gain
    from harness.pipeline.profiling import Profiling

    asked = Explaining(
        subjects=(options.engine_a, options.engine_b),
        graphs=(options.onnx_a, options.onnx_b),
        how=Profiling(rows=options.batch, launches=options.launches, threads=options.threads, answer_s=options.timeout),
        with_ceilings=not options.no_ceilings,
        out=options.out,
        cache_dir=options.cache_dir,
    )
    with only_json_on_stdout() if options.json else contextlib.nullcontext():
        explained = explain_gain(asked, progress_on_stderr)
    for note in explained.notes:
        print(f"enginegate: {note}", file=sys.stderr)
    print_to_reader(explained.document if options.json else explained.text)
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number, 1 or more")
    return int(text)
