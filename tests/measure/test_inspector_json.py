"""Layer tables from the engine inspector: real documents of TensorRT 10.6, and one in the spelling of TensorRT 11."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from harness.errors import UnreadableLayerTable
from harness.measure.layers import read_layer_table
from harness.records.observations import LayerTable, LayerTensor

DATA = Path(__file__).parent / "data"
HOPPER = Path(__file__).parents[2] / "docs/data/hopper-trt-10.6"
HAND_MADE_11 = DATA / "hand-made-trt-11-vit-b-32-image-linear.json"


def hopper(name: str) -> LayerTable:
    return read_layer_table(HOPPER / f"ViT-B-32-{name}.layers.json.gz")


def layer(**changes: object) -> dict[str, object]:
    operand = {"Name": "x", "Dimensions": [8, 4], "Format/Datatype": "FP8"}
    product = {
        "Name": "fc",
        "LayerType": "gemm",
        "Inputs": [operand],
        "Outputs": [{**operand, "Name": "y"}],
        "Metadata": "[ONNX Layer: /fc]",
    }
    return product | changes


def document(tmp_path: Path, *layers: object, **changes: object) -> Path:
    path = tmp_path / "layers.json"
    path.write_text(json.dumps({"Layers": layers or [layer()], "Bindings": ["x", "y"]} | changes))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableLayerTable) as caught:
        read_layer_table(path)
    assert str(path) in str(caught.value)
    assert "ProfilingVerbosity.DETAILED" in str(caught.value)
    return str(caught.value)


# Counted in the documents by hand.
@pytest.mark.parametrize(
    ("name", "rows", "kinds"),
    [
        ("image-fp16_fixed_128", 93, {"kgen": 40, "gemm": 37, "fusion": 12, "Reformat": 2, "CaskConvolution": 1, "shape_call": 1}),
        ("image-linear_fixed_128", 116, {"kgen": 63, "gemm": 37, "fusion": 12, "Reformat": 2, "CaskConvolution": 1, "shape_call": 1}),
        ("image-attention_fixed_128", 165, {"kgen": 88, "gemm": 61, "fusion": 12, "Reformat": 2, "CaskConvolution": 1, "shape_call": 1}),
        ("text-linear_8_8_8", 113, {"kgen": 63, "gemm": 37, "fusion": 12, "shape_call": 1}),
    ],
)
def test_every_row_of_a_real_document_is_read_with_the_compilers_word_for_its_kind(name, rows, kinds):
    table = hopper(name)

    assert table.source == "engine inspector JSON of TensorRT 10"
    assert (len(table.rows), Counter(row.kind for row in table.rows)) == (rows, kinds)


@pytest.mark.parametrize("name", ["image-linear_fixed_128", "image-linear_1_1_1", "image-attention_fixed_128", "text-linear_fixed_128"])
def test_every_fp8_product_of_a_real_engine_reads_one_activation_and_one_matrix_of_weights(name):
    table = hopper(name)
    weighted = [row for row in table.rows if row.kind in ("gemm", "fusion") and any(node.endswith("/Add") for node in row.onnx_nodes)]

    assert table.lists_constants
    assert len(weighted) == 48
    for row in weighted:
        assert [tensor.datatype for tensor in row.inputs] == ["FP8"]
        assert [tensor.datatype for tensor in row.constants].count("FP8") == 1


def test_scales_and_biases_of_a_real_product_are_constants_beside_its_weights():
    product = next(row for row in hopper("image-linear_fixed_128").rows if row.kind == "gemm")

    assert [(tensor.datatype, tensor.shape) for tensor in product.inputs] == [("FP8", (6400, 768))]
    assert [(tensor.datatype, tensor.shape) for tensor in product.constants] == [
        ("FP8", (3, 768, 768)),
        ("Float", (1,)),
        ("Float", (1,)),
        ("Half", (3, 1, 768)),
    ]
    assert {f"/tower/transformer/resblocks.0/attn/{part}/MatMul" for part in "qkv"} <= set(product.onnx_nodes)
    assert product.tactic.startswith("sm90_xmma_gemm_e4m3f16_e4m3f32_f32_tn_n_tilesize128x128x128")


def test_fused_attention_of_a_real_engine_reads_q_k_and_v_and_its_mask_is_a_constant():
    image, text = (
        [row for row in hopper(name).rows if row.name.startswith("_gemm_mha_v2")]
        for name in ("image-linear_fixed_128", "text-linear_fixed_128")
    )

    assert len(image) == len(text) == 12
    assert {tuple(tensor.datatype for tensor in row.inputs) for row in (*image, *text)} == {("Half", "Half", "Half")}
    assert {len(row.constants) for row in image} == {0}
    assert {tuple(tensor.shape for tensor in row.constants) for row in text} == {((1, 1, 77, 77),)}


def test_the_shapes_that_an_engine_for_any_batch_reads_are_constants_beside_q_k_and_v():
    table = read_layer_table(DATA / "trt-10.6-h200-vit-b-32-text-fp16.json.gz")
    fused = [row for row in table.rows if row.name.startswith("_gemm_mha_v2")]

    assert len(fused) == 12
    assert {tuple(tensor.datatype for tensor in row.inputs) for row in fused} == {("Half", "Half", "Half")}
    assert {tuple(tensor.datatype for tensor in row.constants) for row in fused} == {("Half", *["Int64"] * 7)}
    assert [(port.name, port.datatype, port.shape) for port in table.ports] == [("t", "Int64", (-1, 77)), ("out", "Half", (-1, 512))]


def test_a_real_convolution_has_the_weights_that_it_does_not_list_as_operands():
    convolution = next(row for row in hopper("image-fp16_fixed_128").rows if row.kind == "CaskConvolution")

    assert convolution.onnx_nodes == ("/tower/conv1/Conv",)
    assert convolution.constants == (LayerTensor(name="Weights", shape=(768 * 3 * 32 * 32,), datatype="Half"),)


@pytest.mark.parametrize(("tower", "port"), [("image", ("image", "Half", (128, 3, 224, 224))), ("text", ("tokens", "Int64", (128, 77)))])
def test_bindings_get_the_type_that_the_layers_use_them_with(tower, port):
    ports = hopper(f"{tower}-linear_fixed_128").ports

    assert [(one.name, one.datatype, one.shape) for one in ports] == [port, ("embedding", "Half", (128, 512))]


def test_bindings_that_no_layer_touches_or_two_type_differently_leave_the_ports_unknown(tmp_path):
    assert read_layer_table(document(tmp_path, Bindings=["x", "y", "z"])).ports == ()

    other = layer(Name="other", Inputs=[{"Name": "x", "Dimensions": [8, 4], "Format/Datatype": "Half"}], Outputs=[])

    assert read_layer_table(document(tmp_path, layer(), other)).ports == ()


def test_the_spelling_of_tensorrt_11_gives_the_rows_that_the_log_gives():
    table, log = (read_layer_table(path) for path in (HAND_MADE_11, DATA / "rtx-1.7.1-sm89-vit-b-32-image-linear.log.gz"))

    assert json.loads(HAND_MADE_11.read_text())["Comment"].startswith("Made by hand")
    assert table.source == "engine inspector JSON of TensorRT 11"
    assert table.rows == log.rows[:15]
    assert table.lists_constants
    assert [(port.name, port.datatype, port.shape) for port in table.ports] == [
        ("image", "Half", (-1, 3, 224, 224)),
        ("out", "Half", (-1, 512)),
    ]
    assert [(port.name, port.datatype, port.shape) for port in table.ports] == [
        (port.name, port.datatype, port.shape) for port in log.ports
    ]


def test_a_document_is_known_by_its_keys_whatever_its_name_and_packing(tmp_path):
    for source, name in ((HOPPER / "ViT-B-32-text-linear_8_8_8.layers.json.gz", "trt-11.log"), (HAND_MADE_11, "trt-10.6.json.gz")):
        renamed = tmp_path / name
        renamed.write_bytes(source.read_bytes())
        assert read_layer_table(renamed) == read_layer_table(source)


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("Row major linear FP8 format", "FP8"),
        ("Row major linear FP8 format (kLINEAR)", "FP8"),
        ("Channel major FP16 format where channel % 8 == 0", "FP16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "Int8"),
        ("Half", "Half"),
        ("FP8", "FP8"),
        ("N/A due to dynamic shapes", "N/A due to dynamic shapes"),
    ],
)
def test_the_word_for_a_type_is_found_in_a_sentence(sentence, word, tmp_path):
    operand = {"Name": "x", "Dimensions": [8, 4], "Format/Datatype": sentence}
    (row,) = read_layer_table(document(tmp_path, layer(Inputs=[operand]))).rows

    assert row.inputs[0].datatype == word
    assert row.inputs[0].format == ("" if word == sentence else sentence)


def test_a_document_that_lists_no_constant_at_all_says_so(tmp_path):
    assert not read_layer_table(document(tmp_path)).lists_constants
    with_weights = layer(Inputs=[*layer()["Inputs"], {"Name": "w", "Dimensions": [4, 4], "Format/Datatype": "FP8"}])
    table = read_layer_table(document(tmp_path, with_weights))

    assert table.lists_constants
    assert [tensor.name for tensor in table.rows[0].constants] == ["w"]


def test_a_document_whose_layers_have_a_list_of_constants_lists_them_though_all_are_empty(tmp_path):
    assert read_layer_table(document(tmp_path, layer(Constants=[]))).lists_constants


@pytest.mark.parametrize("name", ["/a, b", 'q"0"', "tab\there", "Größe", "x]y["])
def test_any_node_name_is_kept_whole(name, tmp_path):
    metadata = f"[ONNX Layer: {name}]\x1f[ONNX Layer: /next]"
    path = document(tmp_path, layer(Metadata=metadata))

    assert read_layer_table(path).rows[0].onnx_nodes == (name, "/next")


def test_control_characters_that_are_not_escaped_are_read(tmp_path):
    path = document(tmp_path, layer(Metadata="[ONNX Layer: a]\x1f[ONNX Layer: b]"))
    path.write_text(path.read_text().replace("\\u001f", "\x1f"))

    assert read_layer_table(path).rows[0].onnx_nodes == ("a", "b")


def test_a_table_of_names_only_is_refused_with_the_option_that_mends_it(tmp_path):
    words = refusal(document(tmp_path, "/conv1/Conv", "fc_myl0_1"))

    assert "LAYER_NAMES_ONLY" in words
    assert "gives 1 of its 2 layers by name only" in refusal(document(tmp_path, layer(), "fc_myl0_1"))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_document_that_is_cut_is_refused_wherever_it_is_cut(kept, tmp_path):
    whole = gzip.decompress((HOPPER / "ViT-B-32-image-linear_fixed_128.layers.json.gz").read_bytes())
    path = tmp_path / "cut.json"
    path.write_bytes(whole[: int(len(whole) * kept)])

    assert "no whole JSON document" in refusal(path)


def test_a_compressed_document_that_is_cut_is_refused(tmp_path):
    packed = (HOPPER / "ViT-B-32-image-linear_fixed_128.layers.json.gz").read_bytes()
    path = tmp_path / "cut.json.gz"
    for content in (packed[: len(packed) // 2], packed[:20] + b"damage" + packed[26:], packed[:4]):
        path.write_bytes(content)
        assert "cut or damaged" in refusal(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"\x00\x01ftrt\x00plan", "binary"),
        (b"\x89\xff\xfe not a table", "no layer table"),
        (b'{"model": 1}', 'a list "Layers"'),
        (b"[]", 'a list "Layers"'),
        (b'["a", "b"]', 'a list "Layers"'),
        (b'{"Layers": {}}', 'a list "Layers"'),
        (b'{"Layers": []}', "no inputs and outputs"),
        (b'{"Layers": [], "Bindings": []}', "without rows"),
        (b'{"Layers": [], "I/O Tensors": []}', "without rows"),
        (b'{"Layers": [3], "Bindings": []}', "$.Layers[0]"),
        (b'{"Layers": [{"Name": "a", "LayerType": "gemm"}], "Bindings": []}', "missing required field `Inputs`"),
        (b'{"Layers": [{"Name": "a", "LayerType": "gemm", "Inputs": [{"Name": "x"}], "Outputs": []}], "Bindings": []}', "no type for x"),
        (b'{"Layers": ' + b"[" * 200_000, "JSON"),
        (b'{"Layers": [' + b"9" * 5_000 + b"]}", "JSON"),
    ],
)
def test_what_is_no_inspectors_document_is_refused_in_words(content, words, tmp_path):
    path = tmp_path / "odd.json"
    path.write_bytes(content)

    assert words in refusal(path)


def test_a_file_far_larger_than_any_table_is_refused_without_being_read_whole(tmp_path):
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.write(b"{")
        file.truncate(3 * 2**30)  # sparse: takes no space

    assert "more than 134217728 bytes" in refusal(path)


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(tmp_path):
    path = tmp_path / "bomb.json.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(129):
            file.write(b" " * 2**20)

    assert "more than 134217728 bytes" in refusal(path)


def test_a_folder_is_refused(tmp_path):
    assert "cannot be read" in refusal(tmp_path)
