"""Reads an ONNX file into the record that judges see. Large weights are counted, never loaded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UnusableGraph
from harness.measure.onnx_file import OpenedOnnx, open_onnx
from harness.measure.onnx_order import require_acyclic
from harness.measure.onnx_shapes import inferred_tensors
from harness.need import need
from harness.records.graph import ByteSpan, OnnxConstant, OnnxGraph, OnnxNode, OnnxPort

SMALL_ELEMENTS = 64  # constants up to this size keep their values: zero points, shapes and axes
SCALE_ELEMENTS = 1 << 20  # scales do up to this size: one an output channel, or one a row of a vocabulary

# Bits an element of the packed types takes in a file; the others are as wide as numpy's.
_PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
_WHOLE = (2, 7)  # AttributeProto.INT and INTS
_QDQ = ("QuantizeLinear", "DequantizeLinear", "TRT_FP8QuantizeLinear", "TRT_FP8DequantizeLinear")
# Inputs that the operators which checks read must have.
_LEAST_INPUTS = {
    **dict.fromkeys(_QDQ, 2),
    **dict.fromkeys(("MatMul", "Gemm", "Conv", "ConvTranspose", "Gather"), 2),
    **dict.fromkeys(("Cast", "Flatten", "Identity", "Reshape", "Softmax", "Squeeze", "Transpose", "Unsqueeze"), 1),
}
_DEFAULT_DOMAIN = "ai.onnx"  # also written as the empty string, which is what records hold


def read_onnx_graph(path: Path) -> OnnxGraph:
    """The graph of an ONNX file. Weights are neither loaded nor copied.

    Constants are its initializers and the values of its Constant nodes; the latter are listed among the nodes as well.

    Raises:
        UnusableGraph: the file is missing, cut or no ONNX; it has control flow, cycles, local functions or sparse weights; it
            gives nothing out; two initializers share a name; one has no type; or its external data is missing, unreadable, too
            short, or outside its folder.
    """
    opened = open_onnx(path)
    model, graph = opened.model, opened.model.graph
    _require_plain(model, path)
    _require_whole(model, path)
    require_acyclic(graph, path)
    constants = {constant.name: constant for constant in _constants(opened, path)}
    inputs = tuple(_port(value) for value in graph.input if value.name not in constants)
    outside = {constant.span.path: constant.span.path.stat().st_size for constant in constants.values() if constant.span}
    return OnnxGraph(
        nodes=tuple(_node(node) for node in graph.node),
        constants=constants,
        inputs=inputs,
        outputs=tuple(_port(value) for value in graph.output),
        opsets={_domain(opset.domain): opset.version for opset in model.opset_import},
        tensors=inferred_tensors(model),
        file_bytes=sum({**outside, path: opened.nbytes}.values()),
    )


def _require_plain(model: Any, path: Path) -> None:
    """What the graph checks cannot see through is refused rather than half read."""
    if not model.graph.node:
        raise UnusableGraph(f"{path} holds no nodes; expected an ONNX encoder; export it again")
    if not model.graph.output:
        raise UnusableGraph(f"{path} gives nothing out; expected an encoder with one output; export it again")
    nested = next((node for node in model.graph.node if _has_subgraph(node)), None)
    if nested is not None:
        raise UnusableGraph(
            f"{path} has control flow: node {nested.name!r} ({nested.op_type}) holds a graph of its own; "
            "expected a plain encoder; export it without control flow"
        )
    if model.functions:
        names = ", ".join(function.name for function in model.functions[:3])
        raise UnusableGraph(f"{path} defines functions of its own ({names}); expected plain nodes; inline them with onnx.inliner")
    names = Counter(tensor.name for tensor in model.graph.initializer)
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        raise UnusableGraph(f"{path} gives the initializer {twice!r} twice; expected one of each name; export it again")
    if model.graph.sparse_initializer:
        raise UnusableGraph(f"{path} has sparse weights; expected dense ones; export it again")


def _require_whole(model: Any, path: Path) -> None:
    """Raise when a node lacks what its operator needs, or a name is no text."""
    for node in model.graph.node:
        if not all(isinstance(text, str) for text in (node.name, node.op_type, node.domain, *node.input, *node.output)):
            raise UnusableGraph(f"{path} has a node whose name is no UTF-8; the file is damaged; export it again")
        least = _LEAST_INPUTS.get(node.op_type, 0)
        given = node.input[:least]
        if len(given) < least or not all(given) or not node.output:
            raise UnusableGraph(
                f"{path}: node {node.name!r} ({node.op_type}) has {sum(map(bool, node.input))} inputs and {len(node.output)} outputs; "
                f"expected at least {least} and 1; export it again"
            )
    if not all(isinstance(tensor.name, str) for tensor in model.graph.initializer):
        raise UnusableGraph(f"{path} has an initializer whose name is no UTF-8; the file is damaged; export it again")


def _has_subgraph(node: Any) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _node(node: Any) -> OnnxNode:
    return OnnxNode(
        name=node.name,
        op_type=node.op_type,
        domain=_domain(node.domain),
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={attribute.name: _whole(attribute) for attribute in node.attribute if attribute.type in _WHOLE},
    )


def _whole(attribute: Any) -> int | tuple[int, ...]:
    return attribute.i if attribute.type == _WHOLE[0] else tuple(attribute.ints)


def _domain(domain: str) -> str:
    return "" if domain == _DEFAULT_DOMAIN else domain


def _port(value: Any) -> OnnxPort:
    onnx = need("onnx", extra=None, to="read ONNX files")
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim)
    return OnnxPort(name=value.name, dtype=onnx.TensorProto.DataType.Name(tensor.elem_type), shape=shape)


def _elements(dims: Iterable[int]) -> int:
    return int(np.prod(tuple(dims), dtype=np.int64))


def _constants(opened: OpenedOnnx, path: Path) -> Iterator[OnnxConstant]:
    graph = opened.model.graph
    most = defaultdict(lambda: SMALL_ELEMENTS, {node.input[1]: SCALE_ELEMENTS for node in graph.node if node.op_type in _QDQ})
    for tensor in graph.initializer:
        yield _constant(tensor, tensor.name, path, opened.spans.get(tensor.name), most[tensor.name])
    for node in graph.node:
        if node.op_type == "Constant" and not _domain(node.domain):
            tensor = _constant_tensor(node)
            if tensor is not None:
                yield _constant(tensor, node.output[0], path, None, most[node.output[0]])


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


def _constant(tensor: Any, name: str, path: Path, span: ByteSpan | None, most: int) -> OnnxConstant:
    """One initializer, whose values are kept up to `most` elements."""
    onnx = need("onnx", extra=None, to="read ONNX files")
    if tensor.data_type not in onnx.TensorProto.DataType.values() or tensor.data_type == onnx.TensorProto.UNDEFINED:
        raise UnusableGraph(f"{path}: constant {name!r} is of type {tensor.data_type}, which ONNX does not define; export it again")
    dtype = onnx.TensorProto.DataType.Name(tensor.data_type)
    shape = tuple(tensor.dims)
    elements = _elements(shape)
    expected = _stored_bytes(dtype, tensor.data_type, elements)
    span = _required_span(tensor, name, expected, path, span)
    return OnnxConstant(
        name=name,
        dtype=dtype,
        shape=shape,
        nbytes=expected or 0,
        value=_value(_with_data(tensor, span), name, path) if elements <= most and expected is not None else None,
        span=span,
    )


def _stored_bytes(dtype: str, data_type: int, elements: int) -> int | None:
    """Bytes `elements` take in a file; None for strings."""
    if dtype == "STRING":
        return None
    onnx = need("onnx", extra=None, to="read ONNX files")
    bits = _PACKED_BITS.get(dtype) or 8 * onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize
    return -(-elements * bits // 8)


def _required_span(tensor: Any, name: str, expected: int | None, path: Path, span: ByteSpan | None) -> ByteSpan | None:
    """Where a tensor's bytes lie, in the file or beside it; raise when they are not as many as its shape says."""
    onnx = need("onnx", extra=None, to="read ONNX files")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return _required_external(tensor, name, expected or 0, path)
    found = span.nbytes if span else len(tensor.raw_data) if tensor.HasField("raw_data") else None
    if found not in (None, expected):
        raise UnusableGraph(
            f"{path}: constant {name!r} holds {found} bytes; its shape {list(tensor.dims)} needs {expected}; export it again"
        )
    return span


