"""Times every quantized engine of a run beside its FP16 twin, all in the same fresh processes, and judges them together."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.errors import EnginegateError
from harness.judge.latency.samples import ALPHA
from harness.judge.latency.stored_ratio import RatioGate, RatioSeen, asks_again, ratio_judgements, ratio_seen
from harness.pipeline.pairing import Pair, Plan, measure
from harness.pipeline.slower import with_slower_layers
from harness.records.latency import Arm, LatencySamples
from harness.records.observations import TimingSamples
from harness.records.spec import EngineSpec, Recipe
from harness.records.timing import TimingProtocol
from harness.records.verdict import Judgement, Status

if TYPE_CHECKING:
    from harness.pipeline.making import Maker
    from harness.records.gate_lines import Margin

# Engines that gain unlike from more cores would have another ratio on every machine; on one thread only the core's make counts.
TIMING_THREADS = 1
# What is approved is compared with for months, so it is measured with more processes than what is compared.
APPROVING_TIMES = 3
# Loading and first launches cost a process more than its blocks: five percent is as alike as two windows of one block get on a shared CPU.
_WARM_WINDOWS, _WARM_TOLERANCE = 6, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Paced:
    """One engine beside its FP16 twin.

    Attributes:
        judgement: of its ratio.
        timings: every launch of the FP16 engine, and of this one.
        logs: log ratios, one a process of the first stage.
        samples: of each stage, for whoever judges them again.
    """

    judgement: Judgement
    timings: tuple[TimingSamples, TimingSamples]
    logs: tuple[float, ...]
    samples: tuple[LatencySamples, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How one engine is timed and what its ratio is held to."""

    line: Margin
    gate: RatioGate


class Pacing:
    """The latency gates of one run; each backend's are measured at once, when the first of them is asked for.

    Args:
        maker: makes the engines.
        planned: every quantized engine whose latency this run gates.
        pace: what one of them is held to.
        alpha: chance of any FAIL among the planned where nothing changed.
        is_approving: whether figures are measured to be stored.
    """

    def __init__(
        self,
        maker: Maker,
        planned: Sequence[EngineSpec],
        pace: Callable[[EngineSpec], Pace],
        *,
        alpha: float = ALPHA,
        is_approving: bool,
    ) -> None:
        self._maker = maker
        self._planned = tuple(dict.fromkeys(planned))
        self._pace = pace
        self._alpha = alpha
        self._is_approving = is_approving
        self._paced: dict[EngineSpec, Paced | EnginegateError] = {}

    def of(self, engine: EngineSpec) -> Paced:
        """The engine's place in the run.

        Raises:
            EnginegateError: an engine was not built or loaded, or a worker died, hung or babbled.
        """
        if engine not in self._paced:
            self._planned = tuple(dict.fromkeys(map(self._stand_in, self._planned)))
            planned = self._planned if engine in self._planned else (*self._planned, engine)
            together = [one for one in planned if one.backend == engine.backend and one.batch == engine.batch]
            self._measure(together, alpha=self._alpha * len(together) / len(planned))
        found = self._paced[engine]
        if isinstance(found, EnginegateError):
            raise found
        return found

    def _stand_in(self, engine: EngineSpec) -> EngineSpec:
        """What is built in its place; itself where that cannot be told, and why is told when it is measured."""
        try:
            return self._maker.stand_in(engine).engine
        except EnginegateError:
            return engine

    def _measure(self, engines: Sequence[EngineSpec], *, alpha: float) -> None:
        """Time what can be built. What breaks the processes of all is looked for by timing each alone."""
        pairs: dict[EngineSpec, Pair] = {}
        for engine in engines:
            try:
                pairs[engine] = (self._maker.engine(replace(engine, recipe=Recipe.FP16)), self._maker.engine(engine))
            except EnginegateError as error:
                self._paced[engine] = error
        try:
            self._paced |= self._judged(pairs, alpha=alpha) if pairs else {}
        except EnginegateError as error:
            if len(engines) == 1:
                self._paced[engines[0]] = error
                return
            for engine in pairs:
                self._measure([engine], alpha=alpha / len(engines))

    def _judged(self, pairs: Mapping[EngineSpec, Pair], *, alpha: float) -> dict[EngineSpec, Paced]:
        paces = {engine: self._pace(engine) for engine in pairs}
        gates = {engine.id: paces[engine].gate for engine in pairs}
        by_id = {engine.id: engine for engine in pairs}
        plan = self._plan(pairs, [pace.line for pace in paces.values()])
        words = f"timing {len(pairs)} engines beside FP16, {plan.processes} fresh processes each"
        with self._maker.working(words):
            first = measure(plan).samples
        seen = {name: ratio_seen(samples) for name, samples in first.items()}
        second: dict[str, LatencySamples] = {}
        if again := asks_again(gates, seen, alpha=alpha):
            narrowed = replace(plan, arms={name: plan.arms[name] for name in again}, first_process=plan.processes)
            with self._maker.working(f"timing {', '.join(again)} again, in new processes"):
                second = measure(narrowed).samples
        judged = ratio_judgements(gates, seen, {name: ratio_seen(samples) for name, samples in second.items()}, alpha=alpha)
        judged = {name: self._explained(judged[name], pairs[by_id[name]], plan) for name in gates}
        return {
            by_id[name]: _paced(
                by_id[name], _with_command(judged[name], by_id[name], gates[name], plan), seen[name], first[name], second.get(name)
            )
            for name in gates
        }

    def _explained(self, judgement: Judgement, pair: Pair, plan: Plan) -> Judgement:
        if judgement.status is not Status.FAIL or self._is_approving:
            return judgement
        with self._maker.working(f"looking for what got slower in {pair[1].spec.id}"):
            return with_slower_layers(judgement, pair, rows=plan.rows, threads=plan.threads)

    def _plan(self, pairs: Mapping[EngineSpec, Pair], lines: Sequence[Margin]) -> Plan:
        processes = max(line.processes for line in lines) * (APPROVING_TIMES if self._is_approving else 1)
        quartets = max(line.quartets for line in lines)
        return Plan(
            arms={engine.id: pair for engine, pair in pairs.items()},
            protocol=TimingProtocol(quartets=quartets, warm_windows=_WARM_WINDOWS, warm_tolerance=_WARM_TOLERANCE),
            processes=processes,
            rows=next(iter(pairs)).batch.minimum,
            threads=TIMING_THREADS,
        )


