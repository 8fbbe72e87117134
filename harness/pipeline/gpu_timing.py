"""Times the engines of a wave in the same fresh processes, each beside its FP16 twin, and holds their ratios to stored ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import EnginegateError
from harness.judge.latency.samples import ALPHA, DELTA, judge_samples
from harness.judge.latency.stored_ratio import RatioGate, RatioSeen, asks_again, ratio_judgements, ratio_seen
from harness.pipeline.gpu_approving import timing_facts
from harness.pipeline.gpu_waves import line_name
from harness.pipeline.pacing import TIMING_THREADS
from harness.pipeline.pairing import Pair, Plan, measure
from harness.records.gpu_report import Stage, Timed
from harness.records.latency import LatencySamples
from harness.records.spec import EngineSpec, Recipe
from harness.records.timing import Cache, TimingProtocol
from harness.records.verdict import Judgement

if TYPE_CHECKING:
    from harness.pipeline.gpu_approving import Approvals
    from harness.pipeline.making import Maker
    from harness.records.gate_lines import Margin
    from harness.records.policy import GatePolicy
    from harness.store.gpu_report import ReportFolder
    from harness.store.prepared import PreparedFolder

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
        approvals: Approvals,
        prepared: PreparedFolder,
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
        self._prepared = prepared
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
        with self._step(f"timing {names}", len(named)):
            samples = measure(plan).samples
        ratios = self._ratios(plan, named, samples)
        return {
            one: Outcome(timed=self._timed(name, samples[name]), ratio=self._settled(one, ratios.get(name), samples[name]))
            for name, one in named.items()
        }

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
                gates[name] = RatioGate(
                    approved=self._approvals.approved("latency_ratio", engine),
                    delta=line.size,
                    session_spread=line.session_spread,
                    is_same_processor=self._approvals.is_same_processor(engine),
                )
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
        return ratio_judgements(gates, seen, second, alpha=alpha) if gates else {}

    def _line(self, engine: EngineSpec) -> Margin:
        return self._policy.margin_line("latency_ratio", engine, self._approvals.machine_class(engine))

    def _settled(self, one: Wanted, ratio: Judgement | None, samples: LatencySamples) -> Judgement | None:
        if ratio is None:
            return None
        graph = self._prepared.graph_of(one[0].encoder, one[0].recipe)
        ratios = tuple(round(float(each), 4) for each in np.exp(ratio_seen(samples).logs))
        facts = timing_facts(f"{samples.about['protocol']}, {_launches(samples)}")
        return self._approvals.settled(ratio, one[0], graph, samples={"process_ratios": ratios}, facts=facts)


def _launches(samples: LatencySamples) -> str:
    return "; ".join(samples.about[name] for name in ("launches", "clock", "cold cache") if name in samples.about)
