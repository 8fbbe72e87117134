"""Every check of the compiled engine, E1 to E10, node by node through its layer table."""

import pytest

from harness.judge.engine_checks.all_checks import CHECKS, judgement
from harness.judge.engine_checks.moves import bytes_moved, moving_rows
from harness.judge.memory import bytes_against_baseline

pytestmark = pytest.mark.graph


@pytest.fixture
def expect_none_of(engine, observe, expect):
    """Say that a check must find nothing in the engine."""

    def expecting(check, *, beside_fp16=False):
        expect(judgement(check, observe.engine_evidence(engine, beside_fp16=beside_fp16), observe.promise(engine)))

    return expecting


@pytest.mark.gates("check_E1", needs="layers")
def test_the_layers_name_the_nodes_that_they_are_judged_by(expect_none_of):
    expect_none_of("E1")


@pytest.mark.gates("check_E2", needs="layers", quantized=True)
def test_every_promised_product_multiplies_fp8(expect_none_of):
    expect_none_of("E2")


@pytest.mark.gates("check_E3", needs="layers", quantized=True)
def test_no_heavy_product_is_left_out_of_fp8(expect_none_of):
    expect_none_of("E3")


@pytest.mark.gates("check_E4", needs="layers")
def test_attention_of_every_block_is_one_layer(engine, expect_none_of, require_attention):
    require_attention(engine)
    expect_none_of("E4")


@pytest.mark.gates("check_E5", needs="layers", quantized=True)
def test_no_layer_does_nothing_but_quantize(expect_none_of):
    expect_none_of("E5")


@pytest.mark.gates("check_E6", needs="layers", quantized=True)
def test_no_layer_quantizes_and_undoes_it(expect_none_of):
    expect_none_of("E6")


@pytest.mark.gates("check_E7", "reformat_bytes", needs="layers")
def test_no_more_layers_only_move_numbers_than_approved(engine, observe, expect, expect_none_of):
    expect_none_of("E7")
    moved = bytes_moved(moving_rows(observe.engine_evidence(engine)))
    approved, margin = observe.approved("reformat_bytes", engine), observe.margin("reformat_bytes", engine)
    is_same_graph = observe.is_approved_graph(engine)
    expect(bytes_against_baseline("reformat_bytes", moved, approved, is_same_graph=is_same_graph, relative_margin=margin))


@pytest.mark.gates("check_E8", needs="layers")
def test_the_engine_keeps_as_many_weight_bytes_as_its_shapes_say(expect_none_of):
    expect_none_of("E8")


@pytest.mark.gates("check_E9", needs="layers")
def test_types_outside_are_kept_and_fp32_inside_is_declared(engine, expect_none_of):
    expect_none_of("E9", beside_fp16=engine.recipe.is_quantized)


@pytest.mark.gates(needs="layers")
def test_what_the_engine_is_made_of_is_reported(engine, observe, report):
    report(CHECKS["E10"](observe.engine_evidence(engine), observe.promise(engine)))
