"""Planted defects of layer tables: each function breaks one thing in one block of a real engine and names the node where that shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import prod

from harness.judge.engine_checks.evidence import EngineEvidence
from harness.judge.structure import DEQUANTIZE, QUANTIZE, Block
from harness.records.graph import OnnxNode
from harness.records.observations import LayerRow, LayerTensor

Planted = tuple[EngineEvidence, str | None]
RECIPES = ("linear", "attention")


# -- finding one's way -------------------------------------------------------------------------------------------------------


def _block(seen: EngineEvidence, block: int) -> Block:
    return seen.view.blocks[block]


def _gemm(seen: EngineEvidence, block: int, which: str) -> OnnxNode:
    out, fc, proj = _block(seen, block).gemms[-3:]
    return {"out": out, "fc": fc, "proj": proj}[which].node


def _pair(seen: EngineEvidence, gemm: OnnxNode) -> tuple[OnnxNode, OnnxNode]:
    """QuantizeLinear and DequantizeLinear of a GEMM's activation."""
    dequantize = seen.view.producers[gemm.inputs[0]]
    return seen.view.producers[dequantize.inputs[0]], dequantize


def _product_row(seen: EngineEvidence, node: OnnxNode) -> LayerRow:
    return next(row for row in seen.carriers[node.name] if row.kind == "gemm")


def _attention_row(seen: EngineEvidence, block: int) -> LayerRow:
    return seen.carriers[_block(seen, block).core.softmax.name][0]


def _with(seen: EngineEvidence, changed: Iterable[tuple[LayerRow, tuple[LayerRow, ...]]]) -> EngineEvidence:
    """The evidence with each of some layers replaced by others."""
    others = {id(row): rows for row, rows in changed}
    rows = tuple(one for row in seen.table.rows for one in others.get(id(row), (row,)))
    return replace(seen, table=replace(seen.table, rows=rows))


def _change(seen: EngineEvidence, row: LayerRow, **fields: object) -> EngineEvidence:
    return _with(seen, [(row, (replace(row, **fields),))])  # type: ignore[arg-type]


def _typed(tensors: Iterable[LayerTensor], datatype: str, *, was: str | None = None) -> tuple[LayerTensor, ...]:
    return tuple(replace(tensor, datatype=datatype) if was in (None, tensor.datatype) else tensor for tensor in tensors)


def _without(row: LayerRow, *names: str) -> LayerRow:
    return replace(row, onnx_nodes=tuple(name for name in row.onnx_nodes if name not in names))


def _forget(seen: EngineEvidence, names: set[str]) -> EngineEvidence:
    return replace(seen, table=replace(seen.table, rows=tuple(_without(row, *names) for row in seen.table.rows)))


def _new_row(name: str, like: LayerRow, *nodes: str, kind: str = "kgen", datatype: str = "Half") -> LayerRow:
    tensor = replace(like.outputs[0], datatype=datatype)
    read, made = replace(tensor, name=f"{name}/in"), replace(tensor, name=f"{name}/out")
    return LayerRow(name=name, kind=kind, inputs=(read,), constants=(), outputs=(made,), tactic="", onnx_nodes=nodes, stream=0)


# -- E1: what no layer names --------------------------------------------------------------------------------------------------


def product_not_named(seen: EngineEvidence, block: int) -> Planted:
    node = _gemm(seen, block, "fc")
    return _forget(seen, {node.name}), node.name


def quantization_of_a_block_not_named(seen: EngineEvidence, block: int) -> Planted:
    pairs = [_pair(seen, gemm.node) for gemm in _block(seen, block).gemms]
    weights = [seen.view.dequantized(gemm.weight) for gemm in _block(seen, block).gemms]
    names = {node.name for node in (*(one for pair in pairs for one in pair), *weights) if node is not None}
    return _forget(seen, names), pairs[-1][0].name


# -- E2, E3: products that are not FP8 ------------------------------------------------------------------------------------------


def activation_in_half(seen: EngineEvidence, block: int) -> Planted:
    node = _gemm(seen, block, "out")
    row = _product_row(seen, node)
    return _change(seen, row, inputs=_typed(row.inputs, "Half")), node.name


def weight_in_half(seen: EngineEvidence, block: int) -> Planted:
    node = _gemm(seen, block, "out")
    row = _product_row(seen, node)
    return _change(seen, row, constants=_typed(row.constants, "Half", was="FP8")), node.name


def product_only_finished(seen: EngineEvidence, block: int) -> Planted:
    """A layer names the MatMul, but none is a product."""
    node = _gemm(seen, block, "out")
    return _change(seen, _product_row(seen, node), kind="kgen"), node.name


