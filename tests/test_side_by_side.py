"""Jobs on all cores, and a file that keeps what they made."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from harness.measure.machine import this_machine
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.records.verdict import Direction, Judgement, Status
from tests.helpers.accuracy_outcomes import Header, Judged, Made, Outcome, OutcomeFile, Sample, held_to, read_outcomes
from tests.helpers.gates import REPOSITORY
from tests.helpers.side_by_side import SideBySide

ENGINE = EngineSpec(encoder=EncoderSpec.parse("emoji-clip/image", weights="noto"), recipe=Recipe.LINEAR, backend="onnxruntime")
GATE_TOML = (REPOSITORY / "gate.toml").read_text(encoding="utf-8")
HEADER = Header(command="", machine=this_machine(), gate_file=GATE_TOML)


@dataclass(frozen=True)
class Say:
    name: str
    after: tuple[str, ...] = ()
    seconds: float = 1

    def run(self):
        if self.name == "breaks":
            raise ValueError("as it must")
        return f"{self.name} done"


def ran(jobs, *, then=lambda job, made: (), kept=()):
    pool = SideBySide(2, then, {name: f"{name} kept" for name in kept})
    return {job.name: made for job, made in pool.run(jobs)}, pool.broken


class TestSideBySide:
    def test_a_job_waits_for_those_it_comes_after_and_others_follow_from_it(self):
        made, broken = ran(
            [Say("second", after=("first",)), Say("first")], then=lambda job, _: [Say("third")] if job.name == "second" else ()
        )

        assert list(made) == ["first", "second", "third"]
        assert not broken

    def test_what_was_kept_is_not_done_again_and_what_follows_from_it_is(self):
        def then(job, made):
            return [Say("third")] if job.name == "first" else ()

        made, _ = ran([Say("first"), Say("second", after=("first",))], then=then, kept=["first"])

        assert set(made) == {"second", "third"}

    def test_a_job_that_raises_is_named_with_what_waited_for_it_and_stops_no_other(self, capsys):
        made, broken = ran([Say("breaks"), Say("never", after=("breaks",)), Say("other")])

        assert made == {"other": "other done"}
        assert broken == ["breaks", "never"]
        assert "ValueError: as it must" in capsys.readouterr().err


def judgement(metric="cosine_min", observed=0.98, bound=0.975, **changes):
    base = Judgement(metric=metric, status=Status.PASS, observed=observed, bound=bound, unit="", direction=Direction.FLOOR, n=320)
    return replace(base, **changes)


def made(*judgements, job="one"):
    outcome = Outcome(judgements=judgements, checks=("O15",), snr_db=27.0, clean_snr_db=28.0, passed_by={"Polygraphy": None})
    sample = Sample(engine=ENGINE, rows=320, kind="bias lost", place="block 0 v", outcome=outcome)
    judged = Judged(drawn="64 inputs", engine=ENGINE, judgements=judgements, checks=(), passed_by={"Polygraphy": True})
    return Made(job=job, seconds=2.5, samples=(sample,), judged=(judged,))


class TestOutcomeFile:
    def test_what_was_kept_reads_back_equal(self, tmp_path):
        path = tmp_path / "outcomes.jsonl"
        OutcomeFile(path, HEADER).add(made(judgement()))

        assert read_outcomes(path) == (HEADER, {"one": made(judgement())})
        assert OutcomeFile(path, HEADER).made == {"one": made(judgement())}

    def test_a_run_that_was_stopped_while_it_wrote_loses_that_line_alone(self, tmp_path):
        path = tmp_path / "outcomes.jsonl"
        file = OutcomeFile(path, HEADER)
        file.add(made(judgement()))
        file.add(made(judgement(), job="two"))
        path.write_bytes(path.read_bytes()[:-40])

        again = OutcomeFile(path, HEADER)
        again.add(made(judgement(), job="three"))

        assert list(read_outcomes(path)[1]) == ["one", "three"]

    def test_outcomes_under_other_bounds_are_not_mixed(self, tmp_path):
        OutcomeFile(tmp_path / "outcomes.jsonl", HEADER)

        with pytest.raises(SystemExit, match=r"another gate\.toml"):
            OutcomeFile(tmp_path / "outcomes.jsonl", replace(HEADER, gate_file=GATE_TOML + "\n"))


class TestOtherBounds:
    def held(self, one, was="", now=""):
        """What becomes of it when lines of gate.toml are others."""
        policy = HEADER.policy
        other = replace(HEADER, gate_file=GATE_TOML.replace(was, now)).policy
        held = held_to(made(one), policy, other, {})
        assert held.samples[0].outcome.judgements == held.judged[0].judgements
        return held.judged[0].judgements[0]

    def test_under_the_same_bounds_nothing_changes(self):
        assert self.held(judgement()) == judgement()

    @pytest.mark.parametrize(("floor", "status"), [(0.979, Status.PASS), (0.981, Status.FAIL)])
    def test_a_figure_without_an_interval_is_held_to_the_new_bound(self, floor, status):
        held = self.held(judgement(), "floor = 0.975", f"floor = {floor}")

        assert (held.bound, held.status) == (floor, status)

    @pytest.mark.parametrize(("ceiling", "status"), [(0.5, Status.FAIL), (2.0, Status.INCONCLUSIVE), (3.0, Status.PASS)])
    def test_an_estimate_is_held_by_its_interval(self, ceiling, status):
        one = judgement("snr_loss_db", 2.0, 1.0, interval=(0.8, 2.9), status=Status.INCONCLUSIVE, direction=Direction.CEILING)
        line = 'metric = "snr_loss_db"\nceiling = '

        assert self.held(one, line + "1.0", line + str(ceiling)).status is status

    def test_what_the_data_could_not_carry_stays_so(self):
        one = judgement("snr_loss_db", 0.1, 1.0, interval=(0.0, 0.2), status=Status.INCONCLUSIVE, direction=Direction.CEILING)
        line = 'metric = "snr_loss_db"\nceiling = '

        assert self.held(one, line + "1.0", line + "3.0").status is Status.INCONCLUSIVE

    def test_what_is_judged_on_the_gates_rows_is_held_to_the_clean_engines_nearness_to_its_plan(self):
        one = judgement("snr_to_fake_quant_db", 20.0, 17.4, interval=(19.8, 20.1))
        draw = made(one)
        redone = replace(draw, judged=(replace(draw.judged[0], drawn="calibration"),))

        held, again = (held_to(each, HEADER.policy, HEADER.policy, {ENGINE: 22.0}) for each in (draw, redone))

        assert (held.samples[0].outcome.judgements[0].bound, held.samples[0].outcome.judgements[0].status) == (21.0, Status.FAIL)
        assert held.judged[0].judgements[0] == one  # its rows are others than the approved engine's
        assert again.judged[0].judgements[0].status is Status.FAIL

    def test_what_an_approved_engine_set_moves_with_its_margin(self):
        one, line = judgement("centred_snr_db", 26.0, 25.0), 'metric = "centred_snr_db"\nabsolute = '

        held = self.held(one, line + "3.0", line + "1.5")

        assert (held.bound, held.status) == (26.5, Status.FAIL)
