"""Real engines of TensorRT 10.6 on an H100, judged against the graphs they were built from, as the pipeline exports them."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest

from harness.judge.engine_flops import fp8_flop_share
from harness.judge.engine_graph import block_gemms_fp8, fused_attention, fused_attention_fp8, unfused_qdq
from harness.judge.structure import GraphView
from harness.measure.layers import read_layer_table
from harness.measure.onnx_graph import read_onnx_graph
from harness.records.observations import LayerTable
from harness.records.verdict import Status
from harness.store.gatefile import read_gate_file
from tests.helpers.gates import REPOSITORY
from tests.helpers.real_exports import real_export

TABLES = REPOSITORY / "docs/data/hopper-trt-10.6"
POLICIES = read_gate_file(REPOSITORY / "gate.toml")
LINEAR_BUILDS = [
    *(("image", batch) for batch in ("1_1_1", "8_8_8", "32_32_32", "128_128_128", "fixed_128")),
    *(("text", batch) for batch in ("8_8_8", "128_128_128", "fixed_128")),
]


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    """The graph of one tower and recipe."""
    folder: Path = tmp_path_factory.mktemp("exports")
    return functools.cache(lambda tower, recipe: GraphView(read_onnx_graph(real_export(f"{tower}-{recipe}", folder))))


def table(tower: str, recipe: str, batch: str = "fixed_128") -> LayerTable:
    return read_layer_table(TABLES / f"ViT-B-32-{tower}-{recipe}_{batch}.layers.json.gz")


def figures(view: GraphView, layers: LayerTable, recipe: str):
    policy = POLICIES.policy(recipe)
    judges = (block_gemms_fp8, fused_attention, fused_attention_fp8, unfused_qdq)
    return {judgement.metric: (judgement.observed, judgement.status) for judgement in (judge(view, layers, policy) for judge in judges)}


@pytest.mark.parametrize(("tower", "batch"), LINEAR_BUILDS)
def test_a_linear_engine_keeps_the_whole_promise_at_every_fixed_batch(tower, batch, view):
    layers = table(tower, "linear", batch)

    assert figures(view(tower, "linear"), layers, "linear") == {
        "block_gemms_fp8": (72, Status.PASS),
        "fused_attention": (12, Status.PASS),
        "fused_attention_fp8": (0, Status.PASS),
        "unfused_qdq": (0, Status.PASS),
    }
    share = fp8_flop_share(view(tower, "linear"), layers, POLICIES.policy("linear"), floor=0.95)
    assert (share.status, round(share.observed, 3)) == (Status.PASS, {"image": 0.963, "text": 0.975}[tower])


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_half_precision_engine_has_fused_attention_and_no_fp8(tower, view):
    layers = table(tower, "fp16")

    assert figures(view(tower, "fp16"), layers, "fp16") == {
        "block_gemms_fp8": (0, Status.PASS),
        "fused_attention": (12, Status.PASS),
        "fused_attention_fp8": (0, Status.PASS),
        "unfused_qdq": (0, Status.PASS),
    }
    assert fp8_flop_share(view(tower, "fp16"), layers, POLICIES.policy("linear"), floor=0.95).observed == 0


def test_an_attention_engine_of_10_6_computes_attention_in_fp8_and_fuses_none_of_it(view):
    """Its Q/DQ around attention were added by hand and have other names than the recipe's; all other nodes share theirs."""
    layers = table("image", "attention")
    found = figures(view("image", "attention"), layers, "attention")

    assert found["block_gemms_fp8"] == (72, Status.PASS)
    assert found["fused_attention"] == (0, Status.FAIL)
    assert found["fused_attention_fp8"] == (0, Status.FAIL)
    share = fp8_flop_share(view("image", "attention"), layers, POLICIES.policy("attention"), floor=0.97)
    assert (share.status, round(share.observed, 3)) == (Status.PASS, 0.974)


def test_every_node_that_these_engines_name_is_one_of_the_exported_graph(view):
    for tower, recipe in (("image", "fp16"), ("image", "linear"), ("text", "fp16"), ("text", "linear")):
        named = {name for row in table(tower, recipe).rows for name in row.onnx_nodes}
        assert named <= set(view(tower, recipe).op_types)


@pytest.mark.parametrize("block", [0, 5, 11])
@pytest.mark.parametrize("part", ["attn/q", "attn/out", "mlp/c_fc", "mlp/c_proj"])
def test_one_real_product_with_a_half_precision_operand_is_found(part, block, view):
    node = f"/tower/transformer/resblocks.{block}/{part}/MatMul"
    layers = table("image", "linear")
    rows = tuple(
        replace(row, inputs=tuple(replace(tensor, datatype="Half") for tensor in row.inputs)) if node in row.onnx_nodes else row
        for row in layers.rows
    )

    judgement = block_gemms_fp8(view("image", "linear"), replace(layers, rows=rows), POLICIES.policy("linear"))

    merged = {"attn/q": {f"attn/{one}" for one in "qkv"}}.get(part, {part})
    assert {finding.node for finding in judgement.findings} == {f"/tower/transformer/resblocks.{block}/{one}/MatMul" for one in merged}
    assert {finding.block for finding in judgement.findings} == {block}


def test_without_its_weights_a_real_engine_is_proven_by_the_names_of_its_kernels(view):
    layers = table("image", "linear")
    bare = tuple(replace(row, constants=()) for row in layers.rows)
    unlisted = LayerTable(rows=bare, source=layers.source, lists_constants=False)

    assert figures(view("image", "linear"), unlisted, "linear")["block_gemms_fp8"] == (72, Status.PASS)
    assert figures(view("image", "linear"), replace(unlisted, lists_constants=True), "linear")["block_gemms_fp8"] == (0, Status.FAIL)
    nameless = replace(unlisted, rows=tuple(replace(row, tactic="") for row in bare))
    assert figures(view("image", "linear"), nameless, "linear")["block_gemms_fp8"] == (0, Status.FAIL)
