"""What becomes of a judgement before it counts: beside the baseline, beside a waiver, and with the words on where accuracy is lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from harness.judge.waivers import waived
from harness.records.spec import EngineSpec, PreparedSpec
from harness.records.verdict import Judgement, Severity, Status

if TYPE_CHECKING:
    from harness.pipeline.approving import Approvals
    from harness.pipeline.keeping import Keeper
    from harness.pipeline.seeing import Pipeline
    from harness.records.policy import GatePolicy

Subject = EngineSpec | PreparedSpec


class Settling:
    """Settles the judgements of one run.

    Args:
        keeper: where localisations are kept.
    """

    def __init__(self, pipeline: Pipeline, policy: GatePolicy, approvals: Approvals, keeper: Keeper) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self._approvals = approvals
        self._keeper = keeper
        self._where_lost: dict[EngineSpec, str] = {}

    def settle(self, judgement: Judgement, subject: Subject) -> Judgement:
        """The judgement as it counts.

        The run that approves a figure does not fail over the one it replaces, what somebody answers for until a day is waived until then,
        and a recipe that is only reported on fails nothing.
        """
        settled = self._waived(self._beside_baseline(judgement, subject), subject)
        if self._policy.policy(subject.recipe).severity is Severity.REPORT and settled.status is not Status.INVALID:
            return replace(settled, severity=Severity.REPORT)
        return settled

    def _beside_baseline(self, judgement: Judgement, subject: Subject) -> Judgement:
        return self._approvals.settle(judgement, subject) if isinstance(subject, EngineSpec) else judgement

    def _waived(self, judgement: Judgement, subject: Subject) -> Judgement:
        if not isinstance(subject, EngineSpec):
            return judgement
        return waived(judgement, self._policy.waiver(judgement.metric, subject), today=datetime.now(UTC).date())

    def located(self, judgement: Judgement, subject: Subject) -> Judgement:
        """A failed judgement of accuracy, whose reason also says where the accuracy is lost; any other as it is.

        An engine is looked at once, however many of its gates fail, and the whole sentence is said of the first. What breaks on the
        way is said in place of an answer, and changes no status.
        """
        from harness.judge.accuracy.all_metrics import METRICS

        if judgement.status is not Status.FAIL or judgement.severity is Severity.REPORT or not isinstance(subject, EngineSpec):
            return judgement
        if judgement.metric not in METRICS:  # a property of calls and batches, or a suite's own metric, is lost in no block
            return judgement
        words = self._where_lost.get(subject)
        if words is None:
            words, self._where_lost[subject] = self._words_on_where(subject)
        return replace(judgement, reason="; ".join(filter(None, (judgement.reason, words))))

    def _words_on_where(self, engine: EngineSpec) -> tuple[str, str]:
        """A sentence for the engine's first gate that failed, and a few words for the others."""
        from harness.judge.localisation import in_brief

        try:
            found = self._pipeline.localisation(engine)
            self._keeper.keep_localisation(found)
        except Exception as error:  # noqa: BLE001 (a gate that failed has failed, and its reason must reach the reader)
            return f"where it is lost could not be found: {str(error) or type(error).__name__}", "where it is lost could not be found"
        return found.sentence, in_brief(found)
