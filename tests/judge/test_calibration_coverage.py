"""What calibration saw, judged by the rows that came later."""

import numpy as np
import pytest

from harness.errors import InvalidMeasurement
from harness.judge.accuracy.all_metrics import judgement
from harness.judge.accuracy.calibration import calibration_coverage
from harness.judge.accuracy.evidence import AccuracyEvidence
from harness.records.observations import RangeUse
from harness.records.verdict import Status
from tests.helpers.towers import embeddings

RANDOM = np.random.default_rng(0)


def use_of(shares, inputs="the same"):
    shares = np.asarray(shares, np.float32)
    return RangeUse(shares=shares, quantizers=tuple(f"fc{index}" for index in range(shares.shape[1])), inputs_digest=inputs)


def judged(shares, floor=0.6):
    return calibration_coverage(use_of(shares), embeddings(np.ones((len(shares), 3))), floor=floor)


def calibrated_on(rows, *, n=128, quantizers=48):
    """Rows and calibration rows of one distribution, as heavy-tailed as magnitudes of activations are."""
    seen = RANDOM.lognormal(sigma=0.3, size=(rows, quantizers)).max(axis=0)
    return RANDOM.lognormal(sigma=0.3, size=(n, quantizers)) / seen


@pytest.mark.parametrize("rows", [64, 128])
def test_ranges_of_many_rows_pass(rows):
    assert judged(calibrated_on(rows)).status is Status.PASS


@pytest.mark.parametrize("n", [32, 320])
def test_ranges_of_one_row_fail_and_the_worst_quantizer_is_named(n):
    shares = calibrated_on(1, n=n)
    worst = int((shares <= 1).sum(axis=0).argmin())

    verdict = judged(shares)

    assert verdict.status is Status.FAIL
    assert f"fc{worst}" in verdict.reason
    assert f"{shares[:, worst].max():.2f} times" in verdict.reason


def test_one_narrow_range_among_many_wide_ones_fails():
    shares = np.full((64, 48), 0.5)
    shares[:, 7] = 1.5

    verdict = judged(shares)

    assert (verdict.status, verdict.observed) == (Status.FAIL, 0)
    assert "fc7" in verdict.reason


def test_a_row_at_the_very_edge_of_its_range_is_inside():
    assert judged(np.full((64, 2), 1 + 1e-6)).observed == 1


def test_a_few_rows_cannot_carry_the_claim():
    verdict = judged(np.full((4, 2), 0.5))

    assert verdict.status is Status.INCONCLUSIVE
    assert "about 6" in verdict.reason


def test_many_quantizers_do_not_make_the_worst_of_them_a_failure_by_chance():
    shares = np.full((32, 60), 0.5)
    shares[:17, 0] = 1.5  # 15 of 32 kept: too few for one quantizer, and possible for the worst of sixty

    assert judged(shares[:, :1]).status is Status.INCONCLUSIVE
    assert judged(shares).interval[1] > judged(shares[:, :1]).interval[1]


def test_ranges_seen_on_other_inputs_are_refused():
    with pytest.raises(InvalidMeasurement, match="other inputs"):
        calibration_coverage(use_of(np.ones((4, 2)), inputs="others"), embeddings(np.ones((4, 3))), floor=0.6)


def test_nothing_seen_is_refused():
    with pytest.raises(InvalidMeasurement, match="at least one of each"):
        judged(np.empty((4, 0)))
    rows = embeddings(np.ones((4, 3)))
    with pytest.raises(InvalidMeasurement, match="run the gate again"):
        judgement("calibration_coverage", AccuracyEvidence(observed=rows, exact=rows), limit=lambda _: 0.6, margin=lambda _: 0.0)


def test_a_column_without_a_quantizer_is_refused():
    with pytest.raises(InvalidMeasurement, match="one column for each"):
        RangeUse(shares=np.ones((4, 2), np.float32), quantizers=("fc",), inputs_digest="the same")
