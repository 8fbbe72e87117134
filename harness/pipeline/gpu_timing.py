"""Times the engines of a wave in the same fresh processes, each beside its FP16 twin, and holds their ratios to stored ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.errors import EnginegateError
from harness.judge.latency.samples import ALPHA, DELTA, judge_samples
from harness.judge.latency.stored_ratio import RatioGate, RatioSeen, asks_again, ratio_judgements, ratio_seen
from harness.pipeline.gpu_waves import line_name
from harness.pipeline.pacing import TIMING_THREADS
from harness.pipeline.pairing import Pair, Plan, measure
from harness.pipeline.stored_engines import machine_and_driver
from harness.records.gpu_report import Stage, Timed
from harness.records.latency import Arm, LatencySamples
from harness.records.spec import EngineSpec, Recipe
from harness.records.timing import Cache, RatioTiming, TimingProtocol, TimingSetting
from harness.records.verdict import Judgement

if TYPE_CHECKING:
    from harness.pipeline.gpu_approving import ReportApprovals
    from harness.pipeline.making import Maker
    from harness.records.gate_lines import Margin
    from harness.records.policy import GatePolicy
    from harness.store.gpu_report import ReportFolder

CACHES = {Stage.HOT: Cache.HOT, Stage.COLD: Cache.COLD}
# What is cold is told for the reader and judged by nobody, and an emptied cache costs a launch more than the launch itself.
_COLD_QUARTETS, _COLD_BLOCK_MS = 2, 2.0

Wanted = tuple[EngineSpec, Stage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of timing one engine at one stage: `timed` with `ratio` where that is gated, or what broke."""

    timed: Timed | None = None
    ratio: Judgement | None = None
    error: EnginegateError | None = None


