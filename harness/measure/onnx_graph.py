"""Reads an ONNX file into the record that judges see. Large weights are counted, never converted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UnusableGraph
from harness.need import need
from harness.records.graph import OnnxConstant, OnnxGraph, OnnxNode, OnnxPort

SMALL_ELEMENTS = 64  # constants up to this size keep their values: scales, zero points, shapes and axes

# Bits an element of the packed types takes in a file; the others are as wide as numpy's.
_PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
_DEFAULT_DOMAIN = "ai.onnx"  # also written as the empty string, which is what records hold


def read_onnx_graph(path: Path) -> OnnxGraph:
    """The graph of an ONNX file.

    Constants are its initializers and the values of its Constant nodes; the latter are listed among the nodes as well.

    Raises:
        UnusableGraph: the file is missing, cut or no ONNX; it has control flow, local functions or sparse weights; or its
            external data is missing, too short, or outside its folder.
    """
    model = _parsed(path)
    graph = model.graph
    _require_plain(model, path)
    constants = {constant.name: constant for constant in _constants(graph, path)}
    return OnnxGraph(
        nodes=tuple(_node(node) for node in graph.node),
        constants=constants,
        inputs=tuple(_port(value) for value in graph.input if value.name not in constants),
        outputs=tuple(_port(value) for value in graph.output),
        opsets={_domain(opset.domain): opset.version for opset in model.opset_import},
        shapes=_shapes(model),
    )


def _parsed(path: Path) -> Any:
    onnx = need("onnx", extra=None, to="read ONNX files")
    protobuf = need("google.protobuf.message", extra=None, to="read ONNX files")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except OSError as error:
        raise UnusableGraph(f"{path} cannot be read ({error.strerror}); expected an ONNX file") from error
    except protobuf.DecodeError as error:
        raise UnusableGraph(f"{path} is cut or is no ONNX file ({error}); export it again") from error
    if not model.graph.node:
        raise UnusableGraph(f"{path} holds no nodes; expected an ONNX encoder; export it again")
    return model


def _require_plain(model: Any, path: Path) -> None:
    """What the graph checks cannot see through is refused rather than half read."""
    nested = next((node for node in model.graph.node if _has_subgraph(node)), None)
    if nested is not None:
        raise UnusableGraph(
            f"{path} has control flow: node {nested.name!r} ({nested.op_type}) holds a graph of its own; "
            "expected a plain encoder; export it without control flow"
        )
    if model.functions:
        names = ", ".join(function.name for function in model.functions[:3])
        raise UnusableGraph(f"{path} defines functions of its own ({names}); expected plain nodes; inline them with onnx.inliner")
    if model.graph.sparse_initializer:
        raise UnusableGraph(f"{path} has sparse weights; expected dense ones; export it again")


def _has_subgraph(node: Any) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _node(node: Any) -> OnnxNode:
    return OnnxNode(
        name=node.name,
        op_type=node.op_type,
        domain=_domain(node.domain),
        inputs=tuple(node.input),
        outputs=tuple(node.output),
    )


def _domain(domain: str) -> str:
    return "" if domain == _DEFAULT_DOMAIN else domain


def _port(value: Any) -> OnnxPort:
    onnx = need("onnx", extra=None, to="read ONNX files")
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim)
    return OnnxPort(name=value.name, dtype=onnx.TensorProto.DataType.Name(tensor.elem_type), shape=shape)


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Tensor name to shape with the first axis of every input set to one; what ONNX cannot infer is left out.

    Weights count as inputs, so that inference copies no bytes, and Q/DQ nodes of vendors' domains as ONNX's own.
    """
    onnx = need("onnx", extra=None, to="read ONNX files")
    graph = onnx.GraphProto(name="shapes", node=model.graph.node, output=model.graph.output)
    for node in graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            node.domain = ""
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in weights:
            graph.input.append(_one_row(value))
    for tensor in model.graph.initializer:
        if _elements(tensor.dims) <= SMALL_ELEMENTS and tensor.data_location != onnx.TensorProto.EXTERNAL:
            graph.initializer.append(tensor)  # shapes are computed from it
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError):  # an opset too new or too old: then no shape is known
        return {}
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name: shape for value in values if (shape := _known_shape(value)) is not None}


def _one_row(value: Any) -> Any:
    onnx = need("onnx", extra=None, to="read ONNX files")
    row = onnx.ValueInfoProto()
    row.CopyFrom(value)
    if row.type.tensor_type.shape.dim and not row.type.tensor_type.shape.dim[0].dim_value:
        row.type.tensor_type.shape.dim[0].dim_value = 1
    return row


