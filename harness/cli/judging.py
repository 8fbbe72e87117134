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
    command.epilog = (
        "A gate file adds to the packaged bounds, as for gate. Verdicts of other suites, and those that need the engine itself, are "
        "listed and not judged again; the exit code is that of the gates that are."
    )


def judge(options: argparse.Namespace) -> int:
    """Judge what a run kept."""
    from harness.pipeline.rejudging import rejudge

    judged = rejudge(options.run_dir, options.gate_file)
    print_to_reader(judged.document if options.json else judged.text)
    return judged.record.summary.exit_code