def attention_in_half(seen: EngineEvidence, block: int) -> Planted:
    row = _attention_row(seen, block)
    return _change(seen, row, inputs=_typed(row.inputs, "Half")), _block(seen, block).core.softmax.name


def one_attention_operand_in_half(seen: EngineEvidence, block: int) -> Planted:
    row = _attention_row(seen, block)
    return _change(seen, row, inputs=(*row.inputs[:2], *_typed(row.inputs[2:], "Half"))), _block(seen, block).core.softmax.name


def mlp_in_half(seen: EngineEvidence, block: int) -> Planted:
    node = _gemm(seen, block, "proj")
    row = _product_row(seen, node)
    return _change(seen, row, inputs=_typed(row.inputs, "Half")), node.name


# -- E4: attention in pieces ----------------------------------------------------------------------------------------------------


def attention_split(seen: EngineEvidence, block: int) -> Planted:
    core, row = _block(seen, block).core, _attention_row(seen, block)
    parts = {core.scores.name: "gemm", core.softmax.name: "kgen", core.context.name: "gemm"}
    pieces = [_new_row(f"piece of {name}", row, name, kind=kind, datatype="FP8") for name, kind in parts.items()]
    pieces[-1] = replace(pieces[-1], onnx_nodes=tuple(dict.fromkeys((core.context.name, *_without(row, *parts).onnx_nodes))))
    return _with(seen, [(row, tuple(pieces))]), core.softmax.name


def softmax_left_outside(seen: EngineEvidence, block: int) -> Planted:
    core, row = _block(seen, block).core, _attention_row(seen, block)
    alone = _new_row("softmax alone", row, core.softmax.name)
    return _with(seen, [(row, (alone, _without(row, core.softmax.name)))]), core.softmax.name


# -- E5, E6: quantization that no product gains from -----------------------------------------------------------------------------


def quantize_alone(seen: EngineEvidence, block: int) -> Planted:
    node, _ = _pair(seen, _gemm(seen, block, "proj"))
    row = seen.carriers[node.name][0]
    return _with(seen, [(row, (_without(row, node.name), _new_row("quantize alone", row, node.name)))]), node.name


def weight_dequantized_alone(seen: EngineEvidence, block: int) -> Planted:
    gemm = _gemm(seen, block, "fc")
    node, row = seen.view.producers[gemm.inputs[1]], _product_row(seen, gemm)
    assert node.op_type in DEQUANTIZE
    return _with(seen, [(row, (_new_row("de-quantize alone", row, node.name), _without(row, node.name)))]), node.name


def pair_emulated(seen: EngineEvidence, block: int) -> Planted:
    """The kernel before a product rounds to FP8 and back, and the product reads half precision."""
    gemm = _gemm(seen, block, "proj")
    quantize, dequantize = _pair(seen, gemm)
    row, product = seen.carriers[quantize.name][0], _product_row(seen, gemm)
    emulating = replace(row, onnx_nodes=(*row.onnx_nodes, dequantize.name), outputs=_typed(row.outputs, "Half"))
    reading = replace(_without(product, dequantize.name), inputs=_typed(product.inputs, "Half"))
    return _with(seen, [(row, (emulating,)), (product, (reading,))]), quantize.name


def softmax_pair_emulated(seen: EngineEvidence, block: int) -> Planted:
    """Attention in pieces, whose softmax rounds to FP8 and back by itself."""
    core, row = _block(seen, block).core, _attention_row(seen, block)
    dequantize = seen.view.producers[core.context.inputs[0]]
    quantize = seen.view.producers[dequantize.inputs[0]]
    assert quantize.op_type in QUANTIZE
    own = (core.softmax.name, quantize.name, dequantize.name)
    return _with(seen, [(row, (_new_row("softmax and back", row, *own), _without(row, *own)))]), quantize.name


# -- E7: layers that only move --------------------------------------------------------------------------------------------------


def transposed_by_itself(seen: EngineEvidence, block: int) -> Planted:
    transposes = (one for one in seen.view.graph.nodes if one.op_type == "Transpose" and one.name in seen.carriers)
    node = next(one for one in transposes if seen.view.block_of(one) == block)
    row = seen.carriers[node.name][0]
    return _with(seen, [(row, (_without(row, node.name), _new_row("transpose alone", row, node.name)))]), node.name


def copied_between_kernels(seen: EngineEvidence, block: int) -> Planted:
    row = _product_row(seen, _gemm(seen, block, "fc"))
    return _with(seen, [(row, (_new_row("copy", row), row))]), None


