"""Planted defects of exported graphs: each function breaks one thing in one block and names the node where that shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.helpers.defects import _block_gemms, _float_weight, _initializer, _producer

GEMMS = 6  # of a block: q, k, v, out, fc, proj
Q, K, V, OUT, FC, PROJ = range(GEMMS)


def _gemm(model: Any, block: int, which: int) -> Any:
    return _block_gemms(model)[block * GEMMS + which]


def _pair(model: Any, gemm: Any) -> tuple[Any, Any]:
    """QuantizeLinear and DequantizeLinear of a GEMM's activation."""
    dequantize = _producer(model, gemm.input[0])
    return _producer(model, dequantize.input[0]), dequantize


def _softmax(model: Any, block: int) -> Any:
    return [node for node in model.graph.node if node.op_type == "Softmax"][block]


def _reader(model: Any, tensor: str) -> Any:
    return next(node for node in model.graph.node if tensor in node.input)


def _constant(model: Any, name: str, array: np.ndarray) -> str:
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def _set_scale(model: Any, node: Any, value: Any, dtype: type = np.float16) -> None:
    node.input[1] = _constant(model, f"{node.name}/planted_scale", np.asarray(value, dtype))


def _scale(model: Any, node: Any) -> np.ndarray:
    from onnx import numpy_helper

    return numpy_helper.to_array(_initializer(model, node.input[1]))


def _zero_point(model: Any, name: str) -> str:
    import onnx

    model.graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT8E4M3FN, [], [0.0]))
    return name


def _quantize(model: Any, tensor: str, reader: Any, index: int, scale: float) -> tuple[Any, Any]:
    """Put a Q/DQ pair between `tensor` and one input of its reader."""
    import onnx

    name = f"{reader.name}/planted_{index}"
    scale_name = _constant(model, f"{name}/scale", np.float16(scale))
    zero = _zero_point(model, f"{name}/zero")
    quantize = onnx.helper.make_node("QuantizeLinear", [tensor, scale_name, zero], [f"{name}/q"], name=f"{name}/Q")
    dequantize = onnx.helper.make_node("DequantizeLinear", [f"{name}/q", scale_name], [f"{name}/dq"], name=f"{name}/DQ")
    place = next(place for place, node in enumerate(model.graph.node) if node.name == reader.name)
    reader.input[index] = f"{name}/dq"
    model.graph.node.insert(place, dequantize)
    model.graph.node.insert(place, quantize)
    return quantize, dequantize


def _stored(model: Any, gemm: Any) -> tuple[Any, Any, np.ndarray]:
    """A weight's DequantizeLinear, its initializer, and its codes as numbers."""
    from onnx import numpy_helper

    dequantize = _producer(model, gemm.input[1])
    tensor = _initializer(model, dequantize.input[0])
    return dequantize, tensor, numpy_helper.to_array(tensor).astype(np.float32)


def _store(tensor: Any, numbers: np.ndarray) -> None:
    import ml_dtypes

    tensor.raw_data = numbers.astype(ml_dtypes.float8_e4m3fn).tobytes()


def vendor_domain(model: Any, block: int) -> str:
    node = _producer(model, _gemm(model, block, FC).input[1])
    node.domain = "trt"
    return node.name


def no_zero_point(model: Any, block: int) -> str:
    quantize, _ = _pair(model, _gemm(model, block, OUT))
    quantize.input.pop()
    return quantize.name


def integer_zero_point(model: Any, block: int) -> str:
    quantize, _ = _pair(model, _gemm(model, block, OUT))
    quantize.input[2] = _constant(model, f"{quantize.name}/int8", np.int8(0))
    return quantize.name


def float_gemm(model: Any, block: int) -> str:
    gemm = _gemm(model, block, FC)
    quantize, _ = _pair(model, gemm)
    gemm.input[0] = quantize.input[0]
    gemm.input[1] = _float_weight(model, _producer(model, gemm.input[1]))
    return gemm.name


def operator_in_between(model: Any, block: int) -> str:
    import onnx

    gemm = _gemm(model, block, PROJ)
    relu = onnx.helper.make_node("Relu", [gemm.input[0]], [f"{gemm.name}/relu"], name=f"{gemm.name}/Relu")
    model.graph.node.insert(next(place for place, node in enumerate(model.graph.node) if node.name == gemm.name), relu)
    gemm.input[0] = f"{gemm.name}/relu"
    return gemm.name


def softmax_without_v(model: Any, block: int) -> str:
    softmax = _softmax(model, block)
    context = _reader(model, softmax.output[0])
    _quantize(model, softmax.output[0], context, 0, 1 / 448)
    return context.name