def _known_shape(value: Any) -> tuple[int, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if sizes and sizes[0] is None:
        sizes[0] = 1  # rows picked by computed indices, such as each text's last token: inference does not see that they are the batch
    return tuple(size for size in sizes if size is not None) if None not in sizes else None


def _elements(dims: Iterable[int]) -> int:
    return int(np.prod(tuple(dims), dtype=np.int64))


def _constants(graph: Any, path: Path) -> Iterator[OnnxConstant]:
    for tensor in graph.initializer:
        yield _constant(tensor, tensor.name, path)
    for node in graph.node:
        if node.op_type == "Constant" and not _domain(node.domain):
            tensor = _constant_tensor(node)
            if tensor is not None:
                yield _constant(tensor, node.output[0], path)


def _constant_tensor(node: Any) -> Any:
    """The tensor a Constant node gives; None for strings, which no check reads."""
    onnx = need("onnx", extra=None, to="read ONNX files")
    numbers = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t
        if attribute.name in numbers:
            value = onnx.helper.get_attribute_value(attribute)
            return onnx.numpy_helper.from_array(np.asarray(value, numbers[attribute.name]), node.output[0])
    return None


def _constant(tensor: Any, name: str, path: Path) -> OnnxConstant:
    onnx = need("onnx", extra=None, to="read ONNX files")
    dtype = onnx.TensorProto.DataType.Name(tensor.data_type)
    shape = tuple(tensor.dims)
    elements = _elements(shape)
    expected = _stored_bytes(dtype, tensor.data_type, elements)
    _require_bytes(tensor, name, expected, path)
    return OnnxConstant(
        name=name,
        dtype=dtype,
        shape=shape,
        nbytes=expected or 0,
        value=_value(tensor, name, path) if elements <= SMALL_ELEMENTS and expected is not None else None,
    )


def _stored_bytes(dtype: str, data_type: int, elements: int) -> int | None:
    """Bytes `elements` take in a file; None for strings."""
    if dtype == "STRING":
        return None
    onnx = need("onnx", extra=None, to="read ONNX files")
    bits = _PACKED_BITS.get(dtype) or 8 * onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize
    return -(-elements * bits // 8)


def _require_bytes(tensor: Any, name: str, expected: int | None, path: Path) -> None:
    """Raise when a tensor's bytes, in the file or beside it, are not as many as its shape says."""
    onnx = need("onnx", extra=None, to="read ONNX files")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        _require_external(tensor, name, expected or 0, path)
    elif tensor.HasField("raw_data") and len(tensor.raw_data) != expected:
        raise UnusableGraph(
            f"{path}: constant {name!r} holds {len(tensor.raw_data)} bytes; its shape {list(tensor.dims)} needs {expected}; export it again"
        )


def _require_external(tensor: Any, name: str, expected: int, path: Path) -> None:
    facts = {entry.key: entry.value for entry in tensor.external_data}
    location = facts.get("location", "")
    folder = path.parent.resolve()
    data = (folder / location).resolve()
    if not location or PurePosixPath(location).is_absolute() or not data.is_relative_to(folder):
        raise UnusableGraph(f"{path}: constant {name!r} keeps its bytes in {location!r}, outside the file's folder; save them beside it")
    if not data.is_file():
        raise UnusableGraph(f"{path}: constant {name!r} keeps its bytes in {location!r}, which is not there; copy it beside the ONNX file")
    end = int(facts.get("offset", 0)) + expected
    if data.stat().st_size < end:
        raise UnusableGraph(f"{path}: {location} holds {data.stat().st_size} bytes; constant {name!r} ends at {end}; copy the whole file")


def _value(tensor: Any, name: str, path: Path) -> NDArray[np.generic]:
    """float64 or int64 values, shaped as stored."""
    onnx = need("onnx", extra=None, to="read ONNX files")
    try:
        array = onnx.numpy_helper.to_array(tensor, str(path.parent))
    except (ValueError, TypeError) as error:
        raise UnusableGraph(f"{path}: constant {name!r} cannot be read ({error}); export it again") from error
    # bool and the integers by kind; FP8, bfloat16 and the 4-bit types, which numpy does not know, by name.
    whole = array.dtype.kind in "biu" or array.dtype.name in {"int4", "uint4", "int2", "uint2"}
    return array.astype(np.int64 if whole else np.float64)
