"""Gathers what the checks of a graph look at: its structure, what its weights say, and how far they are from the original's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.judge.onnx_checks.all_checks import Evidence
    from harness.judge.structure import GraphView
    from harness.records.graph import OnnxConstant, OnnxGraph, RoundTrip, WeightStatistics


def graph_evidence(
    view: GraphView, *, reference: GraphView | None = None, as_read: OnnxGraph | None = None, amax: Mapping[str, float] | None = None
) -> Evidence:
    """What is known of a graph. Its weights are read from its file, and so are the reference's.

    Args:
        reference: the same encoder before quantization.
        as_read: the graph before its nodes were given names of their own, where that was done.
        amax: what calibration recorded of it, where somebody kept that.
    """
    from harness.judge.onnx_checks.all_checks import Evidence

    trips = _trips(view, reference) if reference else None
    digests = _digests(view, reference) if reference else {}
    return Evidence(view=view, statistics=_statistics(view), reference=reference, trips=trips, digests=digests, as_read=as_read, amax=amax)


def _digests(view: GraphView, reference: GraphView) -> Mapping[OnnxConstant, str | None]:
    from harness.judge.onnx_checks.unchanged import kept_constants, unquantized_constants
    from harness.measure.onnx_weights import float_digest

    constants = (*unquantized_constants(view).values(), *kept_constants(view, reference).values())
    return {constant: float_digest(constant) for constant in constants}


def _statistics(view: GraphView) -> Mapping[str, WeightStatistics | None]:
    from harness.judge.onnx_checks.weights import fp8_weights
    from harness.measure.onnx_weights import weight_statistics

    return {constant.name: weight_statistics(constant) for _, constant in fp8_weights(view)}


def _trips(view: GraphView, reference: GraphView) -> Mapping[str, RoundTrip | None]:
    from harness.judge.onnx_checks.scales import scale_of
    from harness.judge.onnx_checks.weights import originals
    from harness.judge.token_tables import stored_weights
    from harness.measure.onnx_weights import round_trip

    trips: dict[str, RoundTrip | None] = {}
    weights = stored_weights(view)
    for name, original in originals(view, reference).items():
        stored = weights[name]
        dequantize = view.dequantized(stored.weight)
        scale = scale_of(view, dequantize) if dequantize else None
        if dequantize is not None and scale is not None and scale.value is not None:
            axis = dequantize.attributes.get("axis", 1)
            trips[name] = round_trip(stored.constant, scale.value, axis if isinstance(axis, int) else 1, original)
    return trips
