"""Small convolutional towers as records: a stem, residual blocks, and an attention that pools."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.records.graph import OnnxGraph, OnnxPort
from harness.records.observations import LayerRow, LayerTable, LayerTensor
from tests.helpers.graphs import WIDTH, GraphMaker, layer_table, ports

SIDE = 4


@dataclass
class TrunkMaker(GraphMaker):
    """Writes a ResNet of bottlenecks; `float_gemms` and `unfolded` name convolutions such as `b1/conv2`."""

    pooled: bool = True

    def graph(self) -> OnnxGraph:
        tensor = self._node("Relu", "stem/relu", self._convolution("stem", "image", quantized=False))
        for index in range(self.blocks):
            tensor = self._bottleneck(index, tensor)
        if self.pooled:
            tensor = self._pool(tensor)
        return OnnxGraph(
            nodes=tuple(self.nodes),
            constants=self.constants,
            inputs=(OnnxPort(name="image", dtype="FLOAT16", shape=("batch", WIDTH, SIDE, SIDE)),),
            outputs=(OnnxPort(name=tensor, dtype="FLOAT16", shape=("batch", WIDTH)),),
            opsets={"": 20},
            tensors=ports(
                {output: (1, WIDTH, SIDE, SIDE) for node in self.nodes for output in node.outputs} | {"image": (1, WIDTH, SIDE, SIDE)}
            ),
        )

    def _bottleneck(self, index: int, tensor: str) -> str:
        name = f"b{index}"
        way = self._node("Relu", f"{name}/relu1", self._convolution(f"{name}/conv1", tensor))
        way = self._convolution(f"{name}/conv2", way)
        other = self._convolution(f"{name}/downsample", tensor) if index == 0 else tensor
        return self._node("Relu", f"{name}/relu2", self._node("Add", f"{name}/add", way, other))

    def _convolution(self, name: str, tensor: str, *, quantized: bool | None = None) -> str:
        made = self._gemm(name, tensor, (WIDTH, WIDTH), quantized=quantized)
        node = self.nodes[-1]
        weight = self.constants[f"{name}/weight"]
        object.__setattr__(node, "op_type", "Conv")
        object.__setattr__(weight, "shape", (WIDTH, WIDTH, 1, 1))
        return made

    def _pool(self, tensor: str) -> str:
        q, k, v = (self._gemm(f"pool/{one}", tensor, (WIDTH, WIDTH), quantized=False) for one in "qkv")
        scores = self._node("MatMul", "pool/scores", q, self._node("Transpose", "pool/kt", k))
        context = self._node("MatMul", "pool/context", self._node("Softmax", "pool/softmax", scores), v)
        return self._gemm("pool/out", context, (WIDTH, WIDTH), quantized=False)


def trunk_table(graph: OnnxGraph, *, half: frozenset[str] = frozenset(), alone: frozenset[str] = frozenset()) -> LayerTable:
    """What TensorRT-RTX makes of a trunk: a `correlation` a convolution, whose input a layer of its own may quantize.

    Args:
        half: convolutions that read half precision, by node name.
        alone: Q/DQ nodes that get a layer of their own.
    """
    rows = [row for row in layer_table(graph, alone=alone).rows if not row.name.startswith("mha")]
    return LayerTable(rows=tuple(_convolution_row(row, graph, half) or row for row in rows), source="made by hand")


def _convolution_row(row: LayerRow, graph: OnnxGraph, half: frozenset[str]) -> LayerRow | None:
    node = next((node for node in graph.nodes if node.name == row.onnx_nodes[0] and node.op_type == "Conv"), None)
    if node is None:
        return None
    weight = "Half" if node.inputs[1] in graph.constants else "FP8"
    activation = "Half" if node.name in half else weight
    tensors = [LayerTensor(name=name, shape=(-1, WIDTH), datatype=datatype) for name, datatype in (("x", activation), ("w", weight))]
    return replace(row, kind="correlation", inputs=(tensors[0],), constants=(tensors[1],))
