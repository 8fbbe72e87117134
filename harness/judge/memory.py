"""Judges bytes: against the stored baseline, and against what the shapes of the graph predict."""

from __future__ import annotations

from dataclasses import replace

from harness.judge.structure import GraphView
from harness.judge.token_tables import token_tables
from harness.records.observations import DeviceMemory
from harness.records.policy import RecipePolicy
from harness.records.verdict import Direction, Judgement, Status


def bytes_against_baseline(
    metric: str,
    observed: int | None,
    approved: float | None,
    *,
    is_same_graph: bool,
    relative_margin: float,
    same_graph_margin: float = 0.0,
) -> Judgement:
    """Whether an engine needs no more bytes than the approved one.

    The same graph under the same builder gives the same plan, byte for byte, so nothing is allowed there unless `same_graph_margin` says
    so: a builder that times kernels gives plans of other sizes, with the same weights and activations (docs/h200.md). Another calibration
    moves the figure by a few hundred bytes, which `relative_margin` covers when the graphs differ.

    Args:
        metric: such as `weights_bytes`.
        observed, approved: in bytes; None when the source does not say, or when there is no baseline.
        is_same_graph: whether both engines come from one ONNX file, by digest.
        relative_margin: for different graphs; 0.001 is a thousandth.
        same_graph_margin: for the same graph, likewise.
    """
    if observed is None:
        return _bytes(metric, Status.INVALID, observed, approved, "the builder did not say; its log is in the run directory")
    if approved is None:
        return _bytes(metric, Status.NO_BASELINE, observed, None, "no baseline of this key; run with --baselines=create to store one")
    margin = same_graph_margin if is_same_graph else relative_margin
    if observed > approved * (1 + margin):
        share = f" ({observed / approved - 1:+.3%})" if approved else ""
        excess = f"{observed - approved:+,.0f} bytes{share}"
        return _bytes(metric, Status.FAIL, observed, approved, f"{excess}; {_graphs(is_same_graph)}")
    if observed < approved * (1 - margin):
        saved = f"{observed - approved:+,.0f} bytes; approve the smaller figure with --baselines=update"
        return _bytes(metric, Status.PASS, observed, approved, f"baseline_stale: {saved}")
    return _bytes(metric, Status.PASS, observed, approved, "" if is_same_graph else _graphs(is_same_graph))


def device_peak_against_baseline(seen: DeviceMemory, approved: float | None, *, is_same_graph: bool, relative_margin: float) -> Judgement:
    """Whether running an engine takes no more of its device than the approved one did, and launches take nothing at all.

    The figure is the most that was held at once, as it was asked for. The rule is that of `bytes_against_baseline`: that the same graph
    repeats to the byte follows where the builder gives the same plan; where it times kernels, weights and activations do (docs/h200.md).

    Args:
        seen: counted by phase, in bytes.
        approved: in bytes; None when there is no baseline.
        is_same_graph, relative_margin: see `bytes_against_baseline`.
    """
    metric = "device_peak_bytes"
    if why_not := _why_not_counted(seen):
        return _bytes(metric, Status.INVALID, None, approved, why_not)
    if seen.launch_bytes:
        reason = f"launches after the first took {seen.launch_bytes:,} bytes of the device; expected none; {_by_phase(seen)}"
        return _bytes(metric, Status.FAIL, seen.peak_bytes, approved, reason)
    judged = bytes_against_baseline(metric, seen.peak_bytes, approved, is_same_graph=is_same_graph, relative_margin=relative_margin)
    return replace(judged, reason=f"{judged.reason}; {_by_phase(seen)}") if judged.status is Status.FAIL else judged


