"""A build log as TensorRT-RTX would write it if it fused everything: what the fake backend leaves for layer tables to be read from.

One `gemm` layer for every MatMul or Gemm with weights, in FP8 when both operands are dequantized; one `_gemm_mha_v2` layer for
every attention; one `kgen` layer for all the rest. No real compiler made it, and no figure in it says anything about one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UnusableGraph
from harness.need import need

_GEMMS = frozenset({"MatMul", "Gemm"})
# What may lie between a weight and the product that reads it, or between an attention's products and its Softmax.
_UNARY = frozenset({"Cast", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Transpose"})
_SCORING = _UNARY | {"Add", "Div", "Mul", "Where"}
_ATTENTION = "_gemm_mha_v2"
_FORMAT = "(Linear) Row major linear format"


def ideal_build_log(source: Path) -> str:
    """The log of an ideal build of an ONNX file.

    Raises:
        UnusableGraph: the file cannot be read.
    """
    onnx = need("onnx", extra=None, to="read ONNX files")
    try:
        graph = onnx.load(str(source), load_external_data=False).graph
    # Reading raises the errors of the file system and of protobuf, which share no base; all mean the file is unusable.
    except Exception as error:
        raise UnusableGraph(f"{source.name} cannot be read: {error}; expected an ONNX file") from error
    weights = sum(len(tensor.raw_data) for tensor in graph.initializer)
    rows = "\n".join(_IdealEngine(graph).rows())
    return (
        f"[INFO] Total Activation Memory: 0 bytes\n[INFO] Total Weights Memory: {weights} bytes\n"
        f"[VERBOSE] Layers:\n{rows}\n\nI/O Tensors:\n\nEngine Metadata:\n"
    )


class _IdealEngine:
    """Which nodes of a graph share a layer."""

    def __init__(self, graph: Any) -> None:
        self._nodes = list(graph.node)
        self._weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self._producers = {name: node for node in graph.node for name in node.output}
        self._consumers = {name: node for node in reversed(graph.node) for name in node.input}

    def rows(self) -> Iterator[str]:
        """The lines of the table."""
        placed: set[str] = set()
        for node in self._nodes:
            layer = self._layer(node)
            if layer:
                members, kind, constants = layer
                placed.update(member.name for member in members)
                name = _ATTENTION if kind == "kgen" else node.name
                yield _row(name, kind, self._datatype(members[-1]), constants, members)
        rest = [node for node in self._nodes if node.name not in placed]
        if rest:
            yield _row("rest", "kgen", "Half", [], rest)

    def _layer(self, node: Any) -> tuple[list[Any], str, list[tuple[int, ...]]] | None:
        """Members, kind and weight shapes of the layer that `node` heads; None for a node that heads none."""
        if node.op_type == "Softmax":
            scores = self._search(node, forward=False)
            context = self._search(node, forward=True)
            return ([scores, node, context], "kgen", []) if scores and context else None
        if node.op_type in _GEMMS:
            shapes = [self._weights[name] for name in map(self._origin, node.input[:2]) if name in self._weights]
            return ([*self._dequantizers(node), node], "gemm", shapes) if shapes else None
        return None

    def _origin(self, tensor: str) -> str:
        """Where a tensor comes from, before types and layouts were changed."""
        while (node := self._producers.get(tensor)) is not None and _op(node) in _UNARY:
            tensor = node.input[0]
        return tensor

    def _dequantizers(self, node: Any) -> list[Any]:
        makers = (self._producers.get(name) for name in node.input[:2])
        return [maker for maker in makers if maker is not None and _op(maker) == "DequantizeLinear"]

    def _datatype(self, product: Any) -> str:
        return "FP8" if len(self._dequantizers(product)) == 2 else "Half"

    def _search(self, node: Any, *, forward: bool) -> Any:
        """The nearest product before or after a Softmax."""
        neighbours, names = (self._consumers, node.output) if forward else (self._producers, node.input)
        for candidate in filter(None, map(neighbours.get, names)):
            if candidate.op_type == "MatMul":
                return candidate
            found = self._search(candidate, forward=forward) if _op(candidate) in _SCORING else None
            if found is not None:
                return found
        return None


def _op(node: Any) -> str:
    return node.op_type.removeprefix("TRT_FP8")


def _row(name: str, kind: str, datatype: str, constants: Iterable[Sequence[int]], members: Iterable[Any]) -> str:
    operands = [_tensor(f"{name}_in_{index}", [-1, 1], datatype) for index in range(3 if name == _ATTENTION else 1)]  # q, k and v
    weights = [_tensor(f"{name}_weights_{index}", shape, datatype) for index, shape in enumerate(constants)]
    nodes = "\x1f".join(f"[ONNX Layer: {member.name}]" for member in members)
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: {_list(operands)}, Constants: {_list(weights)}, "
        f"Outputs: {_list([_tensor(f'{name}_out', [-1, 1], 'Half')])}, TacticName: ideal, StreamId: 0, Metadata: {nodes}"
    )


def _list(tensors: Sequence[str]) -> str:
    return f"[ {', '.join(tensors)}]" if tensors else "[]"


def _tensor(name: str, shape: Sequence[int], datatype: str) -> str:
    dimensions = ",".join(map(str, shape))
    return f"{{ Name: {name}, Dimensions: [{dimensions}], Strides: [], StrideOrder: [], Datatype: {datatype}, Format: {_FORMAT} }}"
