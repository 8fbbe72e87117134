"""One stage of many is named, or none, from the errors of each on its own."""

import numpy as np
import pytest

from harness.judge.localisation import (
    MOST_DB,
    StageErrors,
    Trial,
    curve_snr_db,
    judged_stages,
    own_snr_db,
    ranked,
    suspect_of,
    with_sentence,
)
from harness.judge.quantizers import Quantizer
from harness.records.localisation import Localisation

rng = np.random.default_rng(0)


def state(*shape):
    return rng.normal(size=shape).astype(np.float32)


class TestFigures:
    def test_an_error_of_a_tenth_of_what_is_added_is_twenty_decibels(self):
        entering = state(4, 5, 8)
        added = np.ones_like(entering)

        assert own_snr_db(entering + added * 1.1, entering + added, entering) == pytest.approx(20, abs=1e-3)

    def test_a_large_stream_hides_no_error_of_what_is_added_to_it(self):
        entering, added = state(4, 5, 8) * 1000, state(4, 5, 8)
        exact = entering + added

        own, whole = own_snr_db(exact + added, exact, entering), own_snr_db(exact + added, exact, None)

        assert own == pytest.approx(0, abs=0.1)
        assert whole > 50

    def test_a_stage_that_changes_the_shape_is_held_against_all_that_it_makes(self):
        exact = np.ones((4, 2), np.float32)

        assert own_snr_db(exact * 1.1, exact, state(4, 5, 8)) == pytest.approx(20, abs=1e-3)

    def test_the_curve_counts_differences_between_inputs_alone(self):
        exact = state(4, 5, 8)

        assert curve_snr_db(exact + 0.1, exact) == pytest.approx(curve_snr_db(exact + 100 + 0.1, exact + 100), abs=0.01)

    @pytest.mark.parametrize("broken", [np.nan, np.inf])
    def test_what_is_not_finite_has_no_figure(self, broken):
        exact = state(4, 5, 8)
        seen = exact.copy()
        seen[0, 0, 0] = broken

        assert own_snr_db(seen, exact, None) is None
        assert curve_snr_db(seen, exact) is None

    def test_no_error_at_all_is_the_most_there_is(self):
        assert own_snr_db(exact := state(4, 5, 8), exact, None) == MOST_DB

    def test_a_stage_that_adds_nothing_and_is_given_an_error_has_the_least(self):
        exact = state(4, 5, 8)

        assert own_snr_db(exact + 1, exact, exact) == -MOST_DB


def tower(*own, before=70.0, after=70.0, quantizers=10):
    """Stages whose blocks have these own errors."""
    blocks = [
        StageErrors(name=f"block {place}", block=place, curve_db=20.0, own_db=one, quantizers=quantizers) for place, one in enumerate(own)
    ]
    ends = [("before the blocks", before), ("after the blocks", after)]
    first, last = (StageErrors(name=name, block=None, curve_db=20.0, own_db=figure, quantizers=0) for name, figure in ends)
    return judged_stages([first, *blocks, last])


def named(*own, **others):
    found = suspect_of(tower(*own, **others))
    return found.name if found else None


class TestSuspects:
    @pytest.mark.parametrize("block", range(4))
    def test_the_block_far_below_the_others_is_named(self, block):
        own = [26.0, 25.0, 26.5, 25.5]
        own[block] = 15.0

        assert named(*own) == f"block {block}"

    def test_the_worse_of_two_is_named_and_the_other_stands_out_too(self):
        stages = tower(26, 12, 25, 8, 25, 26)

        assert suspect_of(stages).name == "block 3"
        assert [stage.name for stage in stages if stage.stands_out] == ["block 1", "block 3"]

    def test_clean_towers_as_they_were_seen_have_no_suspect(self):
        assert named(26.9, 26.5, 26.2, 26.1, 25.9, 25.8, before=69.0, after=68.5) is None
        assert named(21.7, 24.6, 25.2, 25.3, before=73.0, after=69.5) is None
        assert named(23.1, 28.9, 27.3, 26.8, before=72.9, after=71.4) is None
        assert named(67.9, 66.6, 60.6, 59.2, before=72.9, after=71.4, quantizers=0) is None
        assert named(65.6, 67.3, 65.9, 64.6, before=73.0, after=69.5, quantizers=0) is None
        assert named(49.4, 52.5, 70.8, 43.8, 47.8, 46.6, 70.1, 45.0, quantizers=0) is None

    def test_where_the_others_differ_much_more_is_needed_to_stand_out(self):
        assert named(18, 24, 30, 36, 42, 12) is None
        assert named(26, 26, 26, 26, 26, 20) == "block 5"

    def test_of_two_blocks_the_lower_one_is_named(self):
        assert named(26, 12) == "block 1"
        assert named(26, 24) is None

    def test_a_single_block_is_held_against_what_fp8_keeps(self):
        assert named(5) == "block 0"
        assert named(22) is None

    @pytest.mark.parametrize("end", ["before", "after"])
    def test_an_end_that_rounds_nothing_is_held_against_what_half_precision_keeps(self, end):
        assert named(25, 26, 25, **{end: 30.0}) == f"{end} the blocks"

    def test_an_end_is_not_held_against_blocks_which_do_other_work(self):
        assert named(75, 76, 75, 74, before=60.0, after=58.0, quantizers=0) is None

    def test_blocks_that_give_no_numbers_are_named_by_the_first(self):
        assert named(26, None, None, 25) == "block 1"

    def test_when_every_block_is_broken_the_first_is_still_named(self):
        assert named(None, None, None) == "block 0"


