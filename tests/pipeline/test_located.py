"""The words that a failed gate of accuracy gets, and those that it gets when they cannot be found."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.errors import BuildFailed, InvalidMeasurement
from harness.pipeline.keeping import Keeper
from harness.pipeline.settling import Settling
from harness.pipeline.stages import _laid_out
from harness.records.localisation import Localisation
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.records.verdict import Direction, Judgement, Severity, Status
from harness.store.run_directory import RunDirectory

ENGINE = EngineSpec(encoder=EncoderSpec.parse("a/image"), recipe=Recipe.LINEAR, backend="b")
FOUND = Localisation(
    encoder="a/image",
    recipe="linear",
    engine=ENGINE.id,
    onnx_sha256="0" * 64,
    rows=16,
    stages=(),
    suspect=None,
    left_out=(),
    all_left_out_db=None,
    graph_db=20.0,
    engine_db=4.0,
    sentence="no block stands out, in many words",
)


def judgement(status=Status.FAIL, **changes) -> Judgement:
    facts: dict[str, Any] = {"observed": 1.0, "bound": 2.0, "unit": "dB", "direction": Direction.FLOOR, "n": 8, "reason": "worst input x"}
    return Judgement(metric="centred_snr_db", status=status, **{**facts, **changes})


class Looks:
    """A pipeline that only counts how often it is asked."""

    def __init__(self, answer):
        self.maker = SimpleNamespace(engines=())
        self.asked = 0
        self._answer = answer

    def localisation(self, spec):
        self.asked += 1
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def settling(looks, folder) -> Settling:
    nothing: Any = None
    return Settling(looks, nothing, nothing, Keeper(looks, RunDirectory.shared(folder)))


@pytest.fixture
def no_plot(monkeypatch):
    """FOUND has no stages to plot."""
    monkeypatch.setattr("harness.pipeline.locating.keep", lambda found, folder: None)


def test_the_first_failure_says_all_and_the_next_ones_the_suspect(tmp_path, no_plot):
    looks = Looks(FOUND)
    seen = settling(looks, tmp_path)

    first, second = (seen.located(judgement(), ENGINE) for _ in range(2))

    assert first.reason == "worst input x; no block stands out, in many words"
    assert second.reason == "worst input x; no block stands out"
    assert looks.asked == 1


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.FAIL])
def test_nothing_is_looked_for_unless_a_gate_failed(tmp_path, status):
    looks = Looks(FOUND)

    assert settling(looks, tmp_path).located(judgement(status), ENGINE) == judgement(status)
    assert looks.asked == 0


def test_a_report_or_a_graph_without_an_engine_is_left_alone(tmp_path):
    looks = Looks(FOUND)
    seen, report = settling(looks, tmp_path), judgement(severity=Severity.REPORT)

    assert seen.located(report, ENGINE) == report
    assert seen.located(judgement(), ENGINE.prepared) == judgement()
    assert looks.asked == 0


@pytest.mark.parametrize("error", [BuildFailed("no FP16 graph"), RuntimeError("of a library"), MemoryError()])
def test_what_breaks_on_the_way_is_said_and_fails_no_less(tmp_path, error):
    looks = Looks(error)
    seen = settling(looks, tmp_path)

    first, second = (seen.located(judgement(), ENGINE) for _ in range(2))

    assert (first.status, second.status, looks.asked) == (Status.FAIL, Status.FAIL, 1)
    assert first.reason == f"worst input x; where it is lost could not be found: {str(error) or 'MemoryError'}"


def test_rows_and_tokens_may_change_places_or_be_one_axis():
    state = np.arange(24).reshape(2, 3, 4)

    assert np.array_equal(_laid_out(state, (3, 2, 4), "block 0")[2, 1], state[1, 2])
    assert np.array_equal(_laid_out(state, (6, 4), "block 0"), state.reshape(6, 4))
    assert np.array_equal(_laid_out(state.reshape(6, 4), (2, 3, 4), "block 0"), state)


def test_tensors_of_other_sizes_are_said_in_words():
    with pytest.raises(InvalidMeasurement, match=r"block 0: PyTorch and the ONNX graph hold \[2, 3, 4\] and \[2, 3, 5\]"):
        _laid_out(np.zeros((2, 3, 4)), (2, 3, 5), "block 0")
