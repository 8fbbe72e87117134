"""E11: what is worse for a node in one build than in another, and what is only different."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from harness.judge.node_changes import EngineNodes, node_changes, regressions
from harness.measure.layers import read_layer_table
from harness.records.comparison import Aspect, Effect
from harness.records.graph import GraphRoles, NodeRole
from harness.records.observations import LayerTable
from harness.records.verdict import Severity
from tests.helpers.graphs import GraphMaker, layer_table
from tests.helpers.runs import GRAPH, TABLE, nodes

DATA = Path(__file__).parent / "data"
BLOCKS = ["b0", "b1", "b2"]
FP8 = ("FP8", "FP8", "FP8")


def worse(a: LayerTable, b: LayerTable) -> list[tuple[str, str]]:
    return [(change.node, change.aspect) for change in node_changes(nodes(a), nodes(b)) if change.effect is Effect.WORSE]


def stored_as(table: LayerTable, node: str, datatype: str) -> LayerTable:
    """The table with the weights of one GEMM stored in another type."""
    rows = (
        replace(row, constants=tuple(replace(tensor, datatype=datatype) for tensor in row.constants)) if row.onnx_nodes == (node,) else row
        for row in table.rows
    )
    return replace(table, rows=tuple(rows))


def test_the_same_engine_twice_has_no_change():
    assert node_changes(nodes(), nodes()) == ()


def test_renamed_and_reordered_layers_are_no_change():
    rows = tuple(replace(row, name=f"__myl_{index}") for index, row in enumerate(reversed(TABLE.rows)))

    assert node_changes(nodes(), nodes(replace(TABLE, rows=rows))) == ()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("gemm", ["q", "out", "fc", "proj"])
def test_a_product_that_left_fp8_is_worse_and_named_with_its_block(gemm, block):
    name = f"{block}/{gemm}"

    found = regressions(nodes(), nodes(layer_table(GRAPH, half=frozenset({name}))), Severity.GATE)

    assert [(one.check, one.node, one.block, one.found) for one in found] == [("E11", name, int(block[1:]), "mixed")]
    assert found[0].severity is Severity.GATE
    assert "type was fp8, is mixed" in found[0].message


def test_a_product_that_came_to_fp8_is_better():
    changes = node_changes(nodes(layer_table(GRAPH, half=frozenset({"b1/fc"}))), nodes())

    assert [(change.node, change.effect) for change in changes] == [("b1/fc", Effect.BETTER)]


@pytest.mark.parametrize("block", BLOCKS)
def test_attention_that_is_no_longer_one_layer_is_worse_at_its_softmax(block):
    split = layer_table(GRAPH, split=True)
    mine = [row for row in split.rows if set(row.onnx_nodes) & {f"{block}/{part}" for part in ("scores", "softmax", "context")}]
    table = replace(TABLE, rows=(*(row for row in TABLE.rows if f"{block}/softmax" not in row.onnx_nodes), *mine))

    assert worse(TABLE, table) == [(f"{block}/softmax", "attention")]
    assert worse(table, TABLE) == []


def test_attention_that_was_already_split_is_no_worse_in_more_layers():
    split = layer_table(GRAPH, split=True)
    row = next(row for row in split.rows if row.onnx_nodes == ("b1/softmax",))

    assert worse(split, replace(split, rows=(*split.rows, replace(row, name="another")))) == []


def test_attention_that_reads_half_instead_of_fp8_is_worse_in_both_of_its_products():
    fp8 = layer_table(GRAPH, attention=FP8)

    assert worse(fp8, TABLE) == [(f"{block}/{part}", "type") for block in BLOCKS for part in ("scores", "context")]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_quantization_that_was_fused_and_is_alone_is_worse(block):
    name = f"{block}/out/input_q"
    alone = layer_table(GRAPH, alone=frozenset({name}))

    assert worse(TABLE, alone) == [(name, "qdq")]
    assert worse(alone, alone) == []
    back = [(change.node, change.aspect) for change in node_changes(nodes(alone), nodes()) if change.effect is Effect.BETTER]
    assert back == [(name, "qdq")]


def test_a_quantization_of_the_graphs_own_input_may_be_alone():
    name = "b0/out/input_q"
    alone = layer_table(GRAPH, alone=frozenset({name}))
    reads_input = (
        replace(row, inputs=tuple(replace(tensor, name="image") for tensor in row.inputs)) if row.onnx_nodes == (name,) else row
        for row in alone.rows
    )

    assert worse(TABLE, replace(alone, rows=tuple(reads_input))) == []


def test_fp8_weights_that_became_unfolded_are_worse_in_type_and_in_storage():
    table = stored_as(TABLE, "b2/proj", "Half")

    assert worse(TABLE, table) == [("b2/proj", "type"), ("b2/proj", "weights")]
    assert [change.b for change in node_changes(nodes(), nodes(table)) if change.aspect is Aspect.WEIGHTS] == ["Half 8x8 (128 bytes)"]


def test_a_product_that_no_layer_names_any_more_cannot_be_judged():
    rows = tuple(row for row in TABLE.rows if row.onnx_nodes != ("b1/out",))

    changes = node_changes(nodes(), nodes(replace(TABLE, rows=rows)))

    assert [(change.node, change.aspect, change.effect) for change in changes] == [("b1/out", Aspect.TYPE, Effect.UNKNOWN)]
    assert regressions(nodes(), nodes(replace(TABLE, rows=rows)), Severity.GATE) == ()


def test_products_merged_into_one_layer_changed_partners_and_nothing_else():
    merged = next(row for row in TABLE.rows if row.onnx_nodes == ("b0/q",))
    others = tuple(row for row in TABLE.rows if row.onnx_nodes not in (("b0/q",), ("b0/k",), ("b0/v",)))
    table = replace(TABLE, rows=(*others, replace(merged, onnx_nodes=("b0/q", "b0/k", "b0/v"))))

    changes = {change.node: change for change in node_changes(nodes(), nodes(table))}

    assert changes.keys() == {"b0/q", "b0/k", "b0/v"}
    assert {(change.aspect, change.effect) for change in changes.values()} == {(Aspect.FUSION, Effect.NEUTRAL)}
    assert (changes["b0/q"].gained, changes["b0/q"].lost) == (("b0/k", "b0/v"), ())


def test_two_faults_in_different_blocks_are_both_found():
    table = layer_table(GRAPH, half=frozenset({"b0/q"}), alone=frozenset({"b2/fc/input_q"}))

    assert worse(TABLE, table) == [("b0/q", "type"), ("b2/fc/input_q", "qdq")]


def test_nodes_that_only_one_graph_has_are_not_compared():
    longer = GraphMaker(blocks=4).graph()

    assert node_changes(nodes(), nodes(layer_table(longer), longer)) == ()
    assert node_changes(nodes(layer_table(longer), longer), nodes()) == ()


# -- real engines: TensorRT-RTX 1.6 and 1.7, the same ONNX file ------------------------------------------------------------------


def real(version: str, tower: str, folder: Path) -> EngineNodes:
    """Operators are read from the names that the exporter gave these nodes; blocks are not needed here."""
    log = folder / f"{version}.log"
    log.write_bytes(gzip.decompress((DATA / f"rtx-{version}-sm89-vit-b-32-{tower}-modelopt.log.gz").read_bytes()))
    table = read_layer_table(log)
    names = dict.fromkeys(name for row in table.rows for name in row.onnx_nodes)
    operators = {name: name.rsplit("/", 1)[-1].removesuffix("_1").removeprefix("TRT_FP8") for name in names}
    return EngineNodes(
        table,
        GraphRoles(
            nodes=tuple(NodeRole(name=name, op_type=operator, block=None) for name, operator in operators.items()),
            inputs=("image", "tokens"),
            attentions=(),
        ),
    )


def test_the_patch_embedding_weights_that_1_6_widens_and_1_7_keeps_are_named(tmp_path):
    old, new = (real(version, "image", tmp_path) for version in ("1.6.1", "1.7.1"))

    assert [(change.node, change.aspect, change.a, change.b) for change in node_changes(old, new) if change.effect is Effect.BETTER] == [
        ("/tower/conv1/Conv", Aspect.WEIGHTS, "Half 768x4x32x32 (6,291,456 bytes)", "FP8 768x3x32x32 (2,359,296 bytes)")
    ]
    assert regressions(old, new, Severity.GATE) == ()
    assert [one.node for one in regressions(new, old, Severity.GATE)] == ["/tower/conv1/Conv"]


def test_the_softmax_quantization_that_1_7_leaves_alone_is_named_in_every_block(tmp_path):
    old, new = (real(version, "text", tmp_path) for version in ("1.6.1", "1.7.1"))

    found = {one.node for one in regressions(old, new, Severity.GATE)}

    softmax = [f"/tower/transformer/resblocks.{index}/attn/Softmax" for index in range(12)]
    assert found == {f"{name}/{operator}Linear" for name in softmax for operator in ("Quantize", "Dequantize")}


def test_attention_of_which_no_layer_names_a_part_cannot_be_judged():
    rows = []
    for row in TABLE.rows:
        if "b1/softmax" in row.onnx_nodes:
            rows += [replace(row, onnx_nodes=("b1/scores",)), replace(row, onnx_nodes=("b1/context",))]
        else:
            rows.append(row)

    changes = node_changes(nodes(), nodes(replace(TABLE, rows=tuple(rows))))

    [change] = [change for change in changes if change.aspect is Aspect.ATTENTION]
    assert (change.node, change.effect, change.a, change.b) == ("b1/softmax", Effect.UNKNOWN, "one fused layer", "named in part")