def weight_only_gemm(model: Any, block: int) -> str:
    gemm = _gemm(model, block, V)
    gemm.input[0] = _pair(model, gemm)[0].input[0]
    return gemm.name


def weight_unfolded(model: Any, block: int) -> str:
    gemm = _gemm(model, block, FC)
    dequantize = _producer(model, gemm.input[1])
    import onnx

    name = f"{dequantize.name}/unfolded"
    node = onnx.helper.make_node(
        "QuantizeLinear",
        [_float_weight(model, dequantize), dequantize.input[1], _zero_point(model, f"{name}/zero")],
        [name],
        name=f"{dequantize.name}/Q",
    )
    model.graph.node.insert(next(place for place, one in enumerate(model.graph.node) if one.name == dequantize.name), node)
    dequantize.input[0] = name
    return gemm.name


def _both_scales(model: Any, gemm: Any, value: Any, dtype: type = np.float16) -> str:
    quantize, dequantize = _pair(model, gemm)
    for node in (quantize, dequantize):
        _set_scale(model, node, value, dtype)
    return quantize.name


def zero_scale(model: Any, block: int) -> str:
    return _both_scales(model, _gemm(model, block, OUT), 0.0)


def infinite_scale(model: Any, block: int) -> str:
    return _both_scales(model, _gemm(model, block, OUT), np.inf)


def negative_scale(model: Any, block: int) -> str:
    return _both_scales(model, _gemm(model, block, OUT), -0.01)


def nan_scale(model: Any, block: int) -> str:
    return _both_scales(model, _gemm(model, block, OUT), np.nan)


def subnormal_scale(model: Any, block: int) -> str:
    return _both_scales(model, _gemm(model, block, OUT), 2.0**-24)


def scale_of_another_type(model: Any, block: int) -> str:
    return _both_scales(model, _gemm(model, block, OUT), 0.01, np.float32)


def scale_per_input_channel(model: Any, block: int) -> str:
    import onnx

    dequantize, tensor, _ = _stored(model, _gemm(model, block, FC))
    _set_scale(model, dequantize, np.full(tensor.dims[0], _scale(model, dequantize)))
    dequantize.attribute.append(onnx.helper.make_attribute("axis", 0))
    return dequantize.name


def pair_disagrees(model: Any, block: int) -> str:
    _, dequantize = _pair(model, _gemm(model, block, FC))
    _set_scale(model, dequantize, _scale(model, dequantize) / 4)
    return dequantize.name


def range_of_int8(model: Any, block: int) -> str:
    gemm = _gemm(model, block, K)
    dequantize, tensor, numbers = _stored(model, gemm)
    _store(tensor, numbers * 127 / 448)
    _set_scale(model, dequantize, _scale(model, dequantize) * 448 / 127)
    return gemm.name


def nan_code(model: Any, block: int) -> str:
    gemm = _gemm(model, block, PROJ)
    _, tensor, numbers = _stored(model, gemm)
    numbers[3, 5] = np.nan
    _store(tensor, numbers)
    return gemm.name


def other_weight(model: Any, block: int) -> str:
    gemm = _gemm(model, block, Q)
    _, tensor, numbers = _stored(model, gemm)
    _store(tensor, np.roll(numbers, 1, axis=0))
    return gemm.name


def clipped_weight(model: Any, block: int) -> str:
    gemm = _gemm(model, block, V)
    dequantize, tensor, numbers = _stored(model, gemm)
    _store(tensor, np.clip(numbers * 1.25, -448, 448))
    _set_scale(model, dequantize, _scale(model, dequantize) / 1.25)
    return gemm.name


def quantized_twice(model: Any, block: int) -> str:
    gemm = _gemm(model, block, OUT)
    _, dequantize = _pair(model, gemm)
    return _quantize(model, gemm.input[0], gemm, 0, float(_scale(model, dequantize)))[0].name


def quantized_residual(model: Any, block: int) -> str:
    bias = _reader(model, _gemm(model, block, PROJ).output[0])
    return _quantize(model, bias.output[0], _reader(model, bias.output[0]), 1, 0.01)[1].name


def quantized_scores(model: Any, block: int) -> str:
    scores = _producer(model, _softmax(model, block).input[0])
    for index, tensor in enumerate(list(scores.input)):
        _quantize(model, tensor, scores, index, 0.01)
    return scores.name