def _required_external(tensor: Any, name: str, expected: int, path: Path) -> ByteSpan:
    facts = {entry.key: entry.value for entry in tensor.external_data}
    offset = _external_number(facts, "offset", name, path) or 0
    length = _external_number(facts, "length", name, path)
    if length is not None and length != expected:
        raise UnusableGraph(
            f"{path}: constant {name!r} keeps {length} bytes; its shape {list(tensor.dims)} needs {expected}; export it again"
        )
    location = facts.get("location", "")
    folder = path.parent.resolve()
    data = (folder / location.replace("\0", "?")).resolve()
    if not location or PurePosixPath(location).is_absolute() or not data.is_relative_to(folder):
        raise UnusableGraph(f"{path}: constant {name!r} keeps its bytes in {location!r}, outside the file's folder; save them beside it")
    if not _is_file(data, path):
        raise UnusableGraph(f"{path}: constant {name!r} keeps its bytes in {location!r}, which is not there; copy it beside the ONNX file")
    end = offset + expected
    if data.stat().st_size < end:
        raise UnusableGraph(f"{path}: {location} holds {data.stat().st_size} bytes; constant {name!r} ends at {end}; copy the whole file")
    return ByteSpan(path=data, offset=offset, nbytes=expected)


def _with_data(tensor: Any, span: ByteSpan | None) -> Any:
    """The tensor with the raw data that was left in the file, if it was."""
    onnx = need("onnx", extra=None, to="read ONNX files")
    if span is None or tensor.HasField("raw_data") or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return tensor
    whole = onnx.TensorProto()
    whole.CopyFrom(tensor)
    with span.path.open("rb") as file:
        file.seek(span.offset)
        whole.raw_data = file.read(span.nbytes)
    return whole


def _external_number(facts: dict[str, str], key: str, name: str, path: Path) -> int | None:
    if key not in facts:
        return None
    if not facts[key].isascii() or not facts[key].isdigit():
        raise UnusableGraph(f"{path}: constant {name!r} has the {key} {facts[key]!r}; expected a whole number of bytes; export it again")
    return int(facts[key])


def _is_file(data: Path, path: Path) -> bool:
    try:
        with data.open("rb"):
            return data.is_file()
    except (FileNotFoundError, IsADirectoryError):
        return False
    except OSError as error:  # no right to it, or a name that is too long
        raise UnusableGraph(f"{path}: its external data {data.name[:80]!r} cannot be read ({error.strerror}); make it readable") from error


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
