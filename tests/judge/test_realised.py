from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.judge.engine_rows import tensor_bytes
from harness.judge.realised import Realised, realised_nodes
from harness.measure.layers import read_layer_table
from harness.records.engine_nodes import RealisedType
from harness.records.observations import LayerRow, LayerTable, LayerTensor

DATA = Path(__file__).parent / "data"
CONVOLUTION = "/tower/conv1/Conv"


def real(name: str, folder: Path) -> Mapping[str, Realised]:
    log = folder / f"{name}.log"
    log.write_bytes(gzip.decompress((DATA / f"rtx-{name}-modelopt.log.gz").read_bytes()))
    return realised_nodes(read_layer_table(log))


def tensor(datatype: str, *shape: int) -> LayerTensor:
    return LayerTensor(name="x", shape=shape or (-1, 8), datatype=datatype)


def row(kind: str, inputs: str, constants: str = "", *nodes: str) -> LayerRow:
    """A layer that reads these types; a constant is `TYPE` or `TYPE:ELEMENTS`."""
    split = [word.partition(":") for word in constants.split()]
    return LayerRow(
        name=f"{kind} layer",
        kind=kind,
        inputs=tuple(tensor(word) for word in inputs.split()),
        constants=tuple(tensor(word, int(count or 64)) for word, _, count in split),
        outputs=(),
        tactic="",
        onnx_nodes=nodes or ("n",),
    )


def realised(*rows: LayerRow, lists_constants: bool = True) -> Mapping[str, Realised]:
    return realised_nodes(LayerTable(rows=rows, source="made by hand", lists_constants=lists_constants))


@pytest.mark.parametrize(
    ("kind", "inputs", "constants", "expected"),
    [
        ("gemm", "FP8", "FP8 Float:1 Float:1", "fp8"),
        ("runtime_fusion", "FP8 Half", "FP8 Half", "fp8"),  # a residual in half precision is added to an FP8 product
        ("gemm", "FP8 FP8", "Float:1", "fp8"),  # two activations
        ("gemm", "Half", "FP8", "mixed"),  # weights widened inside the kernel
        ("gemm", "FP8", "Half", "mixed"),
        ("runtime_fusion", "FP8 Half", "", "mixed"),
        ("gemm", "Half", "Half", "half"),
        ("gemm", "Float", "Float", "half"),
        ("correlation", "FP8", "FP8", "fp8"),
        ("correlation", "Half", "Half", "half"),
        ("kgen", "FP8 FP8 FP8", "Half", "fp8"),  # fused attention, with a mask
        ("kgen", "FP8 Half Half", "", "mixed"),
        ("kgen", "Half Half Half", "", "half"),
        ("kgen", "", "FP8 Half", "mixed"),  # weights widened by a kernel of their own
        ("kgen", "Int64", "FP8 Half:1", "fp8"),  # token ids look up a table
    ],
)
def test_a_node_has_the_type_that_its_layer_reads(kind, inputs, constants, expected):
    assert realised(row(kind, inputs, constants))["n"].type == expected


def test_a_node_is_what_its_product_is_and_not_what_prepares_or_finishes_it():
    pads, product, adds_bias = (
        row("kgen", "Half", "", "n", "q"),
        row("gemm", "FP8", "FP8", "n", "dq"),
        row("kgen", "Half", "Half", "n", "add"),
    )

    node = realised(pads, product, adds_bias)["n"]

    assert (node.type, node.fused_with) == (RealisedType.FP8, {"dq"})
    assert node.carriers == (pads, product, adds_bias)


def test_a_node_whose_products_differ_is_mixed():
    assert realised(row("gemm", "FP8", "FP8"), row("gemm", "Half", "Half"))["n"].type == "mixed"


def test_the_largest_constant_of_all_layers_is_what_weights_are_stored_as():
    widens, product = row("kgen", "", "FP8:4000 Half:1000"), row("correlation", "Half Half", "Float:1")

    weights = realised(widens, product)["n"].weights

    assert weights is not None
    assert (weights.datatype, tensor_bytes(weights)) == ("FP8", 4000)


def test_single_numbers_are_no_weights():
    assert realised(row("gemm", "Half Half", "Float:1 Float:1"))["n"].weights is None


def test_without_listed_constants_the_kernels_name_says_what_the_weights_are():
    named = replace(row("gemm", "FP8"), tactic="sm90_xmma_gemm_e4m3f16_e4m3f32_f32")

    assert realised(named, lists_constants=False)["n"].type == "fp8"
    assert realised(row("gemm", "FP8"), lists_constants=False)["n"].type == "mixed"


@pytest.mark.parametrize(
    ("datatype", "nbytes"),
    [
        ("FP8", 8),
        ("Half", 16),
        ("BFloat16", 16),
        ("Float", 32),
        ("Int64", 64),
        ("Row major linear FP16 format", 16),
        ("Row major linear FP32", 32),
    ],
)
def test_bytes_follow_from_the_compilers_word_for_a_type(datatype, nbytes):
    assert tensor_bytes(tensor(datatype, 2, 4)) == nbytes


def test_rtx_1_6_widens_the_fp8_patch_embedding_when_it_builds_and_1_7_keeps_it(tmp_path):
    before, after = (real(f"{version}-sm89-vit-b-32-image", tmp_path)[CONVOLUTION] for version in ("1.6.1", "1.7.1"))

    assert (before.type, after.type) == (RealisedType.HALF, RealisedType.HALF)
    assert before.weights is not None
    assert after.weights is not None
    assert (before.weights.datatype, tensor_bytes(before.weights)) == ("Half", 768 * 4 * 32 * 32 * 2)  # padded to four channels
    assert (after.weights.datatype, tensor_bytes(after.weights)) == ("FP8", 768 * 3 * 32 * 32)


def test_every_block_product_of_a_real_engine_is_fp8_and_its_attention_is_not(tmp_path):
    nodes = real("1.7.1-sm89-vit-b-32-text", tmp_path)

    def types(*parts: str) -> set[str]:
        return {nodes[f"/tower/transformer/resblocks.{index}/{part}"].type for index in range(12) for part in parts}

    assert types("attn/q/MatMul", "attn/k/MatMul", "attn/v/MatMul", "attn/out/MatMul", "mlp/c_fc/MatMul", "mlp/c_proj/MatMul") == {"fp8"}
    assert types("attn/MatMul") == {"half"}
    assert types("attn/MatMul_1") == {"mixed"}  # FP8 from the softmax, half precision from v
