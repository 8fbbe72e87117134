"""Fresh draws, other tools' rules, and what a study of clean engines comes to."""

from __future__ import annotations

import numpy as np
import pytest

from harness.judge.accuracy.evidence import AccuracyEvidence
from harness.prepare.inputs import CALIBRATION
from harness.records.observations import Embeddings
from harness.records.spec import EncoderSpec, EngineSpec, Recipe, Tower
from harness.records.task import Pairing, Task
from harness.records.verdict import Direction, Judgement, Status
from tests.helpers.accuracy_outcomes import Judged
from tests.helpers.false_alarms import tables
from tests.helpers.fresh_inputs import CalibrationDraw, FreshEmoji
from tests.helpers.other_rules import accuracy_percent, passes_by_rule, passes_polygraphys_l2, tensorrt_llm_theta


class TestFreshInputs:
    def test_a_seed_gives_the_same_draw_and_another_seed_another(self):
        first, again, other = (FreshEmoji(seed, 8) for seed in (3, 3, 4))

        assert first.captions == again.captions != other.captions
        assert [np.asarray(one).tobytes() for one in first.pictures()] == [np.asarray(one).tobytes() for one in again.pictures()]

    def test_pictures_are_changed_and_keep_their_size(self):
        drawn, plain = FreshEmoji(0, 8), {}
        from tests.helpers.fresh_inputs import _opened

        plain = dict(zip(drawn.picture_ids, _opened("twemoji.zip", drawn.picture_ids), strict=True))
        for emoji, picture in zip(drawn.picture_ids, drawn.pictures(), strict=True):
            assert picture.size == plain[emoji].size
            assert np.asarray(picture).tobytes() != np.asarray(plain[emoji]).tobytes()

    def test_no_name_that_calibrates_is_drawn(self):
        drawn = {emoji for seed in range(20) for emoji in FreshEmoji(seed, 64).picture_ids}

        assert not drawn & set(CALIBRATION.picture_ids)

    def test_calibration_is_drawn_in_the_gates_own_number_and_in_plain_words(self):
        drawn = CalibrationDraw(0)

        assert len(drawn.captions) == len(CALIBRATION.captions) == 128
        assert not set(drawn.picture_ids) & set(CALIBRATION.picture_ids)


def embeddings(rows):
    return Embeddings(rows=np.asarray(rows, np.float32), ids=tuple(map(str, range(len(rows)))), inputs_digest="same", made_by="a test")


def evidence(observed, exact, other=None):
    exact = embeddings(exact)
    pairing = Pairing.one_to_one("test", len(exact.ids))
    task = (
        Task(tower=Tower.IMAGE, pairing=pairing, other=embeddings(other), logit_scale=1.0, same_weights="w") if other is not None else None
    )
    return AccuracyEvidence(observed=embeddings(observed), exact=exact, task=task)


