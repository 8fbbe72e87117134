import pytest

from harness.judge.engine_rows import convolution_not_fp8, is_fp8, multiplies_fp8_activations, why_not_fp8
from harness.records.observations import LayerRow, LayerTensor

FP8_TACTIC = "sm90_xmma_gemm_e4m3f16_e4m3f32_f32_tn_n_tilesize128x128x128"


def tensors(*datatypes: str) -> tuple[LayerTensor, ...]:
    return tuple(LayerTensor(name=f"t{index}", shape=(4, 4), datatype=datatype) for index, datatype in enumerate(datatypes))


def row(kind: str, inputs: tuple[str, ...], constants: tuple[str, ...] = (), tactic: str = "") -> LayerRow:
    return LayerRow(
        name="layer", kind=kind, inputs=tensors(*inputs), constants=tensors(*constants), outputs=(), tactic=tactic, onnx_nodes=("fc",)
    )


@pytest.mark.parametrize("kind", ["gemm", "fusion", "runtime_fusion"])
def test_a_product_of_fp8_activations_and_fp8_weights_is_fp8_beside_its_scales_and_bias(kind):
    assert why_not_fp8([row(kind, ("FP8",), ("FP8", "Float", "Float", "Half"))]) is None


@pytest.mark.parametrize(("inputs", "constants"), [(("Half",), ("FP8",)), (("FP8",), ("Half",)), (("Half",), ("Half",)), (("FP8",), ())])
def test_a_product_with_one_operand_of_another_type_is_not_fp8(inputs, constants):
    assert "layer multiplies" in why_not_fp8([row("gemm", inputs, constants, FP8_TACTIC)])


def test_a_kernel_that_only_prepares_a_product_does_not_decide():
    prepares = row("kgen", ("Float",), ("Half",))

    assert why_not_fp8([prepares, row("gemm", ("FP8",), ("FP8",))]) is None
    assert why_not_fp8([prepares]) == "no matrix product carries it, only kgen"


def test_where_no_weights_are_listed_the_kernels_name_has_to_say_fp8():
    assert why_not_fp8([row("gemm", ("FP8",), tactic=FP8_TACTIC)], lists_constants=False) is None
    assert why_not_fp8([row("gemm", ("Half",), tactic=FP8_TACTIC)], lists_constants=False) is not None

    unnamed = why_not_fp8([row("gemm", ("FP8",), tactic="sm80_xmma_gemm_f16f16_f16f16_f16")], lists_constants=False)

    assert unnamed == "layer layer multiplies FP8 activations with unlisted weights"


@pytest.mark.parametrize("kind", ["CaskConvolution", "correlation"])
def test_a_convolution_is_known_in_every_compilers_word(kind):
    assert convolution_not_fp8([row(kind, ("FP8",), ("FP8",))]) is None
    assert convolution_not_fp8([row(kind, ("Half",), ("FP8",))]) == "its convolution reads no FP8"
    assert convolution_not_fp8([row("kgen", ("FP8",), ("FP8",))]) == "no convolution carries it, only kgen"


def test_two_activations_are_multiplied_in_fp8_only_where_both_are():
    assert multiplies_fp8_activations([row("gemm", ("FP8", "FP8"), ("Float", "Float"))])
    assert not multiplies_fp8_activations([row("gemm", ("FP8", "Half"))])
    assert not multiplies_fp8_activations([row("gemm", ("FP8",), ("FP8",))])
    assert not multiplies_fp8_activations([row("kgen", ("FP8", "FP8"))])


@pytest.mark.parametrize("word", ["FP8", "Row major linear FP8 format", "Row major linear FP8 format (kLINEAR)"])
def test_fp8_is_read_as_a_word_in_any_sentence(word):
    assert is_fp8(LayerTensor(name="x", shape=(1,), datatype=word))


def test_half_is_not_fp8():
    assert not is_fp8(LayerTensor(name="x", shape=(1,), datatype="Row major linear FP16 format"))
