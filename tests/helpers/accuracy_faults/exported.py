"""An exported graph to be broken: the structure of the clean one says where, and a few verbs say how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.judge.structure import MOVES, QDQ, QUANTIZE, Block, GraphView, WeightGemm
from harness.prepare.onnx_edit import Wiring, read_instead, remove_nodes_making, remove_unread_initializers
from tests.helpers.accuracy_faults.fault import Clean, Subject, unbroken

GEMMS = ("q", "k", "v", "out", "fc", "proj")

_QDQ_AND_MOVES = QDQ | MOVES

Edits = Mapping[str, Callable[[], None]]


@dataclass(frozen=True)
class GraphFault:
    """The graph is another one: by place, what is done to it."""

    kind: str
    edits: Callable[[Exported], Edits]

    def places(self, clean: Clean) -> tuple[str, ...]:
        return tuple(self.edits(Exported(None, clean)))

    def plant(self, clean: Clean, place: str) -> Subject:
        broken = unbroken(clean)
        self.edits(Exported(broken.model, clean))[place]()
        _remove_unread(broken.model)  # which no exporter leaves, and which a check of the graph must not find the fault by
        return broken


class Exported:
    """A graph to be broken.

    Args:
        model: it; None to ask only where something could be broken.
        clean: what it is a copy of.
    """

    def __init__(self, model: Any, clean: Clean) -> None:
        self.model = model
        self.clean = clean
        self.view: GraphView = clean.view

    # -- where -----------------------------------------------------------------------------------------------------------------

    @property
    def is_quantized(self) -> bool:
        return self.clean.engine.recipe.is_quantized

    @property
    def sampled_blocks(self) -> tuple[Block, ...]:
        """The first, the middle and the last."""
        blocks = self.view.blocks
        return tuple(blocks[index] for index in sorted({0, len(blocks) // 2, len(blocks) - 1}))

    def gemms(self, block: Block) -> dict[str, WeightGemm]:
        """The block's weight GEMMs by role: `q`, `k` and `v` by what they feed, the others by their order."""
        assert block.core is not None, "faults are planted in transformers"
        fed = {
            "q": self.gemm_behind(block.core.scores.inputs[0]),
            "k": self.gemm_behind(block.core.scores.inputs[1]),
            "v": self.gemm_behind(block.core.context.inputs[1]),
        }
        names = {gemm.node.name for gemm in fed.values()}
        after = [gemm for gemm in block.gemms if gemm.node.name not in names]
        return fed | dict(zip(GEMMS[3:], after, strict=True))

    def gemm_behind(self, tensor: str) -> WeightGemm:
        """The weight GEMM that a tensor of activations comes from."""
        while True:
            node = self.view.producers[tensor]
            if node.name in self.view.weight_gemms:
                return self.view.weight_gemms[node.name]
            tensor = next(name for name in node.inputs if self.view.constant_behind(name) is None)

    def norms(self, block: Block) -> dict[str, str]:
        """Names of the block's two normalisations."""
        gemms = self.gemms(block)
        found = {role: self.view.source(gemms[gemm].activation, _QDQ_AND_MOVES) for role, gemm in (("ln_1", "q"), ("ln_2", "fc"))}
        return {role: node.name for role, node in found.items() if node is not None and node.op_type == "LayerNormalization"}

    def norms_outside(self) -> dict[str, str]:
        """Names of the normalisations before the first block and after the last."""
        inside = {name for block in self.view.blocks for name in self.norms(block).values()}
        order = [node.name for node in self.view.graph.nodes if node.op_type == "LayerNormalization"]
        first = order.index(next(name for name in order if name in inside))
        outside = [(name, "before the blocks" if place < first else "after the blocks") for place, name in enumerate(order)]
        return {role: name for name, role in outside if name not in inside}

    # -- how -------------------------------------------------------------------------------------------------------------------

    @cached_property
    def _nodes(self) -> dict[str, Any]:
        return {node.name: node for node in self.model.graph.node}

    @cached_property
    def _constants(self) -> dict[str, Any]:
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    def node(self, name: str) -> Any:
        return self._nodes[name]

    def numbers(self, constant: str) -> NDArray[np.generic]:
        """An initializer's elements; FP8 codes come as what they stand for."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self._constants[constant])

    def set_numbers(self, constant: str, numbers: NDArray[np.generic]) -> None:
        """Replace an initializer's elements, and its shape if they have another."""
        tensor = self._constants[constant]
        tensor.raw_data = np.ascontiguousarray(numbers.astype(self.numbers(constant).dtype)).tobytes()
        tensor.ClearField("float_data")
        tensor.ClearField("int32_data")
        tensor.dims[:] = numbers.shape

    def new_constant(self, name: str, numbers: NDArray[np.generic]) -> str:
        from onnx import numpy_helper

        self.model.graph.initializer.append(numpy_helper.from_array(numbers, name))
        return name

    def skip(self, node: str, *, to: str) -> None:
        """Whoever reads the node's output reads the tensor `to` instead."""
        output = self.node(node).output[0]
        read_instead(Wiring(self.model.graph).readers[output], output, to)

    def read_instead(self, tensor: str, nodes: Sequence[tuple[str, list[str], str]]) -> None:
        """Put nodes behind the one that makes `tensor`, each an operator, its inputs and its output.

        Whoever read `tensor` reads the last one's output.
        """
        import onnx

        readers = Wiring(self.model.graph).readers[tensor]
        place = next(place for place, one in enumerate(self.model.graph.node) if tensor in one.output) + 1
        for op_type, inputs, output in reversed(nodes):
            self.model.graph.node.insert(place, onnx.helper.make_node(op_type, inputs, [output], name=f"{output}/{op_type}"))
        read_instead(readers, tensor, nodes[-1][2])

    def quantizer_of(self, tensor: str) -> tuple[str, tuple[str, ...]]:
        """Names of the QuantizeLinear behind an activation, and of the nodes that de-quantize what it makes."""
        dequantize = self.view.dequantized(tensor)
        assert dequantize is not None, f"{tensor} is not quantized"
        quantize = self.view.producers[dequantize.inputs[0]]
        assert quantize.op_type in QUANTIZE, f"{quantize.name} is no QuantizeLinear"
        return quantize.name, tuple(node.name for node in self.view.consumers[quantize.outputs[0]])


def _remove_unread(model: Any) -> None:
    outputs = {output.name for output in model.graph.output}
    while True:
        read = {name for node in model.graph.node for name in node.input} | outputs
        unread = [node.output[0] for node in model.graph.node if not read & set(node.output)]
        if not unread:
            break
        remove_nodes_making(model.graph, unread)
    remove_unread_initializers(model.graph)
