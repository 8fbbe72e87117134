"""The latency gates of a run: what each engine is timed beside, and what its ratio is held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import StoreFailed
from harness.judge.latency.samples import ALPHA
from harness.judge.latency.stored_ratio import RatioGate
from harness.pipeline.commands import Places, accept_command
from harness.pipeline.pacing import Pace, Paced, Pacing, Timed, gate_protocol
from harness.pipeline.stored_engines import gate_setting, why_not_proposed
from harness.records.baseline import BaselineMode
from harness.records.gate_lines import LATENCY_MS, LATENCY_RATIO
from harness.records.spec import EngineSpec, Recipe
from harness.records.timing import RatioTiming
from harness.records.verdict import Status

if TYPE_CHECKING:
    from harness.pipeline.approving import Approvals
    from harness.pipeline.seeing import Pipeline
    from harness.pipeline.stored_engines import StoredEngines
    from harness.records.gate_lines import Margin
    from harness.records.latency import LatencySamples
    from harness.records.policy import GatePolicy
    from harness.store.run_directory import RunDirectory


class Latencies:
    """Times the engines of a run and judges them together.

    Args:
        approvals: has the ratios that were approved.
        stored: has the engines that were approved.
        run: where pending records are left.
        planned: every latency gate of this run: they are timed together, and share one chance of a false alarm.
        processes: of pytest, that each see a part of the run and time for themselves; they share that chance too.
        places: as the run was told, for the commands that are shown.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        policy: GatePolicy,
        approvals: Approvals,
        stored: StoredEngines,
        run: RunDirectory,
        *,
        planned: Sequence[Timed],
        processes: int,
        places: Places,
    ) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self._approvals = approvals
        self._stored = stored
        self._run = run
        self._places = places
        self._beside: dict[EngineSpec, Paced] = {}
        self._lost: set[EngineSpec] = set()  # whose approved engine the store has no more
        self._pacing = Pacing(
            pipeline.maker, planned, self._pace, alpha=ALPHA / processes, is_approving=approvals.is_approving, places=places
        )

    def beside_fp16(self, engine: EngineSpec) -> Paced:
        """The engine beside its FP16 twin, against the ratio that was approved."""
        return self._pacing.of(Timed(metric=LATENCY_RATIO, engine=engine))

    def ratio_timing(self, engine: EngineSpec) -> RatioTiming:
        """What the engine's ratio beside its FP16 twin was made of."""
        return RatioTiming(logs=self.beside_fp16(engine).logs, setting=gate_setting(engine))

    def beside_approved(self, engine: EngineSpec) -> Paced:
        """The engine beside the one that was approved; where there is none, beside itself, with a pending record.

        Raises:
            UnreadableBaseline, UnreachableBlobs, AlteredBlob: see `StoredEngines.beside`.
        """
        if engine not in self._beside:
            paced = self._pacing.of(Timed(metric=LATENCY_MS, engine=engine))
            self._beside[engine] = paced if paced.itself is None else self._proposed(engine, paced, paced.itself)
        return self._beside[engine]

    def _proposed(self, engine: EngineSpec, paced: Paced, itself: LatencySamples) -> Paced:
        """With a pending record, and the command that approves it; or with why there is none."""
        line = self._line(LATENCY_MS, engine)
        if paced.judgement.status is Status.INVALID:
            return paced
        if why_not := why_not_proposed(engine, itself, delta=line.size):
            return _with_words(paced, f"no pending record is left: {why_not}")
        try:
            path = self._stored.propose(self._pipeline.maker.engine(engine), itself, gate_protocol(line.quartets), line.size, self._run)
        except StoreFailed as error:  # the verdict stands without it, and nothing can be approved
            return _with_words(paced, f"this one cannot be approved: {error}")
        command = accept_command(path, self._places, is_predecessor_lost=engine in self._lost)
        return _with_words(paced, f"approve this one: {command}")

    def _pace(self, gate: Timed) -> Pace:
        return self._pace_beside_fp16(gate.engine) if gate.metric == LATENCY_RATIO else self._pace_beside_approved(gate.engine)

    def _pace_beside_fp16(self, engine: EngineSpec) -> Pace:
        line = self._line(LATENCY_RATIO, engine)
        gate = self._approvals.ratio_gate(engine, line, gate_setting(engine))
        twin = self._pipeline.maker.engine(replace(engine, recipe=Recipe.FP16))
        return Pace(line=line, gate=gate, pair=(twin, self._pipeline.maker.engine(engine)))

    def _pace_beside_approved(self, engine: EngineSpec) -> Pace:
        line = self._line(LATENCY_MS, engine)
        candidate = self._pipeline.maker.engine(engine)
        found = self._stored.beside(candidate, gate_protocol(line.quartets))
        self._lost |= {engine} if found.is_lost else set()
        gate = RatioGate(
            metric=LATENCY_MS,
            approved=None if found.engine is None else 1.0,
            delta=line.size,
            session_spread=line.session_spread,
            why_none=found.why_none,
        )
        is_updating = self._approvals.mode is BaselineMode.UPDATE
        return Pace(line=line, gate=gate, pair=(found.engine or candidate, candidate), with_itself=is_updating and found.engine is not None)

    def _line(self, metric: str, engine: EngineSpec) -> Margin:
        return self._policy.margin_line(metric, engine, self._pipeline.baseline_key(engine).machine_class)


def _with_words(paced: Paced, words: str) -> Paced:
    return replace(paced, judgement=replace(paced.judgement, reason=f"{paced.judgement.reason}; {words}"))
