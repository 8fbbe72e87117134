"""What must hold of an engine whatever it is given, judged from rows that are written by hand."""

import numpy as np
import pytest

from harness.errors import InvalidMeasurement
from harness.judge.accuracy.properties import FP16_DISTANCE, Pairs, as_promised, merged, near, own_error, same_bits, stays_finite
from harness.records.observations import Embeddings
from harness.records.verdict import Direction, Status

RIGHT, UP = [1.0, 0.0], [0.0, 1.0]


def pairs(seen, wanted, error=0.1, dtype=np.float32):
    names = tuple(f"row {row}" for row in range(len(seen)))
    return Pairs(seen=np.array(seen, dtype), wanted=np.array(wanted, dtype), names=names, own_error=error)


def embeddings(*rows):
    return Embeddings(rows=np.array(rows, np.float32), ids=tuple(map(str, range(len(rows)))), inputs_digest="d", made_by="somebody")


def turned(distance):
    """The unit row at this distance from RIGHT."""
    angle = 2 * np.arcsin(distance / 2)
    return [float(np.cos(angle)), float(np.sin(angle))]


class TestNear:
    def test_a_distance_is_told_in_units_of_the_engines_own_error(self):
        seen = near("property_batch_order", pairs([RIGHT, turned(0.05)], [RIGHT, RIGHT], error=0.1), ceiling=1.0)

        assert seen.observed == pytest.approx(0.5, rel=1e-5)
        assert (seen.status, seen.direction, seen.unit, seen.n) == (Status.PASS, Direction.CEILING, "own error", 2)

    def test_a_row_beyond_the_ceiling_fails_and_is_named(self):
        seen = near("property_batch_order", pairs([RIGHT, turned(0.15)], [RIGHT, RIGHT], error=0.1), ceiling=1.0)

        assert (seen.status, seen.reason) == (Status.FAIL, "worst row 1")

    def test_lengths_of_rows_do_not_count_only_directions(self):
        assert near("m", pairs([[3.0, 0.0]], [RIGHT]), ceiling=0.0).observed == 0

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_a_row_that_is_not_finite_fails_without_a_figure(self, bad):
        seen = near("m", pairs([RIGHT, [bad, 0.0]], [RIGHT, RIGHT]), ceiling=1.0)

        assert (seen.status, seen.observed, seen.reason) == (Status.FAIL, None, "worst row 1; it is not finite")

    def test_an_engine_without_error_may_not_differ_at_all(self):
        assert near("m", pairs([turned(1e-3)], [RIGHT], error=0.0), ceiling=1.0).status is Status.FAIL
        assert near("m", pairs([RIGHT], [RIGHT], error=0.0), ceiling=1.0).status is Status.PASS

    def test_no_pair_shows_nothing(self):
        assert near("m", pairs(np.zeros((0, 2)), np.zeros((0, 2))), ceiling=1.0) is None


class TestOwnError:
    def test_it_is_the_largest_distance_from_fp32(self):
        seen = own_error(embeddings(RIGHT, turned(0.02)), embeddings(RIGHT, RIGHT), embeddings(RIGHT, turned(0.05)))

        assert seen == pytest.approx(0.02, rel=1e-4)

    def test_a_broken_engine_is_measured_by_what_quantization_alone_loses(self):
        seen = own_error(embeddings(RIGHT, UP), embeddings(RIGHT, RIGHT), embeddings(RIGHT, turned(0.05)))

        assert seen == pytest.approx(0.05, rel=1e-4)

    def test_a_broken_fp16_engine_is_measured_by_a_cosine_of_four_nines(self):
        assert own_error(embeddings(UP), embeddings(RIGHT), None) == FP16_DISTANCE == pytest.approx(0.01414, rel=1e-3)

    def test_an_engine_whose_rows_are_not_finite_is_measured_all_the_same(self):
        assert own_error(embeddings([np.nan, 0.0]), embeddings(RIGHT), None) == FP16_DISTANCE

    def test_rows_of_another_width_are_no_measurement(self):
        with pytest.raises(InvalidMeasurement, match="expected equal shapes"):
            own_error(embeddings([1.0, 0.0, 0.0]), embeddings(RIGHT), None)


class TestBits:
    def test_one_bit_is_a_difference(self):
        one = np.nextafter(np.float16(1), np.float16(2))
        seen = same_bits("property_repeat", pairs([RIGHT, [one, 0.0]], [RIGHT, RIGHT], dtype=np.float16))

        assert (seen.status, seen.observed, seen.bound, seen.reason) == (Status.FAIL, 1, 0, "1 of 2 rows differ in bits, first row 1")

    def test_the_same_nan_twice_is_the_same(self):
        assert same_bits("property_repeat", pairs([[np.nan, 0.0]], [[np.nan, 0.0]])).status is Status.PASS


def test_rows_that_are_not_finite_are_counted_and_named():
    seen = stays_finite("property_special_values", np.array([RIGHT, [np.inf, 0.0]]), ("zeros", "a hot pixel"))

    assert (seen.status, seen.observed, seen.reason) == (Status.FAIL, 1, "1 of 2 rows are not finite, first a hot pixel")
    assert stays_finite("property_special_values", np.array([RIGHT]), ("zeros",)).status is Status.PASS


def test_calls_that_went_otherwise_are_told_and_a_note_only_beside_a_pass():
    wrong = as_promised("property_profile", {"no row": None, "65 rows": "gave 64 rows"}, note="64 rows were not tried")
    fine = as_promised("property_profile", {"no row": None}, note="64 rows were not tried")

    assert (wrong.status, wrong.observed, wrong.n, wrong.reason) == (Status.FAIL, 1, 2, "65 rows: gave 64 rows")
    assert (fine.status, fine.reason) == (Status.PASS, "64 rows were not tried")


class TestMerged:
    def test_the_worst_example_counts_over_all_rows(self):
        examples = [near("m", pairs([turned(distance)], [RIGHT]), ceiling=1.0) for distance in (0.01, 0.05, 0.02)]

        assert (merged(examples).observed, merged(examples).n) == (examples[1].observed, 3)

    def test_a_failure_without_a_figure_is_the_worst(self):
        fine, broken = near("m", pairs([RIGHT], [RIGHT]), ceiling=1.0), near("m", pairs([[np.nan, 0.0]], [RIGHT]), ceiling=1.0)

        assert merged([fine, broken, fine]).status is Status.FAIL

    def test_examples_that_show_nothing_are_no_measurement(self):
        with pytest.raises(InvalidMeasurement, match="no example showed this property"):
            merged([])


def test_pairs_of_unlike_shapes_are_no_measurement():
    with pytest.raises(InvalidMeasurement, match="expected pairs of like rows"):
        pairs([RIGHT], [RIGHT, UP])
