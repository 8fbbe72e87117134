"""The search for an example that breaks a property."""

import pytest
from hypothesis import strategies as st

from harness.errors import InvalidMeasurement
from harness.measure.crowds import Caption, Filled, HotPixel
from harness.pipeline.drawing import sizes, telling_crowds
from harness.pipeline.searching import NIGHTLY_EXAMPLES, SMALLER_TRIES, Drawn, profile_settings, search
from harness.records.spec import BatchProfile
from harness.records.verdict import Direction, Judgement, Status

NUMBERS = Drawn(shown=(1000,), strategy=st.integers(0, 10_000), rows=10)
PLENTY = 10_000


def judged(passes, observed=0.0):
    status = Status.PASS if passes else Status.FAIL
    return Judgement(metric="m", status=status, observed=observed, bound=1, unit="", direction=Direction.CEILING, n=1, reason="too large")


class Counting:
    """Remembers what it was asked about."""

    def __init__(self, judge):
        self.judge = judge
        self.asked = []

    def __call__(self, number):
        self.asked.append(number)
        return self.judge(number)


def searched(judge, *, drawn=NUMBERS, profile=None, rows=PLENTY):
    counting = Counting(judge)
    return search(drawn, counting, profile=profile_settings(profile), rows_allowed=rows), counting.asked


def test_a_property_that_holds_passes_over_all_examples():
    judgement, asked = searched(lambda number: judged(True, number / 10_000))

    assert (judgement.status, judgement.n) == (Status.PASS, len(asked))
    assert judgement.observed == max(asked) / 10_000
    assert asked[0] == 1000


def test_the_smallest_example_that_breaks_it_is_told():
    judgement, _ = searched(lambda number: judged(number < 700))

    assert judgement.status is Status.FAIL
    assert judgement.reason == "too large; falsified by 700"


def test_no_more_than_a_few_examples_are_tried_once_one_broke():
    drawn = Drawn(shown=(10_000,), strategy=st.integers(0, 10_000), rows=10)
    _, asked = searched(lambda number: judged(number < 9_000), drawn=drawn, rows=1)

    assert len(asked) <= 1 + SMALLER_TRIES


def test_an_example_is_judged_once_however_often_it_is_drawn():
    _, asked = searched(lambda number: judged(number < 700))

    assert len(asked) == len(set(asked))


def test_a_judge_that_changes_its_mind_confuses_nobody():
    moods = iter([False, *[True] * 1000])
    judgement, _ = searched(lambda number: judged(next(moods)))

    assert judgement.reason == "too large; falsified by 1000"


def test_what_breaks_is_raised_as_it_is_and_not_tried_again():
    def breaking(number):
        if number != 1000:
            raise InvalidMeasurement("the device was lost")
        return judged(True)

    counting = Counting(breaking)
    with pytest.raises(InvalidMeasurement, match="the device was lost"):
        search(NUMBERS, counting, profile=profile_settings(None), rows_allowed=PLENTY)

    assert len(counting.asked) == 2


def test_rows_that_are_few_leave_the_shown_examples_only():
    assert searched(lambda number: judged(True), rows=10)[1] == [1000]


def test_examples_are_the_same_every_time():
    assert searched(lambda number: judged(True))[1] == searched(lambda number: judged(True))[1]


def test_like_strategies_meet_the_same_examples_so_that_properties_share_launches():
    again = Drawn(shown=(1000,), strategy=st.integers(0, 10_000), rows=10)

    assert searched(lambda number: judged(True))[1] == searched(lambda number: judged(True, 0.5), drawn=again)[1]


def test_nightly_draws_others_each_time_and_is_held_to_no_rows():
    first, second = (searched(lambda number: judged(True), profile="enginegate-nightly", rows=0)[1] for _ in range(2))

    assert len(first) > NIGHTLY_EXAMPLES / 2
    assert first != second


def test_examples_that_show_nothing_are_not_a_pass():
    with pytest.raises(InvalidMeasurement, match="no example showed this property"):
        searched(lambda number: None)


def test_our_profiles_are_children_of_hypothesis_own_for_ci():
    for name in ("enginegate-ci", "enginegate-nightly"):
        settings = profile_settings(name)
        assert settings.deadline is None
        assert settings.database is None
        assert "explain" not in {phase.name for phase in settings.phases}
    assert profile_settings("enginegate-ci").derandomize


class TestTellingCrowds:
    PICTURES = (Filled(float("nan")), HotPixel(0, 65504.0), Filled(0.0))

    @pytest.mark.parametrize("rows", [2, 3, 4, 6, 8, 64])
    def test_between_them_rows_move_stay_stand_twice_and_meet_every_guest(self, rows):
        crowds = telling_crowds(rows, self.PICTURES)

        assert all(len(crowd.places) == rows for crowd in crowds)
        assert any(crowd.moved for crowd in crowds)
        assert any(crowd.stayed for crowd in crowds)
        assert any(crowd.twins for crowd in crowds)
        assert {one for crowd in crowds for one in crowd.places if not isinstance(one, int)} == set(self.PICTURES)

    def test_one_batch_is_enough_where_it_is_long_enough(self):
        assert len(telling_crowds(6, self.PICTURES)) == 1

    def test_twins_stand_on_an_even_and_an_odd_place(self):
        ((one, other),) = telling_crowds(8, self.PICTURES)[0].twins

        assert (one + other) % 2 == 1

    def test_a_batch_of_one_meets_each_guest_alone(self):
        assert [crowd.places for crowd in telling_crowds(1, (Caption(0), Caption(4)))] == [(Caption(0),), (Caption(4),)]


def test_lengths_of_batches_start_at_the_profiles_minimum():
    drawn = sizes(BatchProfile(minimum=4, optimum=4, maximum=4), rows=20)

    assert [size.rows for size in drawn.shown] == [4]
