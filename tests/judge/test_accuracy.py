import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import InvalidMeasurement
from harness.judge.accuracy import ROWS_FOR_P01, centred_snr_db, cosine_min, cosine_p01, finite, row_cosines, snr_of
from harness.records.observations import Embeddings
from harness.records.verdict import Severity, Status


def embeddings(rows, *, digest="same inputs"):
    array = np.asarray(rows, dtype=np.float32)
    return Embeddings(rows=array, ids=tuple(f"input {index}" for index in range(len(array))), inputs_digest=digest, made_by="a test")


def random_embeddings(seed, n=20, d=16):
    return embeddings(np.random.default_rng(seed).standard_normal((n, d)))


REFERENCE = random_embeddings(0)


def test_embeddings_equal_to_their_reference_pass_everything():
    assert finite(REFERENCE, REFERENCE).status is Status.PASS
    assert cosine_min(REFERENCE, REFERENCE, floor=0.999999).status is Status.PASS
    assert centred_snr_db(REFERENCE, REFERENCE, floor=100).status is Status.PASS


def test_one_turned_row_among_many_is_found_and_named():
    rows = REFERENCE.rows.copy()
    rows[7] = -rows[7]

    judgement = cosine_min(embeddings(rows), REFERENCE, floor=0.9)

    assert (judgement.status, judgement.reason) == (Status.FAIL, "worst input input 7")
    assert judgement.observed == pytest.approx(-1)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_never_passes(broken):
    rows = REFERENCE.rows.copy()
    rows[3, 0] = broken

    judgements = [
        finite(embeddings(rows), REFERENCE),
        cosine_min(embeddings(rows), REFERENCE, floor=-1),
        centred_snr_db(embeddings(rows), REFERENCE, floor=-1000),
    ]

    assert [judgement.status for judgement in judgements] == [Status.FAIL] * 3
    assert "input 3" in judgements[0].reason
    assert all(judgement.observed is None or math.isfinite(judgement.observed) for judgement in judgements)


def test_a_constant_output_is_unsound_however_finite():
    judgement = finite(embeddings(np.tile(REFERENCE.rows[0], (20, 1))), REFERENCE)

    assert (judgement.status, judgement.observed) == (Status.FAIL, 0)
    assert "ignores its input" in judgement.reason


def test_a_row_of_zeros_is_unsound():
    rows = REFERENCE.rows.copy()
    rows[5] = 0

    assert finite(embeddings(rows), REFERENCE).observed == 19


def test_embeddings_of_another_width_are_unsound():
    judgement = finite(embeddings(REFERENCE.rows[:, :8]), REFERENCE)

    assert (judgement.status, judgement.observed) == (Status.FAIL, 0)
    assert "8 wide" in judgement.reason


def test_a_percentile_of_few_rows_is_a_report_and_of_many_a_gate():
    many = random_embeddings(1, n=ROWS_FOR_P01)

    assert cosine_p01(REFERENCE, REFERENCE, floor=0.99).severity is Severity.REPORT
    assert cosine_p01(many, many, floor=0.99).severity is Severity.GATE


def test_snr_is_what_its_definition_says():
    reference = embeddings([[1, 0], [0, 1]])
    observed = embeddings([[0.8, 0.6], [0, 1]])

    # Centred signal: two rows of (+-0.5, -+0.5), energy 1. Noise: (-0.2, 0.6), energy 0.4.
    assert snr_of(observed, reference) == pytest.approx(10 * math.log10(1 / 0.4))


def test_a_shared_direction_does_not_hide_an_error_from_snr():
    shared = np.array([100.0] + [0.0] * 15)
    reference = embeddings(REFERENCE.rows + shared)
    observed = embeddings(random_embeddings(1).rows + shared)

    assert cosine_min(observed, reference, floor=0.99).status is Status.PASS
    assert centred_snr_db(observed, reference, floor=10).status is Status.FAIL


def test_an_approved_snr_tightens_the_floor_but_never_loosens_it():
    noisy = embeddings(REFERENCE.rows + 0.1 * random_embeddings(2).rows)  # about 20 dB

    assert centred_snr_db(noisy, REFERENCE, floor=10).status is Status.PASS
    assert centred_snr_db(noisy, REFERENCE, floor=10, approved_db=40, margin_db=3).status is Status.FAIL
    assert centred_snr_db(noisy, REFERENCE, floor=30, approved_db=5, margin_db=3).bound == 30


def test_embeddings_of_different_inputs_are_not_compared():
    with pytest.raises(InvalidMeasurement, match="different inputs"):
        row_cosines(embeddings(REFERENCE.rows, digest="others"), REFERENCE)


def test_embeddings_of_different_widths_are_not_compared():
    with pytest.raises(InvalidMeasurement, match="expected equal shapes"):
        row_cosines(embeddings(REFERENCE.rows[:, :8]), REFERENCE)


@given(st.integers(1, 1000), st.floats(1e-3, 1e3))
def test_scaling_embeddings_changes_no_judgement(seed, factor):
    seen = random_embeddings(seed)
    scaled = embeddings(seen.rows * np.float32(factor))

    assert row_cosines(scaled, REFERENCE) == pytest.approx(row_cosines(seen, REFERENCE), abs=1e-5)
    assert snr_of(scaled, REFERENCE) == pytest.approx(snr_of(seen, REFERENCE), abs=1e-3)
