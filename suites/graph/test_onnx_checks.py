"""Every check of the exported graph, O1 to O16. Needs no compiler."""

import pytest

from harness.judge.onnx_checks.all_checks import CHECKS, judgement

pytestmark = pytest.mark.graph


@pytest.fixture
def expect_none_of(prepared, observe, expect):
    """Say that a check must find nothing in the graph."""

    def expecting(check, *, beside_fp16=False):
        expect(judgement(check, observe.graph_evidence(prepared, beside_fp16=beside_fp16), observe.promise(prepared)))

    return expecting


@pytest.mark.gates("check_O1")
def test_the_file_says_what_it_means_in_standard_words(expect_none_of):
    expect_none_of("O1")


@pytest.mark.gates("check_O2", quantized=True)
def test_both_operands_of_every_block_gemm_are_quantized(expect_none_of):
    expect_none_of("O2")


@pytest.mark.gates("check_O3", quantized=True)
def test_no_product_is_quantized_on_one_side_only(expect_none_of):
    expect_none_of("O3")


@pytest.mark.gates("check_O4", quantized=True)
def test_every_quantized_weight_is_folded_and_no_pair_is_torn(expect_none_of):
    expect_none_of("O4")


@pytest.mark.gates("check_O5", quantized=True)
def test_every_scale_is_sound(expect_none_of):
    expect_none_of("O5")


@pytest.mark.gates("check_O6", quantized=True)
def test_both_nodes_of_a_pair_share_scale_and_zero_point(expect_none_of):
    expect_none_of("O6")


@pytest.mark.gates("check_O7", quantized=True)
def test_every_weight_fills_the_range_of_its_format(expect_none_of):
    expect_none_of("O7")


@pytest.mark.gates("check_O8", quantized=True)
def test_every_weight_is_that_of_the_fp16_export_up_to_rounding(expect_none_of):
    expect_none_of("O8", beside_fp16=True)


@pytest.mark.gates("check_O9", quantized=True)
def test_nothing_is_quantized_twice_or_for_nothing(expect_none_of):
    expect_none_of("O9")


@pytest.mark.gates("check_O10", quantized=True)
def test_what_the_recipe_keeps_in_fp16_is_not_quantized(expect_none_of):
    expect_none_of("O10")


@pytest.mark.gates("check_O11")
def test_every_block_looks_like_the_others(prepared, expect_none_of, require_attention):
    require_attention(prepared)
    expect_none_of("O11")


@pytest.mark.gates("check_O12")
def test_the_graph_has_as_many_quantization_nodes_as_the_recipe_makes(expect_none_of):
    expect_none_of("O12")


@pytest.mark.gates(quantized=True)
def test_readers_of_one_tensor_that_scale_it_differently_are_reported(prepared, observe, report):
    report(CHECKS["O13"](observe.graph_evidence(prepared), observe.promise(prepared)))


@pytest.mark.gates("check_O14")
def test_the_file_is_as_large_as_its_shapes_say(expect_none_of):
    expect_none_of("O14")


@pytest.mark.gates("check_O15", quantized=True)
def test_every_activation_is_scaled_by_what_calibration_saw(expect_none_of):
    expect_none_of("O15")


@pytest.mark.gates("check_O16", quantized=True)
def test_what_is_not_quantized_is_that_of_the_fp16_export(expect_none_of):
    expect_none_of("O16", beside_fp16=True)
