"""Faults of scales: of activations and of weights."""

from __future__ import annotations

from functools import partial

import ml_dtypes
import numpy as np

from harness.judge.structure import Block, WeightGemm
from tests.helpers.accuracy_faults.exported import Edits, Exported, GraphFault

E4M3_MAX = 448.0  # largest finite E4M3 value
_FEEDING = ("q", "k", "v")  # they read one tensor


def activation_scale(factor: float) -> GraphFault:
    """Both nodes of a pair have `factor` times the scale that calibration found."""

    def edits(graph: Exported) -> Edits:
        if not graph.is_quantized:
            return {}
        return {
            f"block {block.index} {role}": partial(_scale_activations, graph, tensors, factor)
            for block in graph.sampled_blocks
            for role, tensors in _activations(graph, block).items()
        }

    return GraphFault(f"activation scale times {factor:g}", edits)


def _activations(graph: Exported, block: Block) -> dict[str, list[str]]:
    """Quantized operands of a block by role; q, k and v read the same numbers and are broken together."""
    gemms = graph.gemms(block)
    found = {"q, k, v": [gemms[role].activation for role in _FEEDING], **{role: [gemms[role].activation] for role in ("out", "fc", "proj")}}
    core = block.core
    assert core is not None, "faults are planted in transformers"
    if graph.view.dequantized(core.scores.inputs[0]) is not None:
        found |= {"scores": list(core.scores.inputs), "values": [core.context.inputs[1]], "softmax": [core.context.inputs[0]]}
    return found


def _scale_activations(graph: Exported, tensors: list[str], factor: float) -> None:
    for tensor in tensors:
        quantize, dequantizes = graph.quantizer_of(tensor)
        scale = graph.numbers(graph.node(quantize).input[1])
        name = graph.new_constant(f"{quantize}/planted_scale", (scale * factor).astype(scale.dtype))
        for node in (quantize, *dequantizes):
            graph.node(node).input[1] = name


def weight_scale(factor: float) -> GraphFault:
    """A weight was quantized with `factor` times its scale: below 1 it saturates, above 1 it is rounded more coarsely."""
    return _of_weights(f"weight scale times {factor:g}, codes made with it", partial(_quantize_again, factor=factor))


def weight_scale_alone(factor: float) -> GraphFault:
    """A weight's scale is not the one that its codes were made with."""
    return _of_weights(f"weight scale times {factor:g}, codes as they were", partial(_scale_weight, factor=factor))


def _of_weights(kind: str, edit: partial[None]) -> GraphFault:
    def edits(graph: Exported) -> Edits:
        if not graph.is_quantized:
            return {}
        return {
            f"block {block.index} {role}": partial(edit, graph, gemm)
            for block in graph.sampled_blocks
            for role, gemm in graph.gemms(block).items()
            if role in ("v", "fc", "proj")
        }

    return GraphFault(kind, edits)


def _scale_weight(graph: Exported, gemm: WeightGemm, *, factor: float) -> None:
    dequantize = graph.view.dequantized(gemm.weight)
    assert dequantize is not None, "the weight is quantized"
    scale = graph.numbers(dequantize.inputs[1])
    graph.node(dequantize.name).input[1] = graph.new_constant(f"{dequantize.name}/planted_scale", (scale * factor).astype(scale.dtype))


def _quantize_again(graph: Exported, gemm: WeightGemm, *, factor: float) -> None:
    codes = graph.numbers(gemm.constant.name).astype(np.float32) / factor
    graph.set_numbers(gemm.constant.name, np.clip(codes, -E4M3_MAX, E4M3_MAX).astype(ml_dtypes.float8_e4m3fn))
    _scale_weight(graph, gemm, factor=factor)
