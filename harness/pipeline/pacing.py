"""Times all latency gates of a run in the same fresh processes, and judges them together.

An engine is timed beside its FP16 twin, or beside the engine that was approved before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from harness.errors import EnginegateError
from harness.judge.latency.samples import ALPHA
from harness.judge.latency.stored_ratio import RatioGate, asks_again, in_ms, ratio_judgements, ratio_seen
from harness.pipeline.commands import AS_USUAL, Places, bench_command, build_command, built_file
from harness.pipeline.pairing import Pair, Plan, measure
from harness.pipeline.slower import with_slower_layers
from harness.records.gate_lines import LATENCY_MS, LATENCY_RATIO
from harness.records.latency import Arm, LatencySamples
from harness.records.observations import TimingSamples
from harness.records.spec import EngineSpec
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
class Timed:
    """One latency gate: an engine, and by which metric it is judged."""

    metric: str
    engine: EngineSpec

    @property
    def id(self) -> str:
        """Unique within a run."""
        return self.engine.id if self.metric == LATENCY_RATIO else f"{self.engine.id}-{self.metric}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How one gate is timed, and what its ratio is held to.

    Attributes:
        pair: the engine that it is timed beside, and the engine itself.
        with_itself: whether the engine is also timed beside itself, since a record of it is wanted.
    """

    line: Margin
    gate: RatioGate
    pair: Pair
    with_itself: bool = False

    @property
    def is_beside_itself(self) -> bool:
        """Whether there is nothing else to time it beside."""
        return self.pair[0] is self.pair[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paced:
    """One gate, timed and judged.

    Attributes:
        judgement: of its ratio.
        timings: every launch of the engine that it was timed beside, and of its own.
        logs: log ratios, one a process of every stage.
        samples: of each stage, for whoever judges them again.
        itself: the engine beside itself, where that was asked for.
    """

    judgement: Judgement
    timings: tuple[TimingSamples, TimingSamples]
    logs: tuple[float, ...]
    samples: tuple[LatencySamples, ...]
    itself: LatencySamples | None = None


class Pacing:
    """The latency gates of one run; each backend's are measured at once, when the first of them is asked for.

    Args:
        maker: says what is being done.
        planned: every latency gate of this run.
        pace: how one of them is timed. What it raises is that gate's.
        alpha: chance of any FAIL among the planned where nothing changed.
        is_approving: whether figures are measured to be stored.
        places: of engines, for the commands that are shown.
    """

    def __init__(
        self,
        maker: Maker,
        planned: Sequence[Timed],
        pace: Callable[[Timed], Pace],
        *,
        alpha: float = ALPHA,
        is_approving: bool,
        places: Places = AS_USUAL,
    ) -> None:
        self._maker = maker
        self._planned = tuple(dict.fromkeys(planned))
        self._pace = pace
        self._alpha = alpha
        self._is_approving = is_approving
        self._places = places
        self._paced: dict[Timed, Paced | EnginegateError] = {}

    def of(self, gate: Timed) -> Paced:
        """The gate's place in the run.

        Raises:
            EnginegateError: an engine was not built, found or loaded, or a worker died, hung or babbled.
        """
        if gate not in self._paced:
            self._planned = tuple(dict.fromkeys(map(self._stand_in, self._planned)))
            planned = self._planned if gate in self._planned else (*self._planned, gate)
            together = [one for one in planned if one.engine.backend == gate.engine.backend and one.engine.batch == gate.engine.batch]
            self._measure(together, alpha=self._alpha * len(together) / len(planned))
        found = self._paced[gate]
        if isinstance(found, EnginegateError):
            raise found
        return found

    def _stand_in(self, gate: Timed) -> Timed:
        """What is built in its engine's place; itself where that cannot be told, and why is told when it is measured."""
        try:
            return replace(gate, engine=self._maker.stand_in(gate.engine).engine)
        except EnginegateError:
            return gate

    def _measure(self, gates: Sequence[Timed], *, alpha: float) -> None:
        """Time what can be built. What breaks the processes of all is looked for by timing each alone."""
        paces: dict[Timed, Pace] = {}
        for gate in gates:
            try:
                paces[gate] = self._pace(gate)
            except EnginegateError as error:
                self._paced[gate] = error
        try:
            self._paced |= self._judged(paces, alpha=alpha) if paces else {}
        except EnginegateError as error:
            if len(gates) == 1:
                self._paced[gates[0]] = error
                return
            for gate in paces:
                self._measure([gate], alpha=alpha / len(gates))

    def _judged(self, paces: Mapping[Timed, Pace], *, alpha: float) -> dict[Timed, Paced]:
        held = {gate.id: pace.gate for gate, pace in paces.items()}
        plan = self._plan(paces)
        words = f"timing {len(plan.arms)} pairs of engines, {plan.processes} fresh processes each"
        with self._maker.working(words):
            first = measure(plan).samples
        seen = {name: ratio_seen(first[name]) for name in held}
        second: dict[str, LatencySamples] = {}
        if again := asks_again(held, seen, alpha=alpha):
            narrowed = replace(plan, arms={name: plan.arms[name] for name in again}, first_process=plan.processes)
            with self._maker.working(f"timing {', '.join(again)} again, in new processes"):
                second = measure(narrowed).samples
        seen_again = {name: ratio_seen(samples) for name, samples in second.items()}
        judged = ratio_judgements(held, seen, seen_again, alpha=alpha)
        paced: dict[Timed, Paced] = {}
        for gate, pace in paces.items():
            stages = (first[gate.id], *([second[gate.id]] if gate.id in second else []))
            paced[gate] = Paced(
                judgement=self._in_words(self._explained(judged[gate.id], pace.pair, plan), gate, pace, stages, plan),
                timings=_timings(pace.pair, stages, plan),
                logs=tuple(float(log) for stage in (seen, seen_again) if gate.id in stage for log in stage[gate.id].logs),
                samples=stages,
                itself=first[gate.id] if pace.is_beside_itself else first.get(_itself(gate)),
            )
        return paced

    def _explained(self, judgement: Judgement, pair: Pair, plan: Plan) -> Judgement:
        if judgement.status is not Status.FAIL or self._is_approving:
            return judgement
        with self._maker.working(f"looking for what got slower in {pair[1].spec.id}"):
            return with_slower_layers(judgement, pair, rows=plan.rows, threads=plan.threads)

    def _in_words(self, judgement: Judgement, gate: Timed, pace: Pace, stages: Sequence[LatencySamples], plan: Plan) -> Judgement:
        """The judgement in the metric's unit; where it is not PASS, with the clocks and with the command that times the same again."""
        if gate.metric == LATENCY_MS and judgement.status is not Status.INVALID:
            judgement = in_ms(judgement, median(_launches(Arm.BASELINE, stages)))
        if judgement.status is Status.PASS or pace.is_beside_itself:
            return judgement
        seen = [stages[-1].about[name] for name in ("guard", "clocks") if name in stages[-1].about]
        repeat = f"repeat: {_repeat_command(gate, pace, plan, self._places)}"
        return replace(judgement, reason="; ".join((judgement.reason, *seen, repeat)))

    def _plan(self, paces: Mapping[Timed, Pace]) -> Plan:
        lines = [pace.line for pace in paces.values()]
        is_storing = self._is_approving and any(gate.metric == LATENCY_RATIO for gate in paces)  # which stores a number
        arms = {gate.id: pace.pair for gate, pace in paces.items()}
        arms |= {_itself(gate): (pace.pair[1], pace.pair[1]) for gate, pace in paces.items() if pace.with_itself}
        return Plan(
            arms=arms,
            protocol=gate_protocol(max(line.quartets for line in lines)),
            processes=max(line.processes for line in lines) * (APPROVING_TIMES if is_storing else 1),
            rows=next(iter(paces)).engine.batch.minimum,
            threads=TIMING_THREADS,
        )


def gate_protocol(quartets: int) -> TimingProtocol:
    """How a gate times; `quartets` are groups of four blocks in each process."""
    return TimingProtocol(quartets=quartets, warm_windows=_WARM_WINDOWS, warm_tolerance=_WARM_TOLERANCE)


def _itself(gate: Timed) -> str:
    return f"{gate.id}-beside-itself"


def _timings(pair: Pair, stages: Sequence[LatencySamples], plan: Plan) -> tuple[TimingSamples, TimingSamples]:
    names = [engine.spec.id for engine in pair]
    if names[0] == names[1]:
        names[0] += "-again" if pair[0] is pair[1] else "-approved"

    def of(name: str, arm: Arm) -> TimingSamples:
        return TimingSamples(engine=name, batch=plan.rows, clock=stages[0].about["clock"], ms=_launches(arm, stages))

    return of(names[0], Arm.BASELINE), of(names[1], Arm.CANDIDATE)


def _launches(arm: Arm, stages: Sequence[LatencySamples]) -> tuple[float, ...]:
    blocks = [block for samples in stages for process in samples.processes for block in process.blocks if block.arm is arm]
    return tuple(one for block in blocks for one in block.ms)


def _repeat_command(gate: Timed, pace: Pace, plan: Plan, places: Places) -> str:
    """What to type to time the two engines once more, alone: builds, which the cache remembers, and a bench."""
    other, engine = pace.pair
    is_stored = gate.metric == LATENCY_MS
    builds = [build_command(one.spec) for one in ([engine] if is_stored else [other, engine])]
    approved = [] if pace.gate.approved is None else ["--against", f"{pace.gate.approved:g}", "--delta", f"{pace.gate.delta:g}"]
    bench = ["--processes", str(plan.processes), "--quartets", str(plan.protocol.quartets), *approved]
    bench += ["--batch", str(plan.rows), "--threads", str(plan.threads), *(places.arguments_of_engines if is_stored else ())]
    return " && ".join([*builds, bench_command(f"sha256:{other.sha256}" if is_stored else built_file(other), engine, bench)])