def host_bytes_against_baseline(
    observed: int | None, approved: float | None, *, relative_margin: float, is_same_processor: bool = True
) -> Judgement:
    """Whether running an engine takes no more of the host's memory than the approved one did; a figure that is measured.

    Args:
        observed, approved: in bytes; None when the system does not say, or when there is no baseline.
        relative_margin: 0.25 is a quarter more.
        is_same_processor: whether it was approved on this make of processor: on another, kernels may pack weights otherwise.
    """
    metric = "host_bytes"
    if observed is None:
        return _bytes(metric, Status.INVALID, None, None, "this system does not say how much a process has held; expected Linux or macOS")
    if approved is None:
        return _bytes(metric, Status.NO_BASELINE, observed, None, "no baseline of this key; run with --baselines=create to store one")
    ceiling = approved * (1 + relative_margin)
    change = f"{observed - approved:+,.0f} bytes ({observed / approved - 1:+.1%}) against the approved {approved:,.0f}"
    if observed > ceiling and not is_same_processor:
        reason = f"{change}, which was seen on another make of processor; approve one here with --baselines=update"
        return _bytes(metric, Status.INCONCLUSIVE, observed, ceiling, reason)
    if observed > ceiling:
        return _bytes(metric, Status.FAIL, observed, ceiling, f"{change}; it repeats within {relative_margin:.0%}")
    is_stale = observed < approved * (1 - relative_margin)
    return _bytes(metric, Status.PASS, observed, ceiling, f"baseline_stale: {change}" if is_stale else "")


def weights_ratio(quantized_bytes: int | None, fp16_bytes: int | None, predicted: float | None, *, relative_margin: float) -> Judgement:
    """FP8 weight bytes over FP16 weight bytes, against the ratio that the graph's shapes predict. Needs no baseline.

    Args:
        quantized_bytes, fp16_bytes: of the two engines; None when a builder did not say.
        predicted: `predicted_weights_ratio`; None for a graph without blocks.
        relative_margin: how far the builders' padding may move it; 0.02 is two percent.
    """
    if not quantized_bytes or not fp16_bytes or predicted is None:
        return _ratio(Status.INVALID, None, predicted, "weight bytes or graph structure are unknown")
    observed = quantized_bytes / fp16_bytes
    off = observed / predicted - 1
    if abs(off) <= relative_margin:
        return _ratio(Status.PASS, observed, predicted, "")
    hint = "weights stored wider than FP8, or layers left unquantized" if off > 0 else "more is quantized than the recipe says"
    return _ratio(Status.FAIL, observed, predicted, f"{off:+.1%} off the prediction: {hint}")


def predicted_weights_ratio(fp16: GraphView, policy: RecipePolicy) -> float | None:
    """Weight bytes with all that the recipe stores in FP8 at one byte an element, over those of the FP16 graph; None without blocks.

    That is every block GEMM's weight and, where the policy says so, the token table.
    """
    total = sum(constant.nbytes for constant in fp16.graph.constants.values())
    gemms = [gemm.constant for block in fp16.blocks for gemm in block.gemms]
    tables = [table.constant for table in token_tables(fp16).values() if policy.embedding_fp8]
    weights = {constant.name: constant for constant in (*gemms, *tables)}
    saved = sum(weight.nbytes - weight.elements for weight in weights.values())
    return (total - saved) / total if gemms and saved else None


def _why_not_counted(seen: DeviceMemory) -> str | None:
    if seen.troubles:
        return f"counting went wrong: {'; '.join(seen.troubles)}"
    if seen.runtime_bytes == 0:
        return "the runtime asked the allocator that it was given for nothing, so it takes its memory elsewhere"
    return None


def _by_phase(seen: DeviceMemory) -> str:
    taken = ((phase.phase, phase.runtime_bytes + phase.session_bytes) for phase in seen.phases)
    return "taken by phase: " + ", ".join(f"{phase} {nbytes:,}" for phase, nbytes in taken if nbytes)


def _graphs(is_same_graph: bool) -> str:
    return "the graph is the baseline's own" if is_same_graph else "the graph differs from the baseline's"


def _bytes(metric: str, status: Status, observed: int | None, approved: float | None, reason: str) -> Judgement:
    return Judgement(
        metric=metric,
        status=status,
        observed=observed,
        bound=approved,
        unit="bytes",
        direction=Direction.CEILING,
        n=1,
        reason=reason,
    )


def _ratio(status: Status, observed: float | None, predicted: float | None, reason: str) -> Judgement:
    return Judgement(
        metric="weights_ratio",
        status=status,
        observed=observed,
        bound=predicted,
        unit="",
        direction=Direction.EQUAL,
        n=1,
        reason=reason,
    )
