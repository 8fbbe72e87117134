"""The engine inspector's JSON, in the spelling of TensorRT 10 and in that of TensorRT 11 and TensorRT-RTX.

| | TensorRT 10 | TensorRT 11, TensorRT-RTX |
| --- | --- | --- |
| inputs and outputs of the engine | `Bindings`, names | `I/O Tensors`, objects, with `DataType` |
| type of an operand | `Format/Datatype` | `Datatype` and `Format` |
| weights of a layer | among its `Inputs` | `Constants` |

Each is told by its key, layer by layer and operand by operand; a document may mix them.

In TensorRT 10.6 (engines of ViT-B-32 for H100 and H200, all recipes) every constant that a Myelin layer reads stands among its
inputs: weights (`__mye99760dconst`), biases, scales, masks, and with a dynamic batch also shapes. What sets them apart is that no
layer writes them and that they are no binding, and by that rule each product has one matrix of weights, of the type it multiplies.
Other layers, such as `CaskConvolution`, list no weights as operands but give their type and number under `Weights` and `Bias`.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from harness.measure.layers.metadata import NoTable, onnx_nodes
from harness.records.observations import LayerRow, LayerTable, LayerTensor

_SOURCE_10 = "engine inspector JSON of TensorRT 10"
_SOURCE_11 = "engine inspector JSON of TensorRT 11"
_NAMES_ONLY = "lists the names of its layers and nothing else: the engine was built with ProfilingVerbosity.LAYER_NAMES_ONLY"

# How a JSON text begins: with an object, or a list of objects, lists or strings. A log begins with a severity in brackets.
_JSON = re.compile(r'\ufeff?\s*(?:\{|\[\s*[\]\[{"])')
# The word for a type in sentences such as "Channel major FP16 format where channel % 8 == 0".
_TYPE = re.compile(r"\b(?:FP\d+|BF16|U?INT\d+|BOOL)\b", re.IGNORECASE)


class _Tensor(msgspec.Struct, kw_only=True):
    name: str = msgspec.field(name="Name")
    dimensions: tuple[int, ...] = msgspec.field(name="Dimensions", default=())
    datatype: str | None = msgspec.field(name="Datatype", default=None)  # of a layer's operand
    data_type: str | None = msgspec.field(name="DataType", default=None)  # of a port
    format: str = msgspec.field(name="Format", default="")
    format_and_datatype: str | None = msgspec.field(name="Format/Datatype", default=None)


class _Layer(msgspec.Struct, kw_only=True):
    name: str = msgspec.field(name="Name")
    kind: str = msgspec.field(name="LayerType")
    inputs: tuple[_Tensor, ...] = msgspec.field(name="Inputs")
    constants: tuple[_Tensor, ...] | None = msgspec.field(name="Constants", default=None)
    outputs: tuple[_Tensor, ...] = msgspec.field(name="Outputs")
    weights: Any = msgspec.field(name="Weights", default=None)
    bias: Any = msgspec.field(name="Bias", default=None)
    tactic: str = msgspec.field(name="TacticName", default="")
    stream: int | None = msgspec.field(name="StreamId", default=None)
    metadata: str = msgspec.field(name="Metadata", default="")


class _Document(msgspec.Struct, kw_only=True):
    layers: tuple[_Layer | str, ...] = msgspec.field(name="Layers")
    bindings: tuple[str, ...] | None = msgspec.field(name="Bindings", default=None)
    ports: tuple[_Tensor, ...] | None = msgspec.field(name="I/O Tensors", default=None)


def is_json(text: str) -> bool:
    """Whether a text begins as a JSON object or a list does."""
    return _JSON.match(text) is not None


def read_inspector(text: str) -> LayerTable:
    """The table in an inspector's document.

    Raises:
        NoTable: it is cut, no inspector's, or lists names only.
    """
    document = _document(text)
    if document.layers and all(isinstance(layer, str) for layer in document.layers):
        raise NoTable(_NAMES_ONLY)
    layers = tuple(layer for layer in document.layers if not isinstance(layer, str))
    if len(layers) < len(document.layers):
        raise NoTable(f"gives {len(document.layers) - len(layers)} of its {len(document.layers)} layers by name only")
    if document.ports is not None:
        names, source = {port.name for port in document.ports}, _SOURCE_11
    elif document.bindings is not None:
        names, source = set(document.bindings), _SOURCE_10
    else:
        raise NoTable('names no inputs and outputs of the engine; expected "I/O Tensors" or "Bindings" beside "Layers"')
    computed = names | {tensor.name for layer in layers for tensor in layer.outputs}
    rows = tuple(_row(layer, computed) for layer in layers)
    ports = tuple(map(_tensor, document.ports)) if document.ports is not None else _ports(document.bindings or (), rows)
    lists_constants = any(layer.constants is not None for layer in layers) or any(row.constants for row in rows)
    return LayerTable(rows=rows, source=source, ports=ports, lists_constants=lists_constants)


def _document(text: str) -> _Document:
    try:
        # Not strict, since names may hold control characters that a document carries as they are.
        plain = json.loads(text.removeprefix("\ufeff"), strict=False)
    except json.JSONDecodeError as error:
        raise NoTable(f"is no whole JSON document: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except (RecursionError, ValueError) as error:  # a number of thousands of digits, or brackets as deep
        raise NoTable(f"is JSON that cannot be read: {error}") from error
    if not isinstance(plain, dict) or not isinstance(plain.get("Layers"), list):
        raise NoTable('is JSON but no engine inspector\'s document: expected an object with a list "Layers"')
    try:
        return msgspec.convert(plain, _Document)
    except msgspec.ValidationError as error:
        raise NoTable(f"is not what an engine inspector writes: {error}") from error


def _row(layer: _Layer, computed: set[str]) -> LayerRow:
    """One layer; without a list of constants, those inputs are constants that nothing computes."""
    inputs, constants = layer.inputs, layer.constants
    if constants is None:
        constants = tuple(tensor for tensor in inputs if tensor.name not in computed)
        inputs = tuple(tensor for tensor in inputs if tensor.name in computed)
    return LayerRow(
        name=layer.name,
        kind=layer.kind,
        inputs=tuple(map(_tensor, inputs)),
        constants=(*map(_tensor, constants), *_parameters(layer)),
        outputs=tuple(map(_tensor, layer.outputs)),
        tactic=layer.tactic,
        onnx_nodes=onnx_nodes(layer.metadata),
        stream=layer.stream,
    )


def _parameters(layer: _Layer) -> tuple[LayerTensor, ...]:
    """Weights and bias that a layer has without reading them as operands, flat, since their shape is not given."""
    found: list[LayerTensor] = []
    for name, given in (("Weights", layer.weights), ("Bias", layer.bias)):
        match given:
            case {"Type": str(datatype), "Count": int(count)} if count > 0:
                found.append(LayerTensor(name=name, shape=(count,), datatype=datatype))
            case _:
                pass  # an attribute of another layer's kind that happens to share the name
    return tuple(found)


def _tensor(tensor: _Tensor) -> LayerTensor:
    sentence = tensor.format_and_datatype
    datatype = tensor.datatype or tensor.data_type
    if datatype is None and sentence is not None:
        word = _TYPE.search(sentence)
        datatype = word.group() if word else sentence
        return LayerTensor(name=tensor.name, shape=tensor.dimensions, datatype=datatype, format="" if datatype == sentence else sentence)
    if datatype is None:
        raise NoTable(f'gives no type for {tensor.name}; expected "Datatype" or "Format/Datatype"')
    return LayerTensor(name=tensor.name, shape=tensor.dimensions, datatype=datatype, format=tensor.format)


def _ports(names: tuple[str, ...], rows: tuple[LayerRow, ...]) -> tuple[LayerTensor, ...]:
    """Bindings, of the type and shape that layers read and write them with.

    A tensor has one type for all layers, but each may see it in its own shape. None where a binding cannot be typed.
    """
    seen: dict[str, list[LayerTensor]] = {name: [] for name in names}
    for row in rows:
        for tensor in (*row.inputs, *row.outputs):
            if tensor.name in seen:
                seen[tensor.name].append(tensor)
    if not all(len({tensor.datatype for tensor in found}) == 1 for found in seen.values()):
        return ()
    return tuple(found[0] for found in seen.values())