def reformatted(seen: EngineEvidence, block: int) -> Planted:
    """A layer that names what follows it, and says by its kind alone that it computes nothing."""
    gemm = _gemm(seen, block, "fc")
    bias, row = seen.view.consumers[gemm.outputs[0]][0], _product_row(seen, gemm)
    return _with(seen, [(row, (row, _new_row("Reformatting CopyNode", row, bias.name, kind="Reformat")))]), bias.name


# -- E8: bytes --------------------------------------------------------------------------------------------------------------------


def _with_weights(seen: EngineEvidence, more_bytes: int) -> EngineEvidence:
    assert seen.memory is not None
    assert seen.memory.weights_bytes is not None
    return replace(seen, memory=replace(seen.memory, weights_bytes=seen.memory.weights_bytes + more_bytes))


def weight_kept_wide(seen: EngineEvidence, block: int) -> Planted:
    node = _gemm(seen, block, "fc")
    row = _product_row(seen, node)
    wide = _change(seen, row, constants=_typed(row.constants, "Half", was="FP8"))
    return _with_weights(wide, _largest(row)), node.name


def weight_lost(seen: EngineEvidence, block: int) -> Planted:
    return _with_weights(seen, -_largest(_product_row(seen, _gemm(seen, block, "fc")))), None


def _largest(row: LayerRow) -> int:
    return max(prod(constant.shape) for constant in row.constants)


# -- E9: types ---------------------------------------------------------------------------------------------------------------------


def product_writes_fp32(seen: EngineEvidence, block: int) -> Planted:
    node = _gemm(seen, block, "fc")
    row = _product_row(seen, node)
    return _change(seen, row, outputs=_typed(row.outputs, "Float")), node.name


def activation_function_in_fp32(seen: EngineEvidence, block: int) -> Planted:
    quantize, _ = _pair(seen, _gemm(seen, block, "proj"))
    row = seen.carriers[quantize.name][0]
    return _change(seen, row, outputs=_typed(row.outputs, "Float")), quantize.name


def weight_in_fp32(seen: EngineEvidence, block: int) -> Planted:
    node = _gemm(seen, block, "out")
    row = _product_row(seen, node)
    return _change(seen, row, constants=_typed(row.constants, "Float", was="FP8")), node.name


def output_in_fp32(seen: EngineEvidence, block: int) -> Planted:
    """The whole engine's output: there is one, whichever block is asked for."""
    name = seen.view.graph.outputs[0].name
    row = next(row for row in seen.table.rows if name in {tensor.name for tensor in row.outputs})
    ports = tuple(replace(port, datatype="Float") if port.name == name else port for port in seen.table.ports)
    changed = _change(seen, row, outputs=_typed(row.outputs, "Float"))
    return replace(changed, table=replace(changed.table, ports=ports)), seen.view.producers[name].name


def input_in_fp32(seen: EngineEvidence, block: int) -> Planted:
    """The whole engine's input, likewise."""
    name = seen.view.graph.inputs[0].name
    row = next(row for row in seen.table.rows if name in {tensor.name for tensor in row.inputs})
    ports = tuple(replace(port, datatype="Float") if port.name == name else port for port in seen.table.ports)
    changed = _change(seen, row, inputs=_typed(row.inputs, "Float"))
    return replace(changed, table=replace(changed.table, ports=ports)), seen.view.consumers[name][0].name


@dataclass(frozen=True)
class Defect:
    """One way to break an engine, and the check meant to find it."""

    check: str
    plant: Callable[[EngineEvidence, int], Planted]
    recipes: tuple[str, ...] = RECIPES

    @property
    def name(self) -> str:
        return self.plant.__name__


DEFECTS = (
    *(Defect("E1", plant) for plant in (product_not_named, quantization_of_a_block_not_named)),
    *(Defect("E2", plant) for plant in (activation_in_half, weight_in_half, product_only_finished)),
    *(Defect("E2", plant, ("attention",)) for plant in (attention_in_half, one_attention_operand_in_half)),
    Defect("E3", mlp_in_half),
    *(Defect("E4", plant) for plant in (attention_split, softmax_left_outside)),
    *(Defect("E5", plant) for plant in (quantize_alone, weight_dequantized_alone)),
    Defect("E6", pair_emulated),
    Defect("E6", softmax_pair_emulated, ("attention",)),
    *(Defect("E7", plant) for plant in (transposed_by_itself, copied_between_kernels, reformatted)),
    *(Defect("E8", plant) for plant in (weight_kept_wide, weight_lost)),
    *(Defect("E9", plant) for plant in (product_writes_fp32, activation_function_in_fp32, weight_in_fp32, output_in_fp32, input_in_fp32)),
)
