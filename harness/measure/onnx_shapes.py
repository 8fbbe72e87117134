"""Types and shapes of what an ONNX graph computes, by ONNX's own inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.need import need
from harness.records.graph import OnnxPort

# Operators of Model Optimizer and TensorRT that mean what ONNX's of these names mean.
_MEANT = {"TRT_FP8QuantizeLinear": "QuantizeLinear", "TRT_FP8DequantizeLinear": "DequantizeLinear"}
_VENDOR_DOMAIN = "trt"
# Files that claim an older opset than their operators need are read as what they mean; before 13 operators meant other things.
_READ_AS_OPSET, _OLDEST_ALIKE = 20, 13


def inferred_tensors(model: Any) -> Mapping[str, OnnxPort]:
    """What nodes compute, by tensor name, where dtype and shape can be inferred. A dynamic axis counts as 1.

    Args:
        model: its large constants may lack their data: only their shapes matter. It is not changed.
    """
    onnx = need("onnx", extra=None, to="infer shapes")
    try:
        inferred = onnx.shape_inference.infer_shapes(_static(model), data_prop=True)
    # The library raises its own errors and plain ones of its C++ part; a graph without shapes is judged without them.
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, TypeError):
        return {}
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    ports = (_port(value) for value in values)
    return {port.name: port for port in ports if port is not None}


def _static(model: Any) -> Any:
    """A copy with one row, in standard operators, and without what the file claims about tensors inside."""
    copy = type(model)()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in (*copy.graph.input, *copy.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = 1
    for opset in copy.opset_import:
        if not opset.domain and opset.version >= _OLDEST_ALIKE:
            opset.version = max(opset.version, _READ_AS_OPSET)
    for node in copy.graph.node:
        node.op_type = _MEANT.get(node.op_type, node.op_type)
        node.domain = "" if node.domain == _VENDOR_DOMAIN else node.domain
    return copy


def _port(value: Any) -> OnnxPort | None:
    onnx = need("onnx", extra=None, to="infer shapes")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if sizes and sizes[0] is None:
        sizes[0] = 1  # rows picked by computed indices, such as each text's last token: inference does not see that they are the batch
    shape = tuple(size for size in sizes if size is not None)
    if len(shape) != len(sizes):
        return None
    return OnnxPort(name=value.name, dtype=onnx.TensorProto.DataType.Name(tensor.elem_type), shape=shape)