def _paced(engine: EngineSpec, judgement: Judgement, seen: RatioSeen, first: LatencySamples, second: LatencySamples | None) -> Paced:
    stages = (first,) if second is None else (first, second)
    twin = replace(engine, recipe=Recipe.FP16)
    timings = tuple(_timings(one, arm, stages) for one, arm in ((twin, Arm.BASELINE), (engine, Arm.CANDIDATE)))
    logs = tuple(float(log) for log in seen.logs)
    return Paced(judgement=judgement, timings=(timings[0], timings[1]), logs=logs, samples=stages)


def _timings(engine: EngineSpec, arm: Arm, stages: Sequence[LatencySamples]) -> TimingSamples:
    blocks = [block for samples in stages for process in samples.processes for block in process.blocks if block.arm is arm]
    ms = tuple(one for block in blocks for one in block.ms)
    return TimingSamples(engine=engine.id, batch=engine.batch.minimum, clock=stages[0].about["clock"], ms=ms)


def _with_command(judgement: Judgement, engine: EngineSpec, gate: RatioGate, plan: Plan) -> Judgement:
    if judgement.status is Status.PASS:
        return judgement
    return replace(judgement, reason=f"{judgement.reason}; repeat: {_repeat_command(engine, gate, plan)}")


def _repeat_command(engine: EngineSpec, gate: RatioGate, plan: Plan) -> str:
    """What to type to time the two engines once more, alone: two builds, which the cache remembers, and a bench."""
    spec = engine.encoder
    target = ["--target", engine.target] if engine.target else []
    words: list[str] = []
    files: list[str] = []
    for recipe, artifact in zip((Recipe.FP16, engine.recipe), plan.arms[engine.id], strict=True):
        one = replace(engine, recipe=recipe)
        assert artifact.path is not None  # for the type checker: what has run has a file
        files.append(f"engines/{one.stem}{artifact.path.suffix}")
        build = ["enginegate", "build", spec.name, "--weights", spec.weights, "--recipe", str(recipe), "--backend", engine.backend]
        words.append(shlex.join([*build, *target, "--batch", str(engine.batch), *engine.options.arguments, "--out", "engines"]))
    bench = ["enginegate", "bench", *files, "--processes", str(plan.processes), "--quartets", str(plan.protocol.quartets)]
    against = [] if gate.approved is None else ["--against", f"{gate.approved:g}", "--delta", f"{gate.delta:g}"]
    words.append(shlex.join([*bench, *against, "--batch", str(plan.rows), "--threads", str(plan.threads)]))
    return " && ".join(words)
