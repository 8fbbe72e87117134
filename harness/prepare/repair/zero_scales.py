"""Scales that FP16 rounds to zero, and weights that were divided by them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.errors import BuildFailed
from harness.prepare.onnx_edit import Wiring, remove_unread_initializers
from harness.prepare.repair.originals import Originals, original_of
from harness.records.artifacts import Repair

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

# FP16's smallest number, 2**-24, times 16. A scale below it has fewer significant bits than E4M3's own four. And nothing is lost
# by it: every FP16 number that is not zero is at least 2**-4 of it, and E4M3 is as precise from 2**-6 to 448 as it gets.
SMALLEST_SCALE = 2.0**-20
_E4M3_MAX = 448.0


def zero_scales(model: ModelProto, originals: Originals) -> Repair | None:
    """Weights so small that FP16 has no scale for them: a largest magnitude below 1.3e-5 over 448 is zero there.

    The exporter divides by that zero, which leaves codes of 448 and NaN, and then writes 6e-8 for the scale. The codes are made
    again from the original weights with the smallest sound scale, which holds every FP16 number of such a weight as precisely
    as E4M3 can; a weight of zeros is exact under any scale.

    Raises:
        BuildFailed: the scale is an activation's, or the weights are not small. An activation's zero scale says that calibration
            saw next to nothing there, and no number put in its place is known to hold what an engine will see.
    """
    wiring = Wiring(model.graph)
    lost = [node for node in model.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and _is_lost(node, wiring)]
    if not lost:
        return None
    for node in lost:
        _require_weight(node, wiring)
        _quantize_again(model.graph, node, wiring, originals)
    remove_unread_initializers(model.graph)
    detail = f"{len(lost)} weights had a scale that FP16 rounds to zero; quantized again with a scale of {SMALLEST_SCALE:.3g}"
    return Repair(name="zero_scales", count=len(lost), detail=detail)


def _is_lost(node: NodeProto, wiring: Wiring) -> bool:
    """Zero, or the number that the exporter puts in the place of zero, which is FP16's smallest."""
    import onnx

    scale = wiring.initializer.get(node.input[1])
    if scale is None:
        return False
    return bool((np.abs(onnx.numpy_helper.to_array(scale)) <= np.finfo(np.float16).smallest_subnormal).any())


def _require_weight(node: NodeProto, wiring: Wiring) -> None:
    if node.op_type == "DequantizeLinear" and node.input[0] in wiring.initializer:
        return
    raise BuildFailed(
        f"{node.name!r} quantizes an activation with a scale of zero: calibration saw next to nothing there, at most 4e-5; "
        "expected a tensor that is not dead; look at the weights before it and at the calibration inputs"
    )


def _quantize_again(graph: GraphProto, node: NodeProto, wiring: Wiring, originals: Originals) -> None:
    import onnx

    stored = wiring.initializer[node.input[0]]
    reader, is_transposed = _reader(node, wiring)
    shape = tuple(stored.dims)
    _, original = original_of(reader, originals, shape=shape[::-1] if is_transposed else shape)
    weight = original.astype(np.float32).T if is_transposed else original.astype(np.float32)
    largest = float(np.abs(weight).max(initial=0.0))
    if not largest <= _E4M3_MAX * SMALLEST_SCALE:
        raise BuildFailed(
            f"{node.name!r} has a scale of zero for weights of up to {largest:.3g}, which FP16 has a scale for; expected one of "
            f"{largest / _E4M3_MAX:.3g}; the exporter lost it in a way that no repair knows"
        )
    stored.raw_data = _codes(weight)
    node.input[1] = f"{node.output[0]}/scale"
    graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(SMALLEST_SCALE, np.float16), node.input[1]))
    node.ClearField("attribute")  # an axis, which one scale has not


def _reader(node: NodeProto, wiring: Wiring) -> tuple[NodeProto, bool]:
    """What computes with the weight, and whether it is stored the other way round than the module holds it."""
    readers = wiring.readers[node.output[0]]
    places = [(reader.op_type, list(reader.input).index(node.output[0])) for reader in readers]
    if places in ([("MatMul", 1)], [("Gather", 0)]):
        return readers[0], readers[0].op_type == "MatMul"
    found = ", ".join(f"{reader.op_type} {reader.name}" for reader in readers) or "nothing"
    raise BuildFailed(
        f"{node.name!r} has a scale of zero, and its weight is read by {found}; expected one MatMul or Gather, which say which way "
        "round the weight is stored; look at the exporter"
    )


def _codes(weight: NDArray[np.float32]) -> bytes:
    import ml_dtypes

    return np.ascontiguousarray(weight / np.float32(SMALLEST_SCALE)).astype(ml_dtypes.float8_e4m3fn).tobytes()
