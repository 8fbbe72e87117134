from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from harness.errors import InvalidMeasurement
from harness.measure.memory import onnx_memory, read_build_memory
from harness.records.graph import OnnxConstant, OnnxGraph

DATA = Path(__file__).parent / "data"


def test_a_real_log_says_weights_and_activations(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    log.write_bytes(gzip.decompress((DATA / "rtx-1.7.1-sm89-vit-b-32-image-linear.log.gz").read_bytes()))
    reading = read_build_memory(log, plan_bytes=101_171_236)
    assert (reading.weights_bytes, reading.activation_bytes, reading.plan_bytes) == (92_198_790, 52_724_224, 101_171_236)


def test_a_figure_the_log_does_not_give_is_unknown_rather_than_zero(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    log.write_text("[INFO] Total Weights Memory: 12 bytes\n")
    assert read_build_memory(log, plan_bytes=1).activation_bytes is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[INFO] nothing here\n", "says nothing of memory"),
        ("[INFO] Total Weights Memory: 12 bytes\n[INFO] Total Weights Memory: 13 bytes\n", r"\[12, 13\]"),
    ],
)
def test_a_log_that_says_nothing_or_two_things_is_refused(text: str, words: str, tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    log.write_text(text)
    with pytest.raises(InvalidMeasurement, match=words):
        read_build_memory(log, plan_bytes=1)


def test_a_missing_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidMeasurement, match="cannot be read"):
        read_build_memory(tmp_path / "absent.log", plan_bytes=1)


def test_an_engine_that_is_the_onnx_file_needs_its_constants() -> None:
    constants = {name: OnnxConstant(name=name, dtype="FLOAT16", shape=(4,), nbytes=8) for name in "ab"}
    graph = OnnxGraph(nodes=(), constants=constants, inputs=(), outputs=(), opsets={})
    reading = onnx_memory(graph, plan_bytes=100)
    assert (reading.weights_bytes, reading.activation_bytes, reading.plan_bytes) == (16, None, 100)