class WaveTimer:
    """Times wanted stages of engines.

    Args:
        gates: how many ratios this report gates in all: they share one chance of a false alarm.
        step: a context manager called with what is being done, which may refuse to begin it.
    """

    def __init__(
        self,
        maker: Maker,
        policy: GatePolicy,
        approvals: ReportApprovals,
        folder: ReportFolder,
        *,
        processes: int,
        quartets: int,
        gates: int,
        step: Callable[[str, int], AbstractContextManager[None]],
    ) -> None:
        self._maker = maker
        self._policy = policy
        self._approvals = approvals
        self._folder = folder
        self._processes = processes
        self._hot = TimingProtocol(quartets=quartets)
        self._cold = replace(self._hot, cache=Cache.COLD, quartets=min(_COLD_QUARTETS, quartets), block_ms=_COLD_BLOCK_MS)
        self._gates = max(1, gates)
        self._step = step

    def timed(self, wanted: Sequence[Wanted]) -> dict[Wanted, Outcome]:
        """Every engine at its stages, all of one batch. What breaks the processes of all is looked for by halves."""
        engines = list(dict.fromkeys(engine for engine, _ in wanted))
        try:
            return self._measured(wanted)
        except EnginegateError as error:
            if len(engines) == 1:
                return {one: Outcome(error=error) for one in wanted}
        half = set(engines[: len(engines) // 2])
        parts = [one for one in wanted if one[0] in half], [one for one in wanted if one[0] not in half]
        return {**self.timed(parts[0]), **self.timed(parts[1])}

    def _measured(self, wanted: Sequence[Wanted]) -> dict[Wanted, Outcome]:
        named = {f"{line_name(engine)}-{stage}": (engine, stage) for engine, stage in wanted}
        names = ", ".join(dict.fromkeys(line_name(engine) for engine, _ in wanted))
        plan = self._plan(named)
        samples = self._process_by_process(plan, f"timing {names}")
        ratios = self._ratios(plan, named, samples)
        return {
            one: Outcome(timed=self._timed(name, samples[name]), ratio=self._settled(one, ratios.get(name))) for name, one in named.items()
        }

    def _process_by_process(self, plan: Plan, words: str) -> dict[str, LatencySamples]:
        """What a plan gives. Each process is kept as soon as it is over, so that a report that is killed goes on with the next."""
        kept = {name: self._of_the_same_engines(plan, name) for name in plan.arms}
        for number in range(min(len(samples.processes) for samples in kept.values()), plan.processes):
            with self._step(f"{words}, process {number + 1} of {plan.processes}", len(plan.arms)):
                found = measure(replace(plan, processes=1, first_process=number)).samples
            kept = {name: kept[name].followed_by(samples, at=number) for name, samples in found.items()}
            for name, samples in kept.items():
                self._folder.keep_unfinished(name, samples)
        return kept

    def _of_the_same_engines(self, plan: Plan, name: str) -> LatencySamples:
        """Processes that an earlier call left; none where an engine was built anew since."""
        found = self._folder.unfinished(name)
        said = [found.about.get(str(arm), "") for arm in Arm]
        digests = [(engine.sha256 or "unknown")[:16] for engine in plan.arms[name]]
        is_same = all(digest in words for digest, words in zip(digests, said, strict=True))
        return found if is_same and found.about.get("protocol") == plan.protocol_of(name).id else LatencySamples(processes=())

    def _plan(self, named: Mapping[str, Wanted]) -> Plan:
        return Plan(
            arms={name: self._pair(engine) for name, (engine, _) in named.items()},
            protocol=self._hot,
            protocols={name: self._cold for name, (_, stage) in named.items() if stage is Stage.COLD},
            processes=self._processes,
            rows=next(iter(named.values()))[0].batch.optimum,
            same_process=True,  # half the starts: a process that loads TensorRT and its engines takes longer than their blocks
            threads=TIMING_THREADS,
        )

    def _pair(self, engine: EngineSpec) -> Pair:
        """The engine behind its FP16 twin; an FP16 engine is its own."""
        return self._maker.engine(replace(engine, recipe=Recipe.FP16)), self._maker.engine(engine)

    def _timed(self, name: str, samples: LatencySamples) -> Timed:
        return Timed(
            judgement=judge_samples(samples, alpha=ALPHA, delta=DELTA),
            samples=self._folder.keep_samples(name, samples),
            guard=samples.about.get("guard", ""),
            launches=_launches(samples),
        )

    # -- against stored ratios ---------------------------------------------------------------------------------------------

    def _ratios(self, plan: Plan, named: Mapping[str, Wanted], samples: Mapping[str, LatencySamples]) -> dict[str, Judgement]:
        """A judgement of each ratio that gate.toml gates here; those that need it are seen again, in new processes."""
        gates: dict[str, RatioGate] = {}
        for name, (engine, stage) in named.items():
            if stage is Stage.HOT and engine.recipe.is_quantized and (line := self._line(engine)).gated:
                gates[name] = self._approvals.ratio_gate(engine, line, self._setting(plan, engine))
        seen = {name: ratio_seen(samples[name]) for name in gates}
        second: dict[str, RatioSeen] = {}
        alpha = ALPHA * len(gates) / self._gates
        if again := asks_again(gates, seen, alpha=alpha):
            narrowed = replace(plan, arms={name: plan.arms[name] for name in again}, first_process=plan.processes)
            with self._step(f"timing {', '.join(again)} again, in new processes", len(again)):
                found = measure(narrowed).samples
            for name, more in found.items():
                self._folder.keep_samples(f"{name}-again", more)
                second[name] = ratio_seen(more)
        for name in gates:
            logs = [float(log) for stage in (seen, second) if name in stage for log in stage[name].logs]
            timing = RatioTiming(logs=logs, setting=self._setting(plan, named[name][0]))
            self._approvals.note_timing(named[name][0], timing, f"{samples[name].about['protocol']}, {_launches(samples[name])}")
        return ratio_judgements(gates, seen, second, alpha=alpha) if gates else {}

    def _setting(self, plan: Plan, engine: EngineSpec) -> TimingSetting:
        _, driver = machine_and_driver(engine.backend)
        return TimingSetting(driver=driver, protocol=self._hot.id, rows=plan.rows, threads=TIMING_THREADS, shares_process=plan.same_process)

    def _line(self, engine: EngineSpec) -> Margin:
        return self._policy.margin_line("latency_ratio", engine, self._approvals.machine_class(engine))

    def _settled(self, one: Wanted, ratio: Judgement | None) -> Judgement | None:
        return None if ratio is None else self._approvals.counted(ratio, one[0])


def _launches(samples: LatencySamples) -> str:
    return "; ".join(samples.about[name] for name in ("launches", "clock", "cold cache", "clocks") if name in samples.about)
