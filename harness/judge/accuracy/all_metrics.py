"""Every metric of accuracy, and each as one judgement of what an engine made of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.errors import InvalidMeasurement
from harness.judge.accuracy import calibration, references, retrieval, rows, tasks
from harness.judge.accuracy.evidence import AccuracyEvidence
from harness.records.observations import Embeddings
from harness.records.task import Task
from harness.records.verdict import Judgement

Number = Callable[[str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyMetric:
    """A metric, and of what it can be judged.

    Attributes:
        name: as in verdicts and in gate.toml.
        needs_task: whether it asks what embeddings are for, so that weights that have learnt nothing have no such figure.
        quantized_only: whether it is about quantized recipes only.
    """

    name: str
    needs_task: bool = False
    quantized_only: bool = False


METRICS: Mapping[str, AccuracyMetric] = {
    metric.name: metric
    for metric in (
        AccuracyMetric(name="finite"),
        AccuracyMetric(name="cosine_min"),
        AccuracyMetric(name="cosine_p01"),
        AccuracyMetric(name="centred_snr_db"),
        AccuracyMetric(name="snr_loss_db", quantized_only=True),
        AccuracyMetric(name="snr_to_fake_quant_db", quantized_only=True),
        AccuracyMetric(name="fp8_error_db", quantized_only=True),
        AccuracyMetric(name="calibration_coverage", quantized_only=True),
        AccuracyMetric(name="logit_drift_p99", needs_task=True),
        AccuracyMetric(name="zero_shot_agreement", needs_task=True),
        AccuracyMetric(name="zero_shot_top1_drop", needs_task=True),
        AccuracyMetric(name="recall_at_1_drop", needs_task=True),
        AccuracyMetric(name="recall_at_5_drop", needs_task=True),
        AccuracyMetric(name="top10_overlap", needs_task=True),
    )
}


def judgement(metric: str, evidence: AccuracyEvidence, *, limit: Number, margin: Number) -> Judgement:
    """One metric of `METRICS`.

    Args:
        metric: its name.
        evidence: what the engine made of the inputs, and what it is compared with.
        limit, margin: gate.toml's number for a metric's name and this engine; only what the metric is held to is asked for.

    Raises:
        InvalidMeasurement: the evidence lacks what the metric compares, or holds rows that cannot be compared.
    """
    if metric not in _JUDGES:
        raise InvalidMeasurement(f"no accuracy metric is named {metric!r}; expected one of {', '.join(METRICS)}")
    return _JUDGES[metric](evidence, limit, margin)


def _finite(seen: AccuracyEvidence, limit: Number, margin: Number) -> Judgement:
    return rows.finite(seen.observed, seen.exact)


def _cosine_min(seen: AccuracyEvidence, limit: Number, margin: Number) -> Judgement:
    return rows.cosine_min(seen.observed, seen.exact, floor=limit("cosine_min"))


def _cosine_p01(seen: AccuracyEvidence, limit: Number, margin: Number) -> Judgement:
    return rows.cosine_p01(seen.observed, seen.exact, floor=limit("cosine_p01"))


def _centred_snr(seen: AccuracyEvidence, limit: Number, margin: Number) -> Judgement:
    floor, margin_db = limit("centred_snr_db"), margin("centred_snr_db")
    return rows.centred_snr_db(seen.observed, seen.exact, floor=floor, approved_db=seen.approved_snr_db, margin_db=margin_db)


def _snr_loss(seen: AccuracyEvidence, limit: Number, margin: Number) -> Judgement:
    return references.snr_loss_db(seen.observed, _fake_quant("snr_loss_db", seen), seen.exact, ceiling=limit("snr_loss_db"))


def _snr_to_fake_quant(seen: AccuracyEvidence, limit: Number, margin: Number) -> Judgement:
    metric = "snr_to_fake_quant_db"
    quantized, approved_db = _fake_quant(metric, seen), seen.approved_to_fake_quant_db
    return references.snr_to_fake_quant_db(seen.observed, quantized, seen.exact, margin_db=margin(metric), approved_db=approved_db)


def _fp8_error(seen: AccuracyEvidence, limit: Number, margin: Number) -> Judgement:
    half = _given(seen.half, "fp8_error_db needs the rows of the FP16 engine of the same backend; build that recipe beside this one")
    return references.fp8_error_db(seen.observed, half, seen.exact, floor=limit("fp8_error_db"))


def _calibration_coverage(seen: AccuracyEvidence, limit: Number, margin: Number) -> Judgement:
    metric = "calibration_coverage"
    if seen.range_use is None:
        raise InvalidMeasurement(f"{metric} needs to know how quantizers use their ranges, which nobody looked at; run the gate again")
    return calibration.calibration_coverage(seen.range_use, seen.observed, floor=limit(metric))


def _of_task(
    judge: Callable[..., Judgement], metric: str, bound: str
) -> Callable[[AccuracyEvidence, Callable[[str], float], Callable[[str], float]], Judgement]:
    def judged(seen: AccuracyEvidence, limit: Number, margin: Number) -> Judgement:
        return judge(seen.observed, seen.exact, _task(metric, seen), **{bound: limit(metric)})

    return judged


_JUDGES: Mapping[str, Callable[[AccuracyEvidence, Number, Number], Judgement]] = {
    "finite": _finite,
    "cosine_min": _cosine_min,
    "cosine_p01": _cosine_p01,
    "centred_snr_db": _centred_snr,
    "snr_loss_db": _snr_loss,
    "snr_to_fake_quant_db": _snr_to_fake_quant,
    "fp8_error_db": _fp8_error,
    "calibration_coverage": _calibration_coverage,
    "logit_drift_p99": _of_task(tasks.logit_drift_p99, "logit_drift_p99", "ceiling"),
    "zero_shot_agreement": _of_task(tasks.zero_shot_agreement, "zero_shot_agreement", "floor"),
    "zero_shot_top1_drop": _of_task(tasks.zero_shot_top1_drop, "zero_shot_top1_drop", "ceiling"),
    "recall_at_1_drop": _of_task(retrieval.recall_at_1_drop, "recall_at_1_drop", "ceiling"),
    "recall_at_5_drop": _of_task(retrieval.recall_at_5_drop, "recall_at_5_drop", "ceiling"),
    "top10_overlap": _of_task(retrieval.top10_overlap, "top10_overlap", "floor"),
}


def _fake_quant(metric: str, seen: AccuracyEvidence) -> Embeddings:
    return _given(seen.fake_quant, f"{metric} needs the rows of the fake-quantized encoder, which a recipe without quantizers has not")


def _task(metric: str, seen: AccuracyEvidence) -> Task:
    if seen.task is None:
        raise InvalidMeasurement(f"{metric} asks what embeddings are for, which untrained weights cannot say; give --weights")
    if seen.weights is not None and seen.weights != seen.task.same_weights:
        raise InvalidMeasurement(
            f"the engine's weights are {seen.weights}, those of the other tower {seen.task.same_weights}; expected one model's two towers"
        )
    return seen.task


def _given(rows_or_none: Embeddings | None, words: str) -> Embeddings:
    if rows_or_none is None:
        raise InvalidMeasurement(words)
    return rows_or_none