def quantizer(name: str) -> Quantizer:
    return Quantizer(node=name, tensor=f"{name}:x", feeds=f"input of {name}", dequantized=(f"{name}:y",))


def left_out(suspect, **own):
    return ranked(suspect, [Trial(quantizer=quantizer(name), own_db=figure) for name, figure in own.items()])


def sentence(stages, found=(), together=None, graph_db=10.0, engine_db=None):
    suspect = suspect_of(stages)
    return with_sentence(
        Localisation(
            encoder="a/image",
            recipe="linear",
            engine="a/image-linear-b",
            onnx_sha256="0" * 64,
            rows=16,
            stages=stages,
            suspect=suspect.name if suspect else None,
            left_out=found,
            all_left_out_db=together,
            graph_db=graph_db,
            engine_db=engine_db,
            sentence="",
        )
    ).sentence


class TestQuantizers:
    stages = tower(26, 25, 11.2, 26)
    suspect = suspect_of(stages)

    def test_what_recovers_most_comes_first(self):
        found = left_out(self.suspect, q=11.4, fc2=24.0, fc1=12.0)

        assert [one.node for one in found] == ["fc2", "fc1", "q"]
        assert [one.recovers for one in found] == [True, False, False]
        assert found[0].recovered_db == pytest.approx(12.8)
        assert found[0].feeds == "block 2: input of fc2"

    def test_a_little_more_signal_recovers_nothing(self):
        assert not left_out(self.suspect, q=14.0)[0].recovers

    def test_of_a_small_fault_half_of_it_must_come_back(self):
        suspect = suspect_of(tower(26, 26, 20.5, 26))

        assert [one.recovers for one in left_out(suspect, q=22.5, fc2=25.0)] == [True, False]

    def test_numbers_that_come_back_are_a_recovery(self):
        suspect = suspect_of(tower(26, None, 26, 26))

        found = left_out(suspect, q=None, fc2=25.0)

        assert [(one.node, one.recovers, one.recovered_db) for one in found] == [("fc2", True, None), ("q", False, None)]


class TestSentence:
    stages = tower(26, 25, 11.2, 26)
    suspect = suspect_of(stages)

    def test_it_names_the_block_and_the_quantizer(self):
        assert sentence(self.stages, left_out(self.suspect, fc2=24.0)) == (
            "first suspect: block 2 (own SNR 11.2 dB, other blocks 25.0 to 26.0 dB); "
            "quantizer fc2 (block 2: input of fc2), which alone recovers 12.8 dB"
        )

    def test_it_says_when_the_fault_is_no_quantizer(self):
        words = sentence(self.stages, left_out(self.suspect, fc2=12.0, q=11.5), together=12.5)

        assert "none of its 2 quantizers recovers it, nor do all together (12.5 dB)" in words
        assert "bias" in words

    def test_it_says_when_several_quantizers_are_at_fault(self):
        words = sentence(self.stages, left_out(self.suspect, fc2=12.0, q=11.5), together=40.0)

        assert "no single quantizer recovers it, all 2 together do (40.0 dB)" in words

    def test_it_says_when_there_is_no_quantizer(self):
        assert "it holds no quantizer" in sentence(tower(65, 64, 20, 66, quantizers=0))

    def test_it_says_when_no_block_stands_out(self):
        assert sentence(tower(5.0, 5.5, 6.0)).startswith("no block stands out: each on its own keeps 5.0 to 6.0 dB")

    def test_it_says_which_others_stand_out(self):
        assert "and so do block 1" in sentence(tower(26, 12, 25, 8, 25, 26))

    def test_it_says_when_the_graph_is_better_than_the_engine(self):
        assert "what was built from it lost the rest" in sentence(tower(26, 25, 26), graph_db=20.0, engine_db=4.0)
        assert "built" not in sentence(tower(26, 25, 26), graph_db=20.0, engine_db=19.5)
