"""Diagnostic copies of an exported graph: with its hidden tensors given out, or cut down to a few of its nodes.

They are made in memory of the very file that an engine was built from, and are not that engine: giving a tensor out keeps a compiler
from fusing across it, so the engine under test is never made to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.errors import InvalidMeasurement
from harness.prepare.onnx_edit import inferred_types, read_instead

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

Swaps = Mapping[str, "str | NDArray[np.generic]"]


class DiagnosticCopy:
    """An exported graph, to be copied in parts.

    Args:
        path: the ONNX file, with its weights in it.
    """

    def __init__(self, path: Path) -> None:
        import onnx

        self._model = onnx.load(path)
        ports = [*self._model.graph.input, *self._model.graph.output]
        self._types = {info.name: info.type.tensor_type.elem_type for info in inferred_types(self._model).values()}
        self._types |= {port.name: port.type.tensor_type.elem_type for port in ports}

    def giving_out(self, tensors: Sequence[str]) -> bytes:
        """The whole graph, with these tensors among its outputs, as an ONNX file's content.

        Raises:
            InvalidMeasurement: the type of one cannot be inferred.
        """
        copy = _copy_of(self._model)
        known = {output.name for output in copy.graph.output}
        copy.graph.output.extend(self._port(name) for name in tensors if name not in known)
        return copy.SerializeToString()

    def between(self, nodes: Sequence[str], starts: Sequence[str], end: str, swaps: Swaps) -> bytes:
        """Some nodes of the graph alone, as an ONNX file's content.

        Args:
            nodes: names of those that `end` is computed by.
            starts: tensors that become inputs, beside the graph's own inputs where they are read.
            end: the only output.
            swaps: what is read in place of a tensor: another tensor, or numbers, which get the tensor's type.

        Raises:
            InvalidMeasurement: the type of a tensor cannot be inferred.
        """
        import onnx

        kept = set(nodes)
        graph = onnx.GraphProto(name=self._model.graph.name, output=[self._port(end)])
        graph.node.extend(node for node in self._model.graph.node if node.name in kept)
        for old, new in swaps.items():
            read_instead(graph.node, old, new if isinstance(new, str) else self._constant(graph, f"{old}/exact", old, new))
        read = {name for node in graph.node for name in node.input}
        graph.initializer.extend(tensor for tensor in self._model.graph.initializer if tensor.name in read)
        graph.input.extend(self._port(name) for name in dict.fromkeys(starts) if name in read)
        graph.input.extend(port for port in self._model.graph.input if port.name in read and port.name not in starts)
        return onnx.ModelProto(
            ir_version=self._model.ir_version, opset_import=self._model.opset_import, functions=self._model.functions, graph=graph
        ).SerializeToString()

    def dtype(self, tensor: str) -> np.dtype[np.generic]:
        """The type that a tensor is computed in.

        Raises:
            InvalidMeasurement: it cannot be inferred.
        """
        import onnx

        return onnx.helper.tensor_dtype_to_np_dtype(self._type(tensor))

    def _port(self, tensor: str) -> ValueInfoProto:
        import onnx

        return onnx.helper.make_tensor_value_info(tensor, self._type(tensor), None)

    def _constant(self, graph: GraphProto, name: str, like: str, numbers: NDArray[np.generic]) -> str:
        import onnx

        graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(numbers.astype(self.dtype(like))), name))
        return name

    def _type(self, tensor: str) -> int:
        found = self._types.get(tensor, 0)
        if not found:
            raise InvalidMeasurement(
                f"the type of {tensor} cannot be inferred, so the graph cannot be cut there; look at it with check-graph"
            )
        return found


def _copy_of(model: ModelProto) -> ModelProto:
    copy = type(model)()
    copy.CopyFrom(model)
    return copy
