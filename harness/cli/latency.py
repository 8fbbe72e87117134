"""`enginegate judge-latency`: samples of two engines, from anywhere, judged."""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

from harness.cli.commands import add_command
from harness.cli.speaking import print_to_reader
from harness.records.verdict import exit_code


def add_judge_latency(commands: Any) -> None:
    command = add_command(commands, "judge-latency", judge_latency, "judge latency samples of two engines, measured by anyone")
    command.add_argument("samples", metavar="SAMPLES.json", help="document of schema enginegate/latency-samples/1; - reads stdin")
    command.add_argument("--alpha", type=alpha, default=0.001, help="chance of FAIL when nothing changed (default 0.001)")
    command.add_argument("--delta", type=delta, default=0.01, help="slow-down that PASS excludes (default 0.01, one percent)")
    command.add_argument("--against", type=ratio, default=1.0, metavar="RATIO", help="count a slow-down from this ratio (default 1)")
    command.epilog = "Exit code: 0 PASS, 1 FAIL, 2 a file that is no such document, 3 INCONCLUSIVE, 4 INVALID."


def judge_latency(options: argparse.Namespace) -> int:
    """Judge all processes of the file in one stage."""
    from harness.pipeline.latency import judge_latency_file

    judged = judge_latency_file(options.samples, sys.stdin.buffer, alpha=options.alpha, delta=options.delta, against=options.against)
    print_to_reader(judged.document if options.json else judged.text)
    return exit_code([judged.judgement.status])


def alpha(text: str) -> float:
    """An argument that is a chance of a false alarm."""
    return _between(text, 0.5, "a chance above 0 and below 0.5, such as 0.001")


def delta(text: str) -> float:
    """An argument that is a slow-down."""
    return _between(text, math.inf, "a share above 0, such as 0.01 for one percent")


def ratio(text: str) -> float:
    """An argument that is a ratio of times."""
    return _between(text, math.inf, "candidate time / baseline time, above 0")


def _between(text: str, below: float, expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < below:
        raise argparse.ArgumentTypeError(f"{text!r}; expected {expected}")
    return number
