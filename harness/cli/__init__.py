"""The command `enginegate`: the only room that knows argv."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence

from harness.cli.baselines import add_baseline
from harness.cli.benching import add_bench
from harness.cli.commands import add_command, use_named_gpu
from harness.cli.engines import add_build, add_layers
from harness.cli.explaining import add_explain
from harness.cli.files import add_check_graph, add_compare
from harness.cli.gating import gate
from harness.cli.gpu import add_gpu_report, add_noise, add_prepare
from harness.cli.judging import add_judge
from harness.cli.latency import add_judge_latency
from harness.cli.speaking import print_to_reader, tell
from harness.errors import EnginegateError
from harness.records.verdict import INTERRUPTED


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; the table of codes is in the README."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    try:
        if arguments[:1] == ["gate"]:
            return gate(arguments[1:])
        options = _parser().parse_args(arguments)
        use_named_gpu(options)
        return options.run(options)
    except EnginegateError as error:
        return tell(error.code, str(error), error.exit_code, as_json=as_json)
    except SystemExit as stop:  # argparse has said on stderr what is wrong
        return tell("usage", "the arguments are wrong; see stderr", 2, as_json=as_json, quietly=True) if stop.code else 0
    except KeyboardInterrupt:
        words = "interrupted; what was being built is discarded, and the cache stays usable"
        return tell("interrupted", words, INTERRUPTED, as_json=as_json)
    except Exception as error:  # noqa: BLE001 (a fault of ours must not look like a failed gate, whose code is 1)
        traceback.print_exc()
        return tell("broken", f"{type(error).__name__}: {error}", EnginegateError.exit_code, as_json=as_json)


def _doctor(options: argparse.Namespace) -> int:
    """Say what this machine can build, run and measure, and why not the rest."""
    from harness.doctor import examine

    report = examine()
    print_to_reader(report.document if options.json else report.text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="enginegate", description="Decide whether a TensorRT FP8 CLIP engine may ship.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "gate", help="run the suites; takes --json, and hands every other argument to pytest (see gate --help)", add_help=False
    )
    add_build(commands)
    add_check_graph(commands)
    add_layers(commands)
    add_compare(commands)
    add_judge(commands)
    add_judge_latency(commands)
    add_bench(commands)
    add_baseline(commands)
    add_explain(commands)
    add_prepare(commands)
    add_gpu_report(commands)
    add_noise(commands)
    add_command(commands, "doctor", _doctor, "what this machine can build, run and measure, and why not the rest")
    return parser