class TestOtherRules:
    def test_one_lost_row_of_five_hundred_hides_in_a_flattened_cosine(self):
        exact = np.random.default_rng(0).normal(size=(500, 16))
        observed = exact.copy()
        observed[7] = 0

        assert passes_by_rule(evidence(observed, exact)) == {"Polygraphy": True, "Torch-TensorRT": True, "TensorRT-LLM": None}

    @pytest.mark.parametrize(("degrees", "polygraphy", "torch_tensorrt"), [(4, True, True), (6, False, True), (9, False, False)])
    def test_a_turn_is_judged_by_each_tools_own_cosine(self, degrees, polygraphy, torch_tensorrt):
        angle = np.deg2rad(degrees)  # cosines 0.9976, 0.9945 and 0.9877

        passed = passes_by_rule(evidence([[np.cos(angle), np.sin(angle)]], [[1, 0]]))

        assert (passed["Polygraphy"], passed["Torch-TensorRT"]) == (polygraphy, torch_tensorrt)

    def test_rows_that_are_not_numbers_pass_no_rule(self):
        passed = passes_by_rule(evidence([[np.nan, 1], [1, 0]], [[1, 0], [0, 1]], [[1, 0], [0, 1]]))

        assert (passed["Polygraphy"], passed["Torch-TensorRT"]) == (False, False)

    def test_polygraphys_l2_fails_what_half_precision_rounds(self):
        exact = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)

        assert passes_polygraphys_l2(evidence(exact, exact))
        assert not passes_polygraphys_l2(evidence(exact.astype(np.float16), exact))

    def test_tensorrt_llms_theta_is_its_documentations(self):
        assert tensorrt_llm_theta(4096) == pytest.approx(2.75, abs=0.005)

    @pytest.mark.parametrize(("wrong", "passes"), [(8, True), (9, False)])
    def test_tensorrt_llms_rule_allows_what_two_samples_of_a_hundred_may_differ_by(self, wrong, passes):
        # 1.645 * sqrt(2 * 50**2 / 100) = 11.6 points of 100 pictures; each swap of two makes two wrong answers.
        exact = np.eye(100)
        observed = np.eye(100)
        observed[:wrong] = np.roll(observed[:wrong], 1, axis=0)
        observed[50 : 50 + 3] = np.roll(observed[50 : 50 + 3], 1, axis=0)

        seen = evidence(observed, exact, exact)

        assert accuracy_percent(seen.observed, seen.task) == 100 - wrong - 3
        assert passes_by_rule(seen)["TensorRT-LLM"] is passes


class TestTables:
    def engine(self, recipe="linear"):
        return EngineSpec(encoder=EncoderSpec.parse("emoji-clip/image", weights="noto"), recipe=Recipe(recipe), backend="onnxruntime")

    def judged(self, observed, status=Status.PASS, checks=(), passed=True):
        judgement = Judgement(
            metric="cosine_min", status=status, observed=observed, bound=0.975, unit="", direction=Direction.FLOOR, n=64, reason=""
        )
        rules = dict.fromkeys(("Polygraphy", "Torch-TensorRT", "TensorRT-LLM", "Polygraphy L2"), passed)
        return Judged(drawn="64 inputs", engine=self.engine(), judgements=(judgement,), checks=checks, passed_by=rules)

    def test_two_hundred_draws_without_a_failure_support_one_and_a_half_percent(self):
        text = tables([self.judged(0.99)] * 200)

        assert "0 of 200 engines failed. 0 failures in 200 draws of one engine leave a false-alarm rate of at most 1.49%" in text
        assert "| emoji-clip/image linear | 64 inputs | 200 | 200 | 0 | 0 |" in text

    def test_failures_of_metrics_and_of_checks_count_alike_and_inconclusive_is_neither(self):
        alarms = [
            self.judged(0.97, Status.FAIL),
            self.judged(0.99, checks=("O15",)),
            self.judged(0.98, Status.INCONCLUSIVE),
            self.judged(0.99),
        ]

        text = tables(alarms)

        assert [one.failed for one in alarms] == [True, True, False, False]
        assert "| emoji-clip/image linear | 64 inputs | 4 | 1 | 1 | 2 |" in text
        assert "- failed: emoji-clip/image linear, 64 inputs: cosine_min 0.97, bound 0.975\n" in text
        assert "- failed: emoji-clip/image linear, 64 inputs: O15\n" in text

    def test_the_nearest_to_the_bound_is_shown_with_its_distance(self):
        text = tables([self.judged(0.99), self.judged(0.976), self.judged(0.98)])

        assert "| `cosine_min` | emoji-clip, quantized | 64 inputs | 0.975 | 0.976 | 0.99 | 0.001 | 0 | 0 |" in text

    def test_other_tools_alarms_are_counted(self):
        text = tables([self.judged(0.99, passed=False), self.judged(0.99)])

        assert "| Polygraphy | 1 | 2 |" in text
        assert "| this project | 0 | 2 |" in text
