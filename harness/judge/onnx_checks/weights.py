"""O7, O8: what is stored agrees with its scale, and with the weights it was made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from harness.judge.onnx_checks.finding import Findings, finding
from harness.judge.onnx_checks.scales import SMALLEST_FP16_SCALE, scale_of
from harness.judge.onnx_graph import FP8
from harness.judge.structure import DEQUANTIZE, GraphView
from harness.judge.token_tables import StoredWeight, stored_weights
from harness.records.graph import OnnxConstant, OnnxNode, RoundTrip, WeightStatistics
from harness.records.policy import RecipePolicy
from harness.records.verdict import Finding, Severity

NO_REFERENCE = "no file of the encoder before quantization was given, so its weights have nothing to be compared with"


def scale_agrees_with_data(view: GraphView, policy: RecipePolicy, statistics: Mapping[str, WeightStatistics | None]) -> Findings:
    """O7: the largest FP8 code of a weight is near 448 and none is NaN. Shares of clipped and zeroed codes are reported.

    Args:
        statistics: of the FP8 constants, by name.
    """
    return tuple(found for node, weight in fp8_weights(view) for found in _faults(view, policy, node, weight, statistics.get(weight.name)))


def fp8_weights(view: GraphView) -> Iterator[tuple[OnnxNode, OnnxConstant]]:
    """FP8 constants behind a DequantizeLinear, each with the node that computes with it, or the DequantizeLinear itself."""
    for node in view.of_types(DEQUANTIZE):
        constant = view.constant_behind(node.inputs[0])
        if constant is not None and constant.dtype == FP8:
            readers = view.readers(node.outputs[0])
            yield (readers[0] if readers else node), constant


def _faults(
    view: GraphView, policy: RecipePolicy, node: OnnxNode, weight: OnnxConstant, seen: WeightStatistics | None
) -> Iterator[Finding]:
    if seen is None:
        why = "what is not seen cannot pass; save the weights as raw bytes"
        yield finding("O7", policy, view, node, found="a weight that cannot be read", expected="FP8 codes as raw bytes", why=why)
        return
    if seen.nan_codes:
        why = "every output it touches is NaN; clamp before the cast to FP8"
        yield finding("O7", policy, view, node, found=f"{seen.nan_codes} codes are NaN", expected="numbers only", why=why)
    if seen.largest_code <= policy.limits.largest_code and not _has_smallest_scale(view, weight):
        why = "the scale is that of another number format or of other weights, and precision is lost; make the scale amax / 448"
        found = f"the largest FP8 code is {seen.largest_code:g}"
        yield finding("O7", policy, view, node, found=found, expected=f"above {policy.limits.largest_code:g}, near 448", why=why)
    for word, share, ceiling in (("clipped", seen.clipped, policy.limits.clipped), ("zero", seen.zeroed, policy.limits.zeroed)):
        if share > ceiling:
            found = f"{share:.1%} of its codes are {word}"
            why = "its scale may not fit its weights; look at them"
            yield finding("O7", Severity.REPORT, view, node, found=found, expected=f"at most {ceiling:.0%}", why=why)


def _has_smallest_scale(view: GraphView, weight: OnnxConstant) -> bool:
    """Whether FP16 has no sound scale under which the codes could be larger: weights so small lose no precision by it."""
    scales = [scale_of(view, node) for node in view.consumers.get(weight.name, ()) if node.op_type in DEQUANTIZE]
    return bool(scales) and all(
        scale is not None and scale.dtype == "FLOAT16" and scale.value is not None and np.all(scale.value == SMALLEST_FP16_SCALE)
        for scale in scales
    )


def originals(view: GraphView, reference: GraphView) -> Mapping[str, OnnxConstant]:
    """The reference's weight for each weight GEMM and token table that has one there: by name, else by order among its kind and shape."""
    own, theirs = stored_weights(view), stored_weights(reference)
    found: dict[str, OnnxConstant] = {}
    for name, stored in own.items():
        same = theirs.get(name)
        if same is not None and _likeness(same) == _likeness(stored):
            found[name] = same.constant
    left: defaultdict[tuple[object, ...], list[OnnxConstant]] = defaultdict(list)
    for name, stored in theirs.items():
        if name not in found:
            left[_likeness(stored)].append(stored.constant)
    for name, stored in own.items():
        if name not in found and left[_likeness(stored)]:
            found[name] = left[_likeness(stored)].pop(0)
    return found


def _likeness(stored: StoredWeight) -> tuple[object, ...]:
    return type(stored), *sorted(stored.constant.shape)


def weights_survive_rounding(view: GraphView, policy: RecipePolicy, trips: Mapping[str, RoundTrip | None] | None) -> Findings:
    """O8: every FP8 weight, times its scale, is the reference's weight up to E4M3's rounding.

    Args:
        trips: by node name of the weight GEMM or Gather; None where the two could not be compared. None without a reference.
    """
    if trips is None:
        return ()
    weights = (stored for stored in stored_weights(view).values() if stored.constant.dtype == FP8)
    return tuple(found for stored in weights for found in _distance(view, policy, stored.node, trips.get(stored.node.name)))


def _distance(view: GraphView, policy: RecipePolicy, node: OnnxNode, trip: RoundTrip | None) -> Iterator[Finding]:
    if trip is None:
        found, why = "no float weight of its shape in the reference", "the reference is of another encoder; name the one this was made of"
        yield finding("O8", policy, view, node, found=found, expected="its own weight before quantization", why=why)
    elif trip.cosine < policy.limits.cosine:
        found, why = f"cosine {trip.cosine:.4f} to the reference's weight", "it is another weight, or its scale is wrong; quantize again"
        yield finding("O8", policy, view, node, found=found, expected=f"at least {policy.limits.cosine}", why=why)
    elif trip.max_relative_error > policy.limits.relative_error:
        found = f"one element is {trip.max_relative_error:.1%} off the reference's"
        why = "weights were clipped, or their scale is wrong; quantize again"
        yield finding("O8", policy, view, node, found=found, expected=f"at most {policy.limits.relative_error:.1%}", why=why)
