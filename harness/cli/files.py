"""`enginegate check-graph` and `enginegate compare`: judge what lies on disk, and make nothing."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

from harness.cli.commands import add_command
from harness.cli.speaking import only_json_on_stdout, print_to_reader


def add_check_graph(commands: Any) -> None:
    command = add_command(commands, "check-graph", check_graph, "check the Q/DQ nodes, scales and weights of an ONNX file")
    command.add_argument("model", type=Path, metavar="FP8.onnx", help="an ONNX encoder, whoever made it")
    command.add_argument("--reference", type=Path, metavar="FP16.onnx", help="the same encoder before quantization")
    command.add_argument("--policy", default="linear", metavar="RECIPE", help="recipe whose promise it is held to (default %(default)s)")
    command.add_argument(
        "--gate-file", type=Path, metavar="FILE", help="where the promise is written (default ./gate.toml, else the packaged one)"
    )


def check_graph(options: argparse.Namespace) -> int:
    """Check one ONNX file against what a recipe promises."""
    from harness.pipeline.checking import check_graph as check

    with only_json_on_stdout() if options.json else contextlib.nullcontext():
        checked = check(options.model, reference=options.reference, policy=options.policy, gate_file=options.gate_file)
    print_to_reader(checked.document if options.json else checked.text)
    return 1 if checked.record.summary.gate else 0


def add_compare(commands: Any) -> None:
    command = add_command(commands, "compare", compare, "compare two runs: types and fusions by ONNX node, memory, accuracy, latency")
    command.add_argument("run_a", type=Path, metavar="RUN_A", help="folder of the run that the other is held to")
    command.add_argument("run_b", type=Path, metavar="RUN_B", help="folder of the run that may be worse")
    command.add_argument("--markdown", action="store_true", help="print Markdown for a pull request, unless --json is given")
    command.add_argument(
        "--gate-file", type=Path, metavar="FILE", help="where margins and bounds are (default ./gate.toml, else the packaged one)"
    )


def compare(options: argparse.Namespace) -> int:
    """Compare what two runs left."""
    from harness.pipeline.comparing import compare_runs

    compared = compare_runs(options.run_a, options.run_b, gate_file=options.gate_file)
    print_to_reader(compared.document if options.json else compared.markdown.rstrip() if options.markdown else compared.text)
    return compared.record.summary.exit_code
