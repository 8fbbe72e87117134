"""The latency gates of a run: timed together, judged together, and one that breaks leaves the others theirs."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from harness.errors import BuildFailed, WorkerFailed
from harness.judge.latency.stored_ratio import RatioGate
from harness.pipeline import pacing
from harness.pipeline.making import StandIn
from harness.pipeline.pacing import Pace, Pacing
from harness.pipeline.pairing import Measured, Plan
from harness.records.gate_lines import Margin
from harness.records.latency import Arm, Block, LatencySamples, ProcessBlocks
from harness.records.spec import BuildOptions, Recipe
from harness.records.verdict import Status
from tests.helpers.left_engines import fake_engine

IMAGE, TEXT = (fake_engine(tower=tower, recipe=Recipe.LINEAR).spec for tower in ("image", "text"))
LINE = Margin(metric="latency_ratio", relative=0.25, reason="for tests", processes=4, quartets=2)
TURNS = (Arm.BASELINE, Arm.CANDIDATE, Arm.CANDIDATE, Arm.BASELINE)


class Maker:
    """Finds every engine but those that it was told not to."""

    def __init__(self, broken=()):
        self._broken = broken

    def engine(self, spec):
        if spec in self._broken:
            raise BuildFailed(f"{spec.id} does not build")
        return replace(fake_engine(), spec=spec)

    def stand_in(self, spec):
        return StandIn(engine=spec)

    def working(self, words):
        return contextlib.nullcontext()


def timed(plan: Plan, ratios, spread=0.001) -> Measured:
    """What a machine without noise to speak of would give."""

    def process(ratio, number):
        ms = {Arm.BASELINE: 1.0, Arm.CANDIDATE: ratio * (1 + spread * ((number * 7) % 5 - 2))}
        return ProcessBlocks(blocks=tuple(Block(arm=arm, ms=(ms[arm],)) for arm in TURNS * plan.protocol.quartets))

    numbers = range(plan.first_process, plan.first_process + plan.processes)
    processes = {gate: tuple(process(ratios[gate], number) for number in numbers) for gate in plan.arms}
    return Measured(samples={gate: LatencySamples(processes=processes[gate], about={"clock": "host"}) for gate in plan.arms})


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


def run(planned=(IMAGE, TEXT), *, maker=None, approved=2.0, **changes):
    gate = RatioGate(approved=approved, delta=LINE.size, session_spread=0.0)
    pace = Pace(line=LINE, gate=gate)
    return Pacing(maker or Maker(), planned, lambda engine: pace, **{"is_approving": False, **changes})


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


def test_timings_are_those_of_every_launch_of_both_engines(plans):
    fp16, linear = run().of(IMAGE).timings
    assert (fp16.engine, linear.engine) == ("tiny/image-fp16-fake", IMAGE.id)
    assert len(fp16.ms) == len(linear.ms) == 4 * 2 * 2


def test_approving_takes_more_processes(plans):
    found = run(approved=None, is_approving=True).of(IMAGE)
    assert (found.judgement.status, len(found.logs)) == (Status.NO_BASELINE, 12)


def test_an_engine_that_does_not_build_leaves_the_others_their_verdicts(plans):
    gates = run(maker=Maker(broken=[IMAGE]))
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

    wanted = [replace(engine, batch=engine.batch.fixed) for engine in (IMAGE, TEXT)]
    gates = run(maker=Picky())
    assert [gates.of(engine).judgement.n for engine in wanted] == [4, 4]
    (plan,) = plans[1:]
    assert plan.rows == 2
    assert {arm.spec.batch.is_fixed for pair in plan.arms.values() for arm in pair} == {True}


def test_the_command_that_repeats_a_failure_asks_the_builder_the_same(plans):
    engine = replace(IMAGE, options=BuildOptions(optimization_level=5))
    plans[0].ratios = {engine.id: 4.0}
    assert "--batch 1/2/4 --optimization-level 5 --out engines" in run(planned=(engine,)).of(engine).judgement.reason


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
    assert "; these layers; repeat: " in failed.reason
    assert gates.of(TEXT).judgement.status is Status.PASS
    assert looked == [(IMAGE, 1, pacing.TIMING_THREADS)]


def test_a_run_that_approves_looks_into_nothing(plans, monkeypatch):
    monkeypatch.setattr(pacing, "with_slower_layers", lambda *_, **__: pytest.fail("looked"))
    plans[0].ratios = {IMAGE.id: 4.0, TEXT.id: 4.0}
    assert run(is_approving=True).of(IMAGE).judgement.status is Status.FAIL