def quantized_context(model: Any, block: int) -> None:
    """Softmax at 1/448, and V: no defect where attention is promised."""
    softmax = _softmax(model, block)
    context = _reader(model, softmax.output[0])
    _quantize(model, softmax.output[0], context, 0, 1 / 448)
    _quantize(model, context.input[1], context, 1, 0.01)


def no_activation(model: Any, block: int) -> str:
    """The GELU of one block is gone."""
    gemm = _gemm(model, block, PROJ)
    quantize, _ = _pair(model, gemm)
    quantize.input[0] = _producer(model, quantize.input[0]).input[0]
    return gemm.name


def v_left_float(model: Any, block: int) -> str:
    """Of an attention that is quantized, V is not."""
    context = _context(model, block)
    context.input[1] = _producer(model, _producer(model, context.input[1]).input[0]).input[0]
    return context.name


def attention_left_float(model: Any, block: int) -> str:
    """Neither operand of one product of an attention that is quantized."""
    context = _context(model, block)
    for index in range(2):
        context.input[index] = _producer(model, _producer(model, context.input[index]).input[0]).input[0]
    return context.name


def _context(model: Any, block: int) -> Any:
    quantize = _reader(model, _softmax(model, block).output[0])
    return _reader(model, _reader(model, quantize.output[0]).output[0])


def softmax_scale_of_attention(model: Any, block: int) -> str:
    quantize = _reader(model, _softmax(model, block).output[0])
    for node in (quantize, _reader(model, quantize.output[0])):
        _set_scale(model, node, 1 / 127)
    return quantize.name


def quantized_projection(model: Any, block: int) -> str:
    """The head's weight GEMM: there is one, whichever block is asked for."""
    projection = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")][-1]
    for index, tensor in enumerate(list(projection.input[:2])):
        _quantize(model, tensor, projection, index, 0.01)
    return projection.name


def softmax_scale(model: Any, block: int) -> str:
    softmax = _softmax(model, block)
    context = _reader(model, softmax.output[0])
    quantize, _ = _quantize(model, softmax.output[0], context, 0, 1 / 127)
    _quantize(model, context.input[1], context, 1, 0.01)
    return quantize.name


def one_pair_too_many(model: Any, block: int) -> str:
    gemm = _gemm(model, block, OUT)
    quantize, _ = _pair(model, gemm)
    return _quantize(model, quantize.input[0], quantize, 0, 0.01)[0].name


def unequal_shared_scales(model: Any, block: int) -> str:
    quantize, _ = _pair(model, _gemm(model, block, K))
    return _both_scales(model, _gemm(model, block, K), _scale(model, quantize) * 2)


def originals_left_behind(model: Any, block: int) -> None:
    """Float weights of one block, which nothing reads any more."""
    for which in range(GEMMS):
        _float_weight(model, _producer(model, _gemm(model, block, which).input[1]))


def old_opset(model: Any, block: int) -> None:
    model.opset_import[0].version = 19


@dataclass(frozen=True)
class Defect:
    """One way to break a graph, the check meant to find it, and the recipes whose graphs have what it breaks."""

    check: str
    plant: Callable[[Any, int], str | None]
    recipes: tuple[str, ...] = ("linear", "attention")

    @property
    def name(self) -> str:
        return self.plant.__name__


DEFECTS = (
    *(Defect("O1", plant) for plant in (vendor_domain, no_zero_point, integer_zero_point, old_opset)),
    *(Defect("O2", plant) for plant in (float_gemm, operator_in_between)),
    Defect("O3", softmax_without_v, ("linear",)),
    Defect("O3", v_left_float, ("attention",)),
    Defect("O3", weight_only_gemm),
    Defect("O4", weight_unfolded),
    *(Defect("O5", plant) for plant in (zero_scale, infinite_scale, negative_scale, nan_scale, subnormal_scale, scale_of_another_type)),
    Defect("O5", scale_per_input_channel),
    Defect("O6", pair_disagrees),
    *(Defect("O7", plant) for plant in (range_of_int8, nan_code)),
    *(Defect("O8", plant) for plant in (other_weight, clipped_weight)),
    *(Defect("O9", plant) for plant in (quantized_twice, quantized_residual)),
    Defect("O10", quantized_scores, ("linear",)),
    Defect("O10", quantized_projection),
    Defect("O11", no_activation),
    Defect("O12", softmax_scale, ("linear",)),
    *(Defect("O12", plant, ("attention",)) for plant in (softmax_scale_of_attention, attention_left_float)),
    Defect("O12", one_pair_too_many),
    Defect("O13", unequal_shared_scales),
    Defect("O14", originals_left_behind),
)
