"""A latency gate that failed names the layers that got slower, and nothing on the way can change its verdict."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.pipeline import slower
from harness.pipeline.slower import with_slower_layers
from harness.records.spec import Recipe
from harness.records.verdict import Direction, Judgement, Status
from tests.helpers.left_engines import fake_engine
from tests.helpers.products import engine_of, write_two_products
from tests.helpers.slower_onnx import slower_onnx

FAILED = Judgement(
    metric="latency_ratio", observed=2.0, bound=1.0, unit="", direction=Direction.CEILING, n=4, status=Status.FAIL, reason="slower"
)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return write_two_products(tmp_path / "encoder.onnx")


def test_the_layers_of_a_real_slow_down_are_named(encoder: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.onnx"
    slower_onnx(encoder, slow, products=200)
    pair = (engine_of(encoder, Recipe.FP16), engine_of(slow, Recipe.LINEAR))
    judged = with_slower_layers(FAILED, pair, rows=4, threads=1)
    assert judged.status is Status.FAIL
    told = judged.reason.removeprefix("slower; next to tiny/image-fp16-onnxruntime it takes longer in ")
    assert told != judged.reason
    assert told.count(" -> ") == 3
    # The chain and what leads into it; ONNX Runtime may merge the last product with the scaling behind it.
    count = int(re.match(r"MatMul_# \(x(\d+)\): ", told)[1])
    assert 200 <= count <= 202
    assert "a profiling run of its own, ONNX Runtime's profiler" in told


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.FAIL])
def test_only_a_failure_is_looked_into(status: Status, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slower, "profile_engines", lambda *_: pytest.fail("profiled"))
    judgement = replace(FAILED, status=status)
    assert with_slower_layers(judgement, (engine_of(encoder, Recipe.FP16),) * 2, rows=4, threads=1) is judgement


def test_a_backend_without_layer_times_has_nothing_to_add() -> None:
    assert with_slower_layers(FAILED, (fake_engine(), fake_engine()), rows=2, threads=1) is FAILED


def test_what_breaks_on_the_way_is_told_and_changes_no_status(encoder: Path, tmp_path: Path) -> None:
    pair = (engine_of(encoder, Recipe.FP16), engine_of(tmp_path / "gone.onnx", Recipe.LINEAR))
    judged = with_slower_layers(FAILED, pair, rows=4, threads=1)
    assert judged.status is Status.FAIL
    assert "which layers got slower could not be found" in judged.reason
