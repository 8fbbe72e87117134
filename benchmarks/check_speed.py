"""Prints what the checks take: of an ONNX file next to reading its bytes, of a layer table next to parsing it.

enginegate build ViT-L-14/image --recipe fp16 --backend onnxruntime --out .
enginegate build ViT-L-14/image --recipe linear --backend onnxruntime --out .
python benchmarks/check_speed.py --onnx ViT-L-14-image-linear.onnx --reference ViT-L-14-image-fp16.onnx --table BUILD.log
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from harness.judge.engine_checks.all_checks import all_findings
from harness.judge.engine_checks.evidence import EngineEvidence
from harness.judge.structure import GraphView
from harness.measure.layers import read_layer_table
from harness.measure.onnx_graph import read_onnx_graph
from harness.pipeline.checking import check_graph
from harness.records.policy import RecipePolicy
from harness.store.gatefile import read_gate_file
from harness.store.packaged import packaged


def main() -> None:
    options = _options()
    if options.reference:
        _print(
            "check-graph --reference", lambda: _check(options, options.reference), lambda: _read(options.onnx, options.reference), options
        )
    _print("check-graph", lambda: _check(options, None), lambda: _read(options.onnx), options)
    if options.table:
        promise = read_gate_file(packaged("gate.toml")).policy(options.policy)
        view, table = GraphView(read_onnx_graph(options.onnx)), read_layer_table(options.table)
        seen = EngineEvidence(view=view, table=table)
        _print("engine checks", lambda: _judge(seen, promise), lambda: read_layer_table(options.table), options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path, required=True, metavar="FP8.onnx")
    parser.add_argument("--reference", type=Path, metavar="FP16.onnx")
    parser.add_argument("--table", type=Path, metavar="LOG|JSON", help="layer table of the engine built from --onnx")
    parser.add_argument("--policy", default="linear", metavar="RECIPE")
    parser.add_argument("--rounds", type=int, default=5, help="of both in turn; medians are printed")
    return parser.parse_args()


def _check(options: argparse.Namespace, reference: Path | None) -> None:
    check_graph(options.onnx, reference=reference, policy=options.policy, gate_file=None)


def _read(*files: Path) -> None:
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")


def _judge(seen: EngineEvidence, promise: RecipePolicy) -> None:
    # A view remembers what it found, so each round has one of its own.
    all_findings(EngineEvidence(view=GraphView(seen.view.graph), table=seen.table), promise)


def _print(name: str, work: Callable[[], object], yardstick: Callable[[], object], options: argparse.Namespace) -> None:
    rounds = [(_seconds(work), _seconds(yardstick)) for _ in range(options.rounds)]
    seconds, beside = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"{name:24} {seconds:7.3f} s   {seconds / beside:6.2f} of reading its input ({beside:.3f} s)")


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
