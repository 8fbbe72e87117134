"""Checks E1 to E10 on real layer tables: clean ones give no finding, and every planted defect is found where it was planted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

import pytest

from harness.judge.engine_checks.all_checks import CHECKS, all_findings, judgement
from harness.judge.engine_checks.coverage import coverage
from harness.judge.engine_checks.evidence import EngineEvidence
from harness.judge.engine_checks.moves import bytes_moved, moves_by_block, moving_rows
from harness.judge.engine_checks.size import weight_bounds
from harness.records.observations import LayerTensor
from harness.records.verdict import Severity, Status
from tests.helpers.engine_defects import DEFECTS, RECIPES, Defect, quantization_of_a_block_not_named
from tests.helpers.engine_tables import promise, stored_engine

GATES = tuple(f"E{number}" for number in range(1, 10))
FIRST, MIDDLE, LAST = 0, 6, 11
CASES = [(defect, recipe) for defect in DEFECTS for recipe in defect.recipes]
PAIRS = [pair for pair in combinations([one for one in DEFECTS if one.check != "E1"], 2) if pair[0].check != pair[1].check]


def found_in(seen: EngineEvidence, recipe: str) -> set[tuple[str, str | None]]:
    return {(one.check, one.node) for one in all_findings(seen, promise(recipe)) if one.severity is Severity.GATE}


def planted(seen: EngineEvidence, defects: Iterable[tuple[Defect, int]]) -> tuple[EngineEvidence, set[tuple[str, str | None]]]:
    places = set()
    for defect, block in defects:
        seen, node = defect.plant(seen, block)
        places.add((defect.check, node))
    return seen, places


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("recipe", ["fp16", *RECIPES])
def test_clean_engines_give_no_finding(tower, recipe):
    assert found_in(stored_engine(tower, recipe), recipe) == set()


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_gate_check_passes_a_clean_engine_and_says_how_much_it_looked_at(recipe):
    answers = {check: judgement(check, stored_engine("image", recipe), promise(recipe)) for check in GATES}

    assert {answer.status for answer in answers.values()} == {Status.PASS}
    assert all(answer.n > 0 for answer in answers.values())
    groups = {"linear": 168, "attention": 264}[recipe]  # of 216 and 312 nodes, the pairs that q, k and v share counted once
    assert answers["E1"].n == 98 + groups
    assert (answers["E7"].observed, answers["E7"].bound, answers["E7"].unit) == (1, 1, "layers")


@pytest.mark.parametrize("block", [FIRST, MIDDLE, LAST])
@pytest.mark.parametrize(("defect", "recipe"), CASES, ids=[f"{defect.check}-{defect.name}-{recipe}" for defect, recipe in CASES])
def test_every_defect_is_found_by_its_check_at_its_node(defect, recipe, block):
    seen, places = planted(stored_engine("image", recipe), [(defect, block)])

    assert places <= found_in(seen, recipe)
    assert judgement(defect.check, seen, promise(recipe)).status is (Status.INVALID if defect.check == "E1" else Status.FAIL)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " and ".join(defect.name for defect in pair))
def test_two_defects_at_once_are_both_found(pair):
    recipe = "attention" if any(defect.recipes == ("attention",) for defect in pair) else "linear"

    seen, places = planted(stored_engine("image", recipe), [(pair[0], FIRST), (pair[1], LAST)])

    assert places <= found_in(seen, recipe)


@pytest.mark.parametrize("check", GATES)
def test_a_gate_check_has_a_planted_defect(check):
    assert check in {defect.check for defect in DEFECTS}


@pytest.mark.parametrize("check", GATES)
def test_below_the_coverage_floor_no_check_passes(check):
    seen, _ = quantization_of_a_block_not_named(stored_engine("image", "linear"), MIDDLE)

    answer = judgement(check, seen, promise("linear"))

    assert (answer.status, answer.observed) == (Status.INVALID, None)
    assert "cannot judge" in answer.reason
    assert "98 of 98 products and 154 of 168 Q/DQ nodes" in answer.reason


def test_a_pair_that_the_compiler_folded_is_within_the_floor():
    clean = stored_engine("image", "linear")
    lost = coverage(clean).groups[0][0].name
    rows = tuple(replace(row, onnx_nodes=tuple(name for name in row.onnx_nodes if name != lost)) for row in clean.table.rows)

    assert found_in(replace(clean, table=replace(clean.table, rows=rows)), "linear") == set()


def test_a_finding_names_node_and_block_and_says_what_to_do():
    defect = next(one for one in DEFECTS if one.name == "activation_in_half")
    seen, places = planted(stored_engine("image", "linear"), [(defect, MIDDLE)])

    [found] = CHECKS["E2"](seen, promise("linear"))

    assert ("E2", found.node) in places
    assert found.block == MIDDLE
    assert "multiplies Half activations with FP8 weights" in found.found
    assert "look at what stands between" in found.message


def test_a_budget_for_layers_that_only_quantize_is_kept_to():
    defect = next(one for one in DEFECTS if one.name == "quantize_alone")
    one, _ = planted(stored_engine("image", "linear"), [(defect, FIRST)])
    two, _ = planted(one, [(defect, LAST)])
    policy = replace(promise("linear"), unfused_qdq=1)

    assert [len(CHECKS["E5"](seen, policy)) for seen in (one, two)] == [0, 2]


def test_without_a_baseline_moving_layers_are_not_judged():
    answer = judgement("E7", replace(stored_engine("image", "linear"), approved_moves=None), promise("linear"))

    assert (answer.status, answer.observed, answer.bound) == (Status.NO_BASELINE, 1, None)
    assert "--baselines=create" in answer.reason


def test_the_only_layer_that_moves_pads_the_picture_by_a_channel():
    clean = stored_engine("image", "linear")

    assert bytes_moved(moving_rows(clean)) == 2 * 224 * 224 * (3 + 4)
    assert moves_by_block(clean) == {None: (1, 702_464)}


def test_a_kernel_that_scales_what_a_merged_product_made_does_not_only_move():
    """q, k and v of the text tower are one product, whose three weight scales the next kernel multiplies with."""
    clean = stored_engine("text", "linear")

    assert sum(row.name.startswith("__myl_MulAdd") for row in clean.table.rows) == 12
    assert moving_rows(clean) == []


def test_a_source_that_lists_ports_is_believed_over_its_layers():
    clean = stored_engine("image", "linear")
    ports = (LayerTensor(name="image", shape=(), datatype="Float"), LayerTensor(name="embedding", shape=(), datatype="Half"))

    [found] = CHECKS["E9"](replace(clean, table=replace(clean.table, ports=ports)), promise("linear"))

    assert (found.node, found.found, found.expected) == ("/tower/conv1/Conv", "image is Float", "Half, as in the FP16 engine")


def test_a_product_may_not_write_fp32_because_a_norm_is_fused_with_it():
    clean = stored_engine("image", "linear")
    node = clean.view.blocks[0].gemms[-1].node.name
    norm = next(one.name for one in clean.view.graph.nodes if one.op_type == "LayerNormalization")
    rows = tuple(
        replace(row, onnx_nodes=(norm, *row.onnx_nodes), outputs=tuple(replace(one, datatype="Float") for one in row.outputs))
        if node in row.onnx_nodes
        else row
        for row in clean.table.rows
    )

    [found] = CHECKS["E9"](replace(clean, table=replace(clean.table, rows=rows)), promise("linear"))

    assert found.node == node


def test_weight_bytes_that_no_builder_told_are_not_judged():
    answer = judgement("E8", replace(stored_engine("image", "linear"), memory=None), promise("linear"))

    assert answer.status is Status.INVALID
    assert "does not say how many weight bytes" in answer.reason


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("recipe", ["fp16", *RECIPES])
def test_real_weight_bytes_lie_well_inside_their_bounds(tower, recipe):
    clean = stored_engine(tower, recipe)
    floor, ceiling = weight_bounds(clean.view, promise(recipe))

    assert clean.memory is not None
    assert abs(2 * clean.memory.weights_bytes - floor - ceiling) / (ceiling - floor) < 0.25


def test_an_engine_with_fp16_weights_is_too_large_and_every_wide_weight_is_named():
    clean, fp16 = stored_engine("image", "linear"), stored_engine("image", "fp16")
    rows = tuple(
        replace(row, constants=tuple(replace(one, datatype="Half" if one.datatype == "FP8" else one.datatype) for one in row.constants))
        for row in clean.table.rows
    )

    found = CHECKS["E8"](replace(clean, memory=fp16.memory, table=replace(clean.table, rows=rows)), promise("linear"))

    assert [one.node for one in found] == [gemm.node.name for block in clean.view.blocks for gemm in block.gemms]
    assert found[0].found == "177,121,024 weight bytes"


def test_an_operator_that_no_gate_file_declares_may_not_be_fp32():
    undeclared = replace(promise("linear"), kept_fp32=())

    found = CHECKS["E9"](stored_engine("image", "linear"), undeclared)

    assert ["/tower/ln_post/LayerNormalization" in nodes_beside(one.node) for one in found] == [True]
    assert "FP32 in nothing only" in found[0].message


def nodes_beside(node: str) -> set[str]:
    return {name for row in stored_engine("image", "linear").carriers[node] for name in row.onnx_nodes}


def test_ports_that_a_table_does_not_show_cannot_be_compared():
    clean = stored_engine("image", "linear")
    assert clean.reference is not None
    bare = replace(clean.reference, ports=(), rows=clean.reference.rows[5:10])

    answer = judgement("E9", replace(clean, reference=bare), promise("linear"))

    assert answer.status is Status.INVALID
    assert "its FP16 twin does not say the type of embedding" in answer.reason


def test_the_description_of_an_engine_gates_nothing():
    [found] = CHECKS["E10"](stored_engine("image", "attention"), promise("attention"))

    assert found.severity is Severity.REPORT
    for fact in ("138 layers on 1 stream", "92,202,372 weight bytes", "52,723,712 activation bytes", "gemm_mha_v2 x 12", "264 of 264 Q/DQ"):
        assert fact in found.message


def test_what_a_recipe_of_reports_loses_is_reported():
    defect = next(one for one in DEFECTS if one.check == "E5")
    seen, _ = planted(stored_engine("image", "linear"), [(defect, FIRST)])

    answer = judgement("E5", seen, replace(promise("linear"), severity=Severity.REPORT))

    assert (answer.status, answer.severity, answer.observed) == (Status.FAIL, Severity.REPORT, 1)


def test_types_are_not_kept_as_long_as_nobody_says_what_they_were():
    clean = replace(stored_engine("image", "linear"), reference=None)

    answer = judgement("E9", clean, promise("linear"))

    assert (answer.status, answer.observed) == (Status.INVALID, None)
    assert "the layers of the FP16 engine are not at hand" in answer.reason
    assert judgement("E9", stored_engine("image", "fp16"), promise("fp16")).status is Status.PASS


def test_fp32_is_found_in_layers_that_name_no_node():
    clean = stored_engine("image", "linear")
    product = next(row for row in clean.table.rows if row.kind == "gemm")
    outputs = tuple(replace(tensor, datatype="Float") for tensor in product.outputs)
    widened = replace(product, name="copy", kind="kgen", onnx_nodes=(), constants=(), outputs=outputs)

    [found] = CHECKS["E9"](replace(clean, table=replace(clean.table, rows=(*clean.table.rows, widened))), promise("linear"))

    assert (found.node, found.found) == (None, f"layer copy holds {outputs[0].name} in Float")


def test_a_policy_that_promises_no_fp8_product_is_not_kept_by_fp8_products():
    assert judgement("E2", stored_engine("image", "linear"), promise("fp16")).status is Status.INVALID
