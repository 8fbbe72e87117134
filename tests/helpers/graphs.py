"""Small transformer graphs as records, and the layer tables a good compiler would make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from harness.records.graph import OnnxConstant, OnnxGraph, OnnxNode, OnnxPort
from harness.records.observations import LayerRow, LayerTable, LayerTensor

WIDTH = 8
TOKENS = 5
VOCABULARY = 100


def ports(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, OnnxPort]:
    """Half-precision tensors of these shapes, as inference would list them."""
    return {name: OnnxPort(name=name, dtype="FLOAT16", shape=shape) for name, shape in shapes.items()}


@dataclass
class GraphMaker:
    """Writes a pre-norm transformer, with or without Q/DQ around its block GEMMs."""

    blocks: int = 3
    quantized: bool = True
    folded: bool = True
    float_gemms: frozenset[str] = frozenset()  # GEMMs left without Q/DQ, by node name
    unfolded: frozenset[str] = frozenset()  # GEMMs whose weight goes through QuantizeLinear
    softmax_qdq: bool = False
    attention_qdq: bool = False  # q, k, v and the softmax behind Q/DQ
    table: bool = False  # the input is tokens, which gather rows of a table
    table_fp8: bool = False
    nodes: list[OnnxNode] = field(default_factory=list)
    constants: dict[str, OnnxConstant] = field(default_factory=dict)

    def graph(self) -> OnnxGraph:
        tensor = self._embedding() if self.table else self._gemm("patch", "image", (3, WIDTH), quantized=False)
        for index in range(self.blocks):
            tensor = self._block(index, tensor)
        tensor = self._gemm("head", tensor, (WIDTH, 4), quantized=False)
        return OnnxGraph(
            nodes=tuple(self.nodes),
            constants=self.constants,
            inputs=(self._input(),),
            outputs=(OnnxPort(name=tensor, dtype="FLOAT16", shape=("batch", 5, 4)),),
            opsets={"": 20},
            tensors=ports(self._shapes()),
        )

    def _input(self) -> OnnxPort:
        if self.table:
            return OnnxPort(name="tokens", dtype="INT64", shape=("batch", TOKENS))
        return OnnxPort(name="image", dtype="FLOAT16", shape=("batch", TOKENS, 3))

    def _embedding(self) -> str:
        if self.table_fp8:
            self._constant("table", "FLOAT8E4M3FN", (VOCABULARY, WIDTH), itemsize=1)
            return self._node("Gather", "gather", self._node("DequantizeLinear", "table_dq", "table", self._scale("table_scale")), "tokens")
        self._constant("table", "FLOAT16", (VOCABULARY, WIDTH), itemsize=2)
        return self._node("Gather", "gather", "table", "tokens")

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """One row of TOKENS tokens with one head, through every node."""
        shapes: dict[str, tuple[int, ...]] = {"image": (1, TOKENS, 3), "tokens": (1, TOKENS)}
        for node in self.nodes:
            operands = [shapes.get(name) or self.constants[name].shape for name in node.inputs]
            shape = operands[0]
            if node.op_type == "MatMul":
                shape = (*operands[0][:-1], operands[1][-1])
            elif node.op_type == "Transpose":
                shape = (shape[0], shape[2], shape[1])
            elif node.op_type == "Gather":
                shape = (*operands[1], shape[1])
            shapes[node.outputs[0]] = shape
        return shapes

    def _block(self, index: int, tensor: str) -> str:
        name = f"b{index}"
        normed = self._node("LayerNormalization", f"{name}/ln_1", tensor)
        q, k, v = (self._gemm(f"{name}/{one}", normed, (WIDTH, WIDTH)) for one in "qkv")
        q, k = self._node("Mul", f"{name}/scale", q), self._node("Transpose", f"{name}/kt", k)
        if self.attention_qdq:
            q, k, v = (self._qdq(f"{name}/{one}_operand", tensor) for one, tensor in zip("qkv", (q, k, v), strict=True))
        scores = self._node("MatMul", f"{name}/scores", q, k)
        weights = self._node("Softmax", f"{name}/softmax", scores)
        if self.softmax_qdq or self.attention_qdq:
            weights = self._qdq(f"{name}/softmax", weights)
        context = self._node("MatMul", f"{name}/context", weights, v)
        attended = self._node("Add", f"{name}/add_1", tensor, self._gemm(f"{name}/out", context, (WIDTH, WIDTH)))
        hidden = self._node("Gelu", f"{name}/gelu", self._gemm(f"{name}/fc", attended, (WIDTH, 4 * WIDTH)))
        return self._node("Add", f"{name}/add_2", attended, self._gemm(f"{name}/proj", hidden, (4 * WIDTH, WIDTH)))

    def _gemm(self, name: str, tensor: str, shape: tuple[int, int], *, quantized: bool | None = None) -> str:
        if quantized is None:
            quantized = self.quantized and name not in self.float_gemms
        weight = f"{name}/weight"
        if not quantized:
            self._constant(weight, "FLOAT16", shape, itemsize=2)
            return self._node("MatMul", name, tensor, weight)
        if self.folded and name not in self.unfolded:
            self._constant(weight, "FLOAT8E4M3FN", shape, itemsize=1)
            dequantized = self._node("DequantizeLinear", f"{name}/weight_dq", weight, self._scale(f"{name}/weight_scale"))
        else:
            self._constant(weight, "FLOAT16", shape, itemsize=2)
            dequantized = self._qdq(f"{name}/weight", weight)
        return self._node("MatMul", name, self._qdq(f"{name}/input", tensor), dequantized)

    def _qdq(self, name: str, tensor: str) -> str:
        scale = self._scale(f"{name}_scale")
        return self._node("DequantizeLinear", f"{name}_dq", self._node("QuantizeLinear", f"{name}_q", tensor, scale), scale)

    def _scale(self, name: str) -> str:
        self.constants[name] = OnnxConstant(name=name, dtype="FLOAT16", shape=(), nbytes=2, value=np.array(0.01))
        return name

    def _constant(self, name: str, dtype: str, shape: tuple[int, ...], *, itemsize: int) -> None:
        self.constants[name] = OnnxConstant(name=name, dtype=dtype, shape=shape, nbytes=int(np.prod(shape)) * itemsize)

    def _node(self, op_type: str, name: str, *inputs: str) -> str:
        self.nodes.append(OnnxNode(name=name, op_type=op_type, domain="", inputs=inputs, outputs=(f"{name}:0",)))
        return f"{name}:0"


def layer_table(
    graph: OnnxGraph,
    *,
    half: frozenset[str] = frozenset(),
    alone: frozenset[str] = frozenset(),
    split: bool = False,
    attention: tuple[str, ...] = ("Half", "Half", "Half"),
) -> LayerTable:
    """One layer a GEMM, one fused layer an attention, one for the rest of each node.

    Args:
        half: GEMMs that run with half-precision activations, by node name.
        alone: Q/DQ nodes that get a layer of their own.
        split: whether attention is left in three layers.
        attention: types of q, k and v in each fused attention layer.
    """
    rows = []
    for node in graph.nodes:
        if node.op_type == "MatMul" and not node.name.endswith(("scores", "context")):
            rows.append(_gemm_row(node, graph, is_half=node.name in half))
        elif node.name in alone:
            rows.append(_row(f"layer of {node.name}", "kgen", (node.name,), "Half"))
        elif node.op_type not in ("QuantizeLinear", "DequantizeLinear", "MatMul", "Softmax"):
            fused = [one.name for one in graph.nodes if one.op_type == "QuantizeLinear" and one.inputs[0] in node.outputs]
            rows.append(_row(f"layer of {node.name}", "kgen", (node.name, *(name for name in fused if name not in alone)), "Half"))
    for index in range(sum(node.op_type == "Softmax" for node in graph.nodes)):
        parts = tuple(f"b{index}/{part}" for part in ("scores", "softmax", "context"))
        rows += [_row(part, "kgen", (part,), "Half") for part in parts] if split else [_attention_row(f"mha {index}", parts, attention)]
    return LayerTable(rows=tuple(rows), source="made by hand")


def _gemm_row(node: OnnxNode, graph: OnnxGraph, *, is_half: bool) -> LayerRow:
    weight_is_fp8 = node.inputs[1] not in graph.constants
    activation = "FP8" if weight_is_fp8 and not is_half else "Half"
    return LayerRow(
        name=f"layer of {node.name}",
        kind="gemm",
        inputs=(LayerTensor(name="x", shape=(-1, WIDTH), datatype=activation),),
        constants=(LayerTensor(name="w", shape=(WIDTH, WIDTH), datatype="FP8" if weight_is_fp8 else "Half"),),
        outputs=(),
        tactic="",
        onnx_nodes=(node.name,),
    )


def _attention_row(name: str, nodes: tuple[str, ...], types: tuple[str, ...]) -> LayerRow:
    operands = tuple(LayerTensor(name=one, shape=(-1, WIDTH), datatype=datatype) for one, datatype in zip("qkv", types, strict=False))
    return LayerRow(name=name, kind="kgen", inputs=operands, constants=(), outputs=operands[:1], tactic="", onnx_nodes=nodes)


def _row(name: str, kind: str, nodes: tuple[str, ...], datatype: str) -> LayerRow:
    tensor = LayerTensor(name="x", shape=(-1, WIDTH), datatype=datatype)
    return LayerRow(name=name, kind=kind, inputs=(tensor,), constants=(), outputs=(tensor,), tactic="", onnx_nodes=nodes)
