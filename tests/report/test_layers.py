from dataclasses import replace

import pytest

from harness.records.engine_nodes import LAYERS_SCHEMA, EngineLayers, EngineNode, OperandTypes
from harness.records.observations import LayerRow
from harness.report.layers import layers_text


def row(name, kind="kgen", tactic="", nodes=("n",)):
    return LayerRow(name=name, kind=kind, inputs=(), constants=(), outputs=(), tactic=tactic, onnx_nodes=nodes)


def operands(inputs, weights=None, outputs="Half"):
    return OperandTypes(inputs=tuple(inputs.split()), constants=(), outputs=tuple(outputs.split()), weights=weights)


def node(name, layer, block=None, op_type="Add", realised="half", **changes):
    fields = {
        "kernel": f"layer {layer}",
        "kind": "kgen",
        "operands": operands("Half"),
        "layers": () if layer is None else (layer,),
        "fused_with": (),
        "merged_into": None,
    }
    return EngineNode(node=name, op_type=op_type, block=block, realised=realised, layer=layer, **(fields | changes))


def record(nodes, rows=None, **changes):
    fields = {
        "schema": LAYERS_SCHEMA,
        "source": "engine inspector JSON of TensorRT 10",
        "file": "engine.json",
        "encoder": None,
        "engine": None,
        "blocks": 2,
        "lists_constants": True,
        "ports": (),
        "rows": rows or tuple(row(f"layer {index}") for index in range(9)),
        "nodes": tuple(nodes),
    }
    return EngineLayers(**(fields | changes))


def block(index, first, realised="fp8"):
    base = f"/tower/blocks.{index}"
    product = {"kind": "gemm", "operands": operands("FP8", "FP8"), "realised": realised}
    return [
        node(f"{base}/ln/Norm", first, index, "LayerNormalization"),
        node(f"{base}/fc/Q", first, index, "QuantizeLinear", "fp8"),
        node(f"{base}/fc/DQ", first + 1, index, "DequantizeLinear", **product),
        node(f"{base}/fc/MatMul", first + 1, index, "MatMul", **product),
    ]


def lines(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_block_is_a_line_a_layer_with_the_nodes_that_share_it():
    text = layers_text(record(block(0, 0)))

    assert lines(text) == [
        "engine.json",
        "engine inspector JSON of TensorRT 10: 9 layers, 2 blocks",
        "4 ONNX nodes: 3 fp8, 0 mixed, 1 half, 0 unseen",
        "",
        "type kind reads -> writes kernel ONNX nodes, fused with each other",
        "",
        "block 0: /tower/blocks.0/",
        "fp8 kgen Half -> Half layer 0 1 QuantizeLinear",
        "half ln/Norm",
        "fp8 gemm FP8 x FP8 -> Half layer 1 fc/MatMul, 1 DequantizeLinear",
    ]


def test_blocks_that_are_alike_are_shown_once_and_those_that_are_not_apart():
    nodes = [*block(0, 0), *block(1, 2), *block(2, 4, realised="mixed"), *block(3, 6)]

    text = layers_text(record(nodes))

    assert "block 0, and 1, 3 alike: /tower/blocks.0/" in text
    assert "block 2: /tower/blocks.2/" in text
    assert "block 1" not in text
    assert "mixed   gemm" in text


def test_all_shows_every_block_and_names_every_node():
    text = layers_text(record([*block(0, 0), *block(1, 2)]), every=True)

    assert "block 1: /tower/blocks.1/" in text
    assert "fc/DQ, fc/MatMul" in text
    assert "1 DequantizeLinear" not in text


def test_what_lies_before_and_after_the_blocks_is_told_apart():
    text = layers_text(record([node("/tower/conv", 0), *block(0, 1), node("/tower/head", 3)]))

    assert text.index("before the blocks") < text.index(" conv") < text.index("block 0") < text.index("after the blocks")
    assert " head" in text.partition("after the blocks")[2]


def test_without_blocks_layers_come_in_engine_order_and_long_lists_are_cut_short():
    nodes = [node(f"/a/b/n{index}", 1, op_type=None) for index in range(7)] + [node("/a/c", 0, op_type=None)]

    text = layers_text(record(nodes, blocks=None))

    assert "all layers, in engine order: /a/" in text
    assert text.index("layer 0") < text.index("layer 1")
    assert "b/: n0, n1, n2, n3, and 3 more" in text
    assert "n6" in layers_text(record(nodes, blocks=None), every=True)


def test_a_lost_product_is_named_where_other_unseen_nodes_are_counted():
    lost = [
        node(f"/{name}", None, op_type=op_type, realised="unseen", kernel=None, kind=None, operands=None)
        for name, op_type in (("fc/MatMul", "MatMul"), ("r1", "Reshape"), ("r2", "Reshape"))
    ]

    assert "named by no layer: /fc/MatMul, 2 Reshape" in layers_text(record([*block(0, 0), *lost]))


def test_layers_that_name_no_node_are_counted_by_kind():
    rows = (row("a"), row("b"), row("c", "Reformat", nodes=()), row("d", "Reformat", nodes=()), row("e", "shape_call", nodes=()))

    assert "layers that name no ONNX node: 2 Reformat, 1 shape_call" in layers_text(record(block(0, 0), rows))


@pytest.mark.parametrize(
    ("tactic", "shown"),
    [
        ("sm90_xmma_gemm_e4m3", "sm90_xmma_gemm_e4m3"),
        ("__myelin_CASK_STUB", "layer's name"),
        ("__myl_Add_0x12ab", "layer's name"),
        ("", "layer's name"),
    ],
)
def test_a_librarys_kernel_is_named_and_else_the_layer(tactic, shown):
    assert shown in layers_text(record([node("/n", 0)], (row("layer's name", tactic=tactic),)))


def test_a_long_kernel_keeps_its_start_and_its_number():
    text = layers_text(record([node("/n", 0)], (row("__myl_" + "AddMul" * 20 + "_myl3_5"),)))

    assert "__myl_AddMulAddMul" in text
    assert ".." in text
    assert "_myl3_5" in text


def test_no_line_is_wider_than_140_columns_and_no_control_character_gets_through():
    long = [node("/" + "x" * 300 + "\x1b[31m", 0), node("name, with  blanks\nand lines " * 9, 0)]
    rows = tuple(replace(row("k" * 200), kind="k" * 99, tactic="t" * 200) for _ in range(3))
    strange = [replace(one, kind="k" * 99, operands=operands("Half " * 50)) for one in long]

    text = layers_text(record([*strange, *block(0, 1)], rows, file="f" * 300))

    assert max(map(len, text.splitlines())) <= 140
    assert "\x1b" not in text
