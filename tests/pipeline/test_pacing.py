"""The latency gates of a run: timed together, judged together, and one that breaks leaves the others theirs."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace

import pytest

from harness.errors import BuildFailed, WorkerFailed
from harness.judge.latency.stored_ratio import RatioGate
from harness.pipeline import pacing
from harness.pipeline.commands import Places
from harness.pipeline.making import StandIn
from harness.pipeline.pacing import Pace, Pacing, Timed
from harness.pipeline.pairing import Measured, Plan
from harness.records.gate_lines import LATENCY_MS, LATENCY_RATIO, Margin
from harness.records.latency import Arm, Block, LatencySamples, ProcessBlocks
from harness.records.spec import BuildOptions, Recipe
from harness.records.verdict import Status
from tests.helpers.left_engines import fake_engine

IMAGE, TEXT = (Timed(metric=LATENCY_RATIO, engine=fake_engine(tower=tower, recipe=Recipe.LINEAR).spec) for tower in ("image", "text"))
LINE = Margin(metric="latency_ratio", relative=0.25, reason="for tests", processes=4, quartets=2)
TURNS = (Arm.BASELINE, Arm.CANDIDATE, Arm.CANDIDATE, Arm.BASELINE)


class Maker:
    """Says what is being done."""

    def stand_in(self, spec):
        return StandIn(engine=spec)

    def working(self, words):
        return contextlib.nullcontext()


def artifact(spec):
    return replace(fake_engine(), spec=spec)


def timed(plan: Plan, ratios, spread=0.001) -> Measured:
    """What a machine without noise to speak of would give."""

    def process(ratio, number):
        ms = {Arm.BASELINE: 1.0, Arm.CANDIDATE: ratio * (1 + spread * ((number * 7) % 5 - 2))}
        return ProcessBlocks(blocks=tuple(Block(arm=arm, ms=(ms[arm],)) for arm in TURNS * plan.protocol.quartets))

    numbers = range(plan.first_process, plan.first_process + plan.processes)
    processes = {gate: tuple(process(ratios[gate], number) for number in numbers) for gate in plan.arms}
    return Measured(
        samples={
            gate: LatencySamples(processes=processes[gate], about={"clock": "host", "guard": "processor: load 1"}) for gate in plan.arms
        }
    )


@pytest.fixture
def plans(monkeypatch):
    """Every plan that was measured; `ratios` says what came of each gate."""
    seen = []

    def measure(plan):
        seen.append(plan)
        return timed(plan, measure.ratios)

    measure.ratios = {IMAGE.id: 2.0, TEXT.id: 2.0}
    monkeypatch.setattr(pacing, "measure", measure)
    seen.append(measure)
    return seen


def run(planned=(IMAGE, TEXT), *, broken=(), maker=None, approved=2.0, **changes):
    """The gates of a run, of which those in `broken` do not build."""

    def pace(gate):
        if gate in broken:
            raise BuildFailed(f"{gate.id} does not build")
        held = RatioGate(approved=approved, delta=LINE.size, session_spread=0.0)
        twin, engine = (artifact(replace(gate.engine, recipe=recipe)) for recipe in (Recipe.FP16, gate.engine.recipe))
        return Pace(line=LINE, gate=held, pair=(twin, engine))

    return Pacing(maker or Maker(), planned, pace, **{"is_approving": False, **changes})


def test_all_gates_of_a_run_are_timed_in_the_same_processes(plans):
    gates = run()
    assert [gates.of(engine).judgement.status for engine in (IMAGE, TEXT)] == [Status.PASS, Status.PASS]
    (plan,) = plans[1:]
    assert (set(plan.arms), plan.processes, plan.protocol.quartets, plan.rows) == ({IMAGE.id, TEXT.id}, 4, 2, 1)
    assert [engine.spec.recipe for engine in plan.arms[TEXT.id]] == [Recipe.FP16, Recipe.LINEAR]


def test_what_looks_slow_is_timed_again_alone_in_new_processes(plans):
    plans[0].ratios = {IMAGE.id: 3.0, TEXT.id: 2.0}
    gates = run()
    judged = gates.of(IMAGE).judgement
    assert (judged.status, judged.n, gates.of(TEXT).judgement.n) == (Status.FAIL, 8, 4)
    assert "repeat: enginegate build tiny/image" in judged.reason
    assert "--against 2 --delta 0.25" in judged.reason
    first, second = plans[1:]
    assert (tuple(second.arms), second.first_process, second.processes) == ((IMAGE.id,), first.processes, first.processes)


def test_the_ratios_of_both_stages_are_kept_since_both_made_the_figure(plans):
    plans[0].ratios = {IMAGE.id: 3.0, TEXT.id: 2.0}
    gates = run()
    assert [len(gates.of(gate).logs) for gate in (IMAGE, TEXT)] == [8, 4]
    assert math.exp(sum(gates.of(IMAGE).logs) / 8) == pytest.approx(gates.of(IMAGE).judgement.observed)


def test_timings_are_those_of_every_launch_of_both_engines(plans):
    fp16, linear = run().of(IMAGE).timings
    assert (fp16.engine, linear.engine) == ("tiny/image-fp16-fake", IMAGE.engine.id)
    assert len(fp16.ms) == len(linear.ms) == 4 * 2 * 2


def test_approving_takes_more_processes(plans):
    found = run(approved=None, is_approving=True).of(IMAGE)
    assert (found.judgement.status, len(found.logs)) == (Status.NO_BASELINE, 12)


def test_an_engine_that_does_not_build_leaves_the_others_their_verdicts(plans):
    gates = run(broken=[IMAGE])
    with pytest.raises(BuildFailed, match="does not build"):
        gates.of(IMAGE)
    assert gates.of(TEXT).judgement.status is Status.PASS


def test_an_engine_that_breaks_its_processes_is_found_by_timing_each_alone(plans, monkeypatch):
    def measure(plan):
        if IMAGE.id in plan.arms:
            raise WorkerFailed("the candidate worker was ended by SIGSEGV")
        return timed(plan, {TEXT.id: 2.0})

    monkeypatch.setattr(pacing, "measure", measure)
    gates = run()
    with pytest.raises(WorkerFailed, match="SIGSEGV"):
        gates.of(IMAGE)
    assert gates.of(TEXT).judgement.status is Status.PASS


def test_engines_that_stand_in_are_timed_together_beside_fp16_of_their_batch(plans):
    class Picky(Maker):
        def stand_in(self, spec):
            return StandIn(engine=replace(spec, batch=spec.batch.fixed), note="for tests")

    wanted = [replace(gate, engine=replace(gate.engine, batch=gate.engine.batch.fixed)) for gate in (IMAGE, TEXT)]
    gates = run(maker=Picky())
    assert [gates.of(gate).judgement.n for gate in wanted] == [4, 4]
    (plan,) = plans[1:]
    assert plan.rows == 2
    assert {arm.spec.batch.is_fixed for pair in plan.arms.values() for arm in pair} == {True}


def test_the_command_that_repeats_a_failure_asks_the_builder_the_same(plans):
    gate = replace(IMAGE, engine=replace(IMAGE.engine, options=BuildOptions(optimization_level=5)))
    plans[0].ratios = {gate.id: 4.0}
    assert "--batch 1/2/4 --optimization-level 5 --out engines" in run(planned=(gate,)).of(gate).judgement.reason


def test_an_engine_that_nobody_planned_is_timed_alone(plans):
    assert run(planned=(TEXT,)).of(IMAGE).judgement.status is Status.PASS


def test_only_a_gate_that_fails_is_looked_into_for_slower_layers(plans, monkeypatch):
    looked = []

    def told(judgement, pair, *, rows, threads):
        looked.append((pair[1].spec, rows, threads))
        return replace(judgement, reason=f"{judgement.reason}; these layers")

    monkeypatch.setattr(pacing, "with_slower_layers", told)
    plans[0].ratios = {IMAGE.id: 4.0, TEXT.id: 2.0}
    gates = run()
    failed = gates.of(IMAGE).judgement
    assert failed.status is Status.FAIL
    assert "; these layers; processor: load 1; repeat: " in failed.reason
    assert gates.of(TEXT).judgement.status is Status.PASS
    assert looked == [(IMAGE.engine, 1, pacing.TIMING_THREADS)]


def test_a_run_that_approves_looks_into_nothing(plans, monkeypatch):
    monkeypatch.setattr(pacing, "with_slower_layers", lambda *_, **__: pytest.fail("looked"))
    plans[0].ratios = {IMAGE.id: 4.0, TEXT.id: 4.0}
    assert run(is_approving=True).of(IMAGE).judgement.status is Status.FAIL


def beside_approved(*, approved=1.0, with_itself=False, **changes):
    """One engine beside another of its kind, or beside itself where none is approved."""
    gate = Timed(metric=LATENCY_MS, engine=TEXT.engine)
    engine = artifact(TEXT.engine)
    stored = engine if approved is None else replace(engine, sha256="5" * 64)
    held = RatioGate(metric=LATENCY_MS, approved=approved, delta=0.25, session_spread=0.0, why_none="no engine is approved")
    pace = Pace(line=LINE, gate=held, pair=(stored, engine), with_itself=with_itself)
    return Pacing(Maker(), [gate], lambda _: pace, **{"is_approving": False, **changes}).of(gate)


def test_an_engine_beside_the_approved_one_is_told_in_ms(plans):
    plans[0].ratios = {"tiny/text-linear-fake-latency_ms": 1.1}
    paced = beside_approved()
    judged = paced.judgement
    assert (judged.metric, judged.status, judged.unit) == ("latency_ms", Status.PASS, "ms")
    assert (judged.observed, judged.bound) == (pytest.approx(1.1, rel=1e-3), pytest.approx(1.25))
    assert judged.interval[0] < 1.1 < judged.interval[1]
    assert judged.reason.startswith("ratio 1.1000 [1.0")
    assert [timing.engine for timing in paced.timings] == ["tiny/text-linear-fake-approved", "tiny/text-linear-fake"]
    assert paced.itself is None


def test_a_slower_engine_fails_with_its_ratio_the_clocks_and_the_command(plans):
    plans[0].ratios = {"tiny/text-linear-fake-latency_ms": 1.6}
    judged = beside_approved().judgement
    assert judged.status is Status.FAIL
    assert "ratio 1.6000 [1.59" in judged.reason
    assert "+60.0% beside the approved engine, in the same session, and seen again in new processes" in judged.reason
    assert "processor: load 1" in judged.reason
    assert f"enginegate bench sha256:{'5' * 64} engines/tiny-text-linear.onnx" in judged.reason


def test_the_command_that_repeats_a_failure_finds_the_stored_engine_where_the_run_did(plans):
    plans[0].ratios = {"tiny/text-linear-fake-latency_ms": 1.6}
    places = Places(baselines_dir="elsewhere", blobs="my blobs", gate_file="strict.toml")
    assert beside_approved(places=places).judgement.reason.endswith("--threads 1 --blobs 'my blobs' --gate-file strict.toml")


def test_without_an_approved_engine_one_is_timed_beside_itself_for_a_record(plans):
    plans[0].ratios = {"tiny/text-linear-fake-latency_ms": 1.0}
    paced = beside_approved(approved=None)
    assert (paced.judgement.status, paced.judgement.reason) == (Status.NO_BASELINE, "no engine is approved")
    assert paced.itself is paced.samples[0]
    assert [timing.engine for timing in paced.timings] == ["tiny/text-linear-fake-again", "tiny/text-linear-fake"]


def test_only_a_stored_number_is_measured_with_more_processes(plans):
    plans[0].ratios = {"tiny/text-linear-fake-latency_ms": 1.0}
    beside_approved(approved=None, is_approving=True)
    assert plans[1].processes == LINE.processes


def test_a_run_that_asks_for_a_record_times_the_engine_beside_both(plans):
    names = ("tiny/text-linear-fake-latency_ms", "tiny/text-linear-fake-latency_ms-beside-itself")
    plans[0].ratios = dict(zip(names, (1.1, 1.0), strict=True))
    paced = beside_approved(with_itself=True)
    assert tuple(plans[1].arms) == names
    assert paced.judgement.status is Status.PASS
    assert paced.itself is not None
    assert paced.itself is not paced.samples[0]
