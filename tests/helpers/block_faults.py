"""Planted faults of one block each: a copy of a clean quantized export is broken in one place, as real exports have been."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.helpers import onnx_defects as planted
from tests.helpers.defects import _initializer, _producer
from tests.helpers.onnx_defects import FC, OUT, PROJ, K, Q, V, _gemm, _pair, _reader, _scale, _set_scale, _softmax, _stored

TOWERS = ("image", "text")
QUANTIZED = ("linear", "attention")


def _quarter_activation(which: int) -> Callable[[Any, int], str | None]:
    def plant(model: Any, block: int) -> str | None:
        quantize, dequantize = _pair(model, _gemm(model, block, which))
        value = _scale(model, quantize) / 4
        for node in (quantize, dequantize):
            _set_scale(model, node, value)
        return quantize.name

    return plant


def _quarter_weight(which: int) -> Callable[[Any, int], str | None]:
    def plant(model: Any, block: int) -> str | None:
        dequantize = _producer(model, _gemm(model, block, which).input[1])
        _set_scale(model, dequantize, _scale(model, dequantize) / 4)
        return dequantize.name

    return plant


def transposed_out(model: Any, block: int) -> str | None:
    """The square out projection of the attention, the other way round."""
    dequantize, tensor, numbers = _stored(model, _gemm(model, block, OUT))
    planted._store(tensor, np.ascontiguousarray(numbers.T))
    return dequantize.name


def zeroed_out(model: Any, block: int) -> str | None:
    dequantize, tensor, numbers = _stored(model, _gemm(model, block, OUT))
    planted._store(tensor, np.zeros_like(numbers))
    return dequantize.name


def swapped_q_and_k(model: Any, block: int) -> str | None:
    q, k = (_gemm(model, block, which) for which in (Q, K))
    q.input[1], k.input[1] = k.input[1], q.input[1]
    adds = [_reader(model, gemm.output[0]) for gemm in (q, k)]
    constants = {tensor.name for tensor in model.graph.initializer}
    if all(add.op_type == "Add" for add in adds):
        places = [next(place for place, name in enumerate(add.input) if name in constants) for add in adds]
        first, second = (add.input[place] for add, place in zip(adds, places, strict=True))
        adds[0].input[places[0]], adds[1].input[places[1]] = second, first
    return None


def _lost_bias(which: int) -> Callable[[Any, int], str | None]:
    def plant(model: Any, block: int) -> str | None:
        gemm = _gemm(model, block, which)
        add = _reader(model, gemm.output[0])
        assert add.op_type == "Add", add
        for reader in [node for node in model.graph.node if add.output[0] in node.input]:
            reader.input[:] = [gemm.output[0] if name == add.output[0] else name for name in reader.input]
        model.graph.node.remove(add)

    return plant


def no_activation_function(model: Any, block: int) -> str | None:
    quantize, _ = _pair(model, _gemm(model, block, PROJ))
    quantize.input[0] = _reader(model, _gemm(model, block, FC).output[0]).output[0]
    return None


def relu_for_gelu(model: Any, block: int) -> str | None:
    import onnx

    quantize, _ = _pair(model, _gemm(model, block, PROJ))
    source = _reader(model, _gemm(model, block, FC).output[0]).output[0]
    name = f"planted/relu_{block}"
    place = next(place for place, node in enumerate(model.graph.node) if node.name == quantize.name)
    model.graph.node.insert(place, onnx.helper.make_node("Relu", [source], [name], name=name))
    quantize.input[0] = name
    return None


def no_mask(model: Any, block: int) -> str | None:
    """The causal mask of one block is gone."""
    softmax = _softmax(model, block)
    add = _producer(model, softmax.input[0])
    assert add.op_type == "Add", add
    constants = {tensor.name for tensor in model.graph.initializer}
    made = {output for node in model.graph.node if node.op_type == "Constant" for output in node.output}
    softmax.input[0] = next(name for name in add.input if name not in constants | made)
    return None


def norm_gain_lost(model: Any, block: int) -> str | None:
    """The LayerNormalization before the MLP has gains of one and half."""
    from onnx import numpy_helper

    quantize, _ = _pair(model, _gemm(model, block, FC))
    norm = _producer(model, quantize.input[0])
    while norm.op_type != "LayerNormalization":
        norm = _producer(model, norm.input[0])
    gain = numpy_helper.to_array(_initializer(model, norm.input[1]))
    norm.input[1] = planted._constant(model, f"planted/gain_{block}", gain / 2)
    return None


def unscaled_v(model: Any, block: int) -> str | None:
    """Of an FP8 attention: v saturates at an eighth of its range."""
    context = planted._context(model, block)
    dequantize = _producer(model, context.input[1])
    while dequantize.op_type != "DequantizeLinear":
        dequantize = _producer(model, dequantize.input[0])
    quantize = _producer(model, dequantize.input[0])
    value = _scale(model, quantize) / 8
    for node in (quantize, dequantize):
        _set_scale(model, node, value)
    return quantize.name


@dataclass(frozen=True)
class BlockFault:
    """One way to break one block.

    Attributes:
        plant: breaks the model in place, and names the quantizer at fault; None where the fault is no single quantizer.
    """

    name: str
    plant: Callable[[Any, int], str | None]
    recipes: tuple[str, ...] = QUANTIZED
    towers: tuple[str, ...] = TOWERS


FAULTS = (
    BlockFault("activation scale of fc1 x 1/4", _quarter_activation(FC)),
    BlockFault("activation scale of fc2 x 1/4", _quarter_activation(PROJ)),
    BlockFault("activation scale of v x 1/4", _quarter_activation(V)),
    BlockFault("activation scale of out x 1/4", _quarter_activation(OUT)),
    BlockFault("weight scale of fc1 x 1/4", _quarter_weight(FC)),
    BlockFault("weight scale of q x 1/4", _quarter_weight(Q)),
    BlockFault("weight scale of out x 1/4", _quarter_weight(OUT)),
    BlockFault("transposed out projection", transposed_out),
    BlockFault("zeroed out projection", zeroed_out),
    BlockFault("q and k swapped", swapped_q_and_k),
    BlockFault("bias of fc1 lost", _lost_bias(FC)),
    BlockFault("bias of fc2 lost", _lost_bias(PROJ)),
    BlockFault("no activation function", no_activation_function),
    BlockFault("ReLU for GELU", relu_for_gelu),
    BlockFault("gain of a normalisation halved", norm_gain_lost),
    BlockFault("v of the attention product x 1/8", unscaled_v, recipes=("attention",)),
    BlockFault("no causal mask", no_mask, towers=("text",)),
)
