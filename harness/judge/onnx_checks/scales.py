"""O5, O6, O13: scales are sound, both nodes of a pair agree, and readers of one tensor share one scale."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from harness.judge.onnx_checks.finding import Findings, finding
from harness.judge.structure import DEQUANTIZE, MOVES, QDQ, QUANTIZE, GraphView
from harness.records.graph import OnnxConstant, OnnxNode
from harness.records.policy import RecipePolicy
from harness.records.verdict import Finding, Severity

# FP16 below 2**-14 loses one bit with every halving; below this it has fewer significant bits than E4M3's own four. Untrained
# weights of clean exports have scales down to 4e-5, which is subnormal and still has nine bits.
SMALLEST_FP16_SCALE = 2.0**-24 * 2**4


def sound_scales(view: GraphView, policy: RecipePolicy) -> Findings:
    """O5: constant, finite, positive, precise enough, one a tensor or one an output channel, of the float type around them."""
    faults = ((node, words) for node in view.of_types(QDQ) for words in _faults(view, node))
    return tuple(_unsound(view, policy, node, *words) for node, words in faults)


def _unsound(view: GraphView, policy: RecipePolicy, node: OnnxNode, found: str, expected: str, why: str) -> Finding:
    return finding("O5", policy, view, node, found=found, expected=expected, why=why)


def _faults(view: GraphView, node: OnnxNode) -> Iterator[tuple[str, str, str]]:
    scale = scale_of(view, node)
    if scale is None:
        yield "no constant scale", "a constant", "a builder folds only constant scales; calibrate statically and export again"
        return
    if scale.value is not None:
        yield from _bad_numbers(scale, scale.value)
    yield from _bad_shape(view, node, scale)
    yield from _bad_types(view, node, scale)


def _bad_numbers(scale: OnnxConstant, value: NDArray[np.generic]) -> Iterator[tuple[str, str, str]]:
    numbers = np.asarray(value, np.float64).reshape(-1)
    wrong = numbers[~(np.isfinite(numbers) & (numbers > 0))]
    small = numbers[numbers < SMALLEST_FP16_SCALE] if scale.dtype == "FLOAT16" else numbers[:0]
    if wrong.size:
        why = "zero, negative and NaN scales stop the builder, an infinite one builds a dead engine; look at the calibration"
        yield f"a scale of {wrong[0]:g}", "a finite number above 0", why
    elif small.size:
        why = "it stands for a scale of zero or has lost its precision, and what it multiplies is dead; look at the calibration"
        yield f"a subnormal FP16 scale of {small[0]:.3g}", f"at least {SMALLEST_FP16_SCALE:.3g}", why


def _bad_shape(view: GraphView, node: OnnxNode, scale: OnnxConstant) -> Iterator[tuple[str, str, str]]:
    if scale.elements == 1:
        return
    weight = view.constant_behind(node.inputs[0])
    why = "TensorRT's FP8 products take one scale a tensor for activations, one an output channel for weights, and its Gather one a row"
    if weight is None:
        yield f"{scale.elements} scales on an activation", "one", why
        return
    axis = node.attributes.get("axis", 1)
    own = (axis if isinstance(axis, int) else 1) % max(1, len(weight.shape))
    expected = _output_axis(view, node, weight)
    if expected is None:
        return
    if own != expected or scale.elements != weight.shape[expected]:
        found = f"{scale.elements} scales along axis {own} of {list(weight.shape)}"
        yield found, f"one scale, or {weight.shape[expected]} along axis {expected}", why


def _output_axis(view: GraphView, node: OnnxNode, weight: OnnxConstant) -> int | None:
    """The axis of the stored weight that becomes output channels or is gathered along; None when no product or Gather reads it."""
    tensor, is_flipped = node.outputs[0], False
    while True:
        reader = next(iter(view.consumers.get(tensor, ())), None)
        if reader is None:
            return None
        if reader.op_type not in MOVES | QDQ:
            break
        is_flipped ^= reader.op_type == "Transpose"
        tensor = reader.outputs[0]
    if reader.op_type.startswith("Conv"):
        return 0 if reader.op_type == "Conv" else 1
    if reader.op_type == "Gather" and reader.inputs[0] == tensor:
        axis = reader.attributes.get("axis", 0)
        return (axis if isinstance(axis, int) else 0) % len(weight.shape) if not is_flipped else None
    if reader.op_type not in ("MatMul", "Gemm"):
        return None
    is_second = reader.inputs[1] == tensor
    is_flipped ^= reader.attributes.get("transB" if is_second else "transA", 0) == 1
    return len(weight.shape) - 1 if is_second != is_flipped else len(weight.shape) - 2


def _bad_types(view: GraphView, node: OnnxNode, scale: OnnxConstant) -> Iterator[tuple[str, str, str]]:
    why = "a scale of another type puts a Cast beside the product, which keeps it from being fused"
    around = view.graph.tensors.get(node.inputs[0]) if node.op_type in QUANTIZE else None
    if around is not None and around.dtype != scale.dtype:
        yield f"a scale of {scale.dtype} on a tensor of {around.dtype}", f"a scale of {around.dtype}", why
    if node.op_type in DEQUANTIZE:
        cast = next((reader for reader in view.consumers.get(node.outputs[0], ()) if reader.op_type == "Cast"), None)
        if cast is not None:
            yield f"{cast.name} casts its output of {scale.dtype}", "a scale of the type that the product computes in", why


def scale_of(view: GraphView, node: OnnxNode) -> OnnxConstant | None:
    """The constant scale of a Q or DQ node."""
    return view.constant_behind(node.inputs[1]) if len(node.inputs) > 1 else None


def pairs_agree(view: GraphView, policy: RecipePolicy) -> Findings:
    """O6: a QuantizeLinear and the DequantizeLinear nodes that read it have one scale and one zero point."""
    pairs = (
        (quantize, reader)
        for quantize in view.of_types(QUANTIZE)
        for reader in view.readers(quantize.outputs[0])
        if reader.op_type in DEQUANTIZE
    )
    why = "what comes out is not what went in; give both nodes one scale and one zero point"
    return tuple(
        finding("O6", policy, view, dequantize, found=words[0], expected=words[1], why=why)
        for quantize, dequantize in pairs
        if (words := _disagreement(view, quantize, dequantize)) is not None
    )


def _disagreement(view: GraphView, quantize: OnnxNode, dequantize: OnnxNode) -> tuple[str, str] | None:
    one, other = scale_of(view, quantize), scale_of(view, dequantize)
    if one is not None and other is not None and not _equal(one.value, other.value):
        return f"a scale of {_spelled(other)}", f"that of {quantize.name}, {_spelled(one)}"
    zeros = [_zero(view, node) for node in (quantize, dequantize)]
    if not _equal(zeros[0], zeros[1]):
        return "another zero point", f"that of {quantize.name}"
    return None


def _equal(one: NDArray[np.generic] | None, other: NDArray[np.generic] | None) -> bool:
    if one is None or other is None:  # too large to be kept, as no scale of an activation is
        return one is other
    return one.size == other.size and bool(np.array_equal(one.reshape(-1), other.reshape(-1), equal_nan=True))


def _zero(view: GraphView, node: OnnxNode) -> NDArray[np.generic]:
    constant = view.constant_behind(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    value = constant.value if constant is not None else None
    return np.unique(value) if value is not None else np.zeros(1)


def _spelled(scale: OnnxConstant) -> str:
    return f"{float(np.asarray(scale.value, np.float64).reshape(-1)[0]):.6g}" if scale.value is not None else f"{scale.elements} numbers"


def shared_inputs_share_scales(view: GraphView, policy: RecipePolicy) -> Findings:
    """O13: QuantizeLinear nodes that read one tensor have one scale. A report: unequal ones cost copies, not correctness."""
    readers: defaultdict[str, list[OnnxNode]] = defaultdict(list)
    for node in view.of_types(QUANTIZE):
        readers[node.inputs[0]].append(node)
    return tuple(found for nodes in readers.values() for found in _unequal(view, nodes))


def _unequal(view: GraphView, nodes: list[OnnxNode]) -> Iterator[Finding]:
    first = scale_of(view, nodes[0])
    for node in nodes[1:]:
        own = scale_of(view, node)
        if first is not None and own is not None and not _equal(first.value, own.value):
            why = "the engine keeps one FP8 copy of the tensor for each scale; calibrate the readers together"
            expected = f"that of {nodes[0].name}, {_spelled(first)}"
            yield finding("O13", Severity.REPORT, view, node, found=f"a scale of {_spelled(own)}", expected=expected, why=why)
