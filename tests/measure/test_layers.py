from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest

from harness.errors import UnreadableLayerTable
from harness.measure.layers import onnx_nodes, read_layer_table
from harness.records.observations import LayerTensor

DATA = Path(__file__).parent / "data"
HALF = "Strides: [4,1], StrideOrder: [1,0], Datatype: Half, Format: (Linear) Row major linear format }"
END = "\n\nI/O Tensors:\n Name: x, IOMode: Input\n\nEngine Metadata:\n Multi-Device: Disabled\n"


def _real(name: str, tmp_path: Path) -> Path:
    path = tmp_path / "build.log"
    path.write_bytes(gzip.decompress((DATA / f"rtx-1.7.1-sm89-vit-b-32-{name}.log.gz").read_bytes()))
    return path


def _row(name: str = "fc", operand: str = "x", metadata: str = "[ONNX Layer: /fc]", tactic: str = "t") -> str:
    return (
        f"Name: {name}, LayerType: gemm, Inputs: [ {{ Name: {operand}, Dimensions: [-1,4], {HALF}], Constants: [], Outputs: [], "
        f"TacticName: {tactic}, StreamId: 0, Metadata: {metadata}"
    )


def _log(tmp_path: Path, *rows: str, end: str = END) -> Path:
    path = tmp_path / "build.log"
    path.write_bytes(f"[INFO] before\n[VERBOSE] Layers:\n{chr(10).join(rows)}{end}[INFO] after\n".encode())
    return path


# Counted in the logs by hand: lines that start with "Name: ", operands, and entries "[ONNX Layer: ".
@pytest.mark.parametrize(
    ("name", "rows", "operands", "entries"),
    [("image-fp16", 127, 523, 340), ("image-linear", 138, 686, 508), ("text-modelopt", 232, 954, 673)],
)
def test_every_row_and_operand_of_a_real_log_is_read(name: str, rows: int, operands: int, entries: int, tmp_path: Path) -> None:
    table = read_layer_table(_real(name, tmp_path))
    assert table.source == "TensorRT-RTX build log"
    assert len(table.rows) == rows
    assert sum(len(row.inputs) + len(row.constants) + len(row.outputs) for row in table.rows) == operands
    assert sum(len(row.onnx_nodes) for row in table.rows) == entries


def test_a_merged_fp8_product_is_read_with_its_types_and_nodes(tmp_path: Path) -> None:
    table = read_layer_table(_real("image-linear", tmp_path))
    merged = [row for row in table.rows if row.kind == "gemm" and (768, 2304) in {tensor.shape for tensor in row.constants}]
    assert len(merged) == 12
    first = merged[0]
    assert [(tensor.shape, tensor.datatype) for tensor in first.inputs] == [((-1, 768), "FP8")]
    assert first.constants[0].datatype == "FP8"
    assert {f"/encoder/transformer/resblocks.0/attn/{part}/MatMul" for part in "qkv"} <= set(first.onnx_nodes)
    assert (first.tactic, first.stream) == ("__myelin_CASK_STUB", 0)


def test_fused_attention_is_in_the_linear_log_and_not_in_the_vendors(tmp_path: Path) -> None:
    fused = {
        name: sum(row.name.startswith("_gemm_mha") for row in read_layer_table(_real(name, tmp_path)).rows)
        for name in ("image-fp16", "image-linear", "text-modelopt")
    }
    assert fused == {"image-fp16": 12, "image-linear": 12, "text-modelopt": 0}


def test_the_first_row_has_no_operands_and_no_nodes(tmp_path: Path) -> None:
    first = read_layer_table(_real("image-linear", tmp_path)).rows[0]
    assert (first.kind, first.inputs, first.constants, first.outputs, first.onnx_nodes) == ("shape_call", (), (), (), ())


def test_rows_outside_the_table_are_not_layers(tmp_path: Path) -> None:
    assert len(read_layer_table(_log(tmp_path, _row())).rows) == 1


@pytest.mark.parametrize("prefix", ["[VERBOSE]", "[Severity.VERBOSE]"])
def test_the_logger_may_spell_the_severity_either_way(prefix: str, tmp_path: Path) -> None:
    path = _log(tmp_path, _row())
    path.write_text(path.read_text().replace("[VERBOSE]", prefix))
    assert len(read_layer_table(path).rows) == 1


def test_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = _log(tmp_path, _row(), _row())
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert [row.onnx_nodes for row in read_layer_table(path).rows] == [("/fc",), ("/fc",)]


@pytest.mark.parametrize(
    "name",
    ["/a, b", "q[0]+k[1]+v{2}", "x }], Constants: [", "t, Dimensions: [7]", "a, LayerType: odd", "f(x) => 'y'", "Größe\x1f", "line\nend"],
)
def test_any_name_an_onnx_file_can_give_is_kept_whole(name: str, tmp_path: Path) -> None:
    row = _row(name=name, operand=name, tactic=name, metadata=f"[ONNX Layer: {name}]\x1f[ONNX Layer: /next]")
    (read,) = read_layer_table(_log(tmp_path, row)).rows
    assert (read.name, read.kind, read.tactic, read.onnx_nodes) == (name, "gemm", name, (name, "/next"))
    assert read.inputs == (LayerTensor(name=name, shape=(-1, 4), datatype="Half", format="(Linear) Row major linear format"),)


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        ("", ()),
        ("[ONNX Layer: a]", ("a",)),
        ("[ONNX Layer: a[0]]\x1f[ONNX Layer: b]", ("a[0]", "b")),
        ("[ONNX Layer: a]\x1e[ONNX Layer: b]\x1f[ONNX Layer: a]", ("a", "b")),
        ("[ONNX Layer: a][ONNX Layer: b]", ("a", "b")),
    ],
)
def test_metadata_names_each_onnx_node_once(metadata: str, names: tuple[str, ...]) -> None:
    assert onnx_nodes(metadata) == names


def test_a_log_without_a_table_names_the_option_that_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "build.log"
    path.write_text("[INFO] Engine generation completed in 1 seconds.\n")
    with pytest.raises(UnreadableLayerTable, match=r"no layer table.*ProfilingVerbosity\.DETAILED"):
        read_layer_table(path)


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.99])
def test_a_table_that_is_cut_is_refused_wherever_it_is_cut(kept: float, tmp_path: Path) -> None:
    path = _real("image-linear", tmp_path)
    text = path.read_bytes()
    end = text.index(b"\n\nI/O Tensors:")
    path.write_bytes(text[: int(end * kept)])
    with pytest.raises(UnreadableLayerTable, match="cut before its end"):
        read_layer_table(path)


def test_a_row_that_lost_its_end_is_refused_with_its_number(tmp_path: Path) -> None:
    with pytest.raises(UnreadableLayerTable, match="row 2 of the layer table"):
        read_layer_table(_log(tmp_path, _row(), _row()[:60], _row()))


def test_a_table_of_names_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableLayerTable, match="row 1 of the layer table"):
        read_layer_table(_log(tmp_path, "__myl_Cast_myl0_1", "/fc/MatMul_myl0_2"))


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableLayerTable, match="without rows"):
        read_layer_table(_log(tmp_path, ""))


def test_two_tables_in_one_log_are_refused(tmp_path: Path) -> None:
    path = _log(tmp_path, _row())
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(UnreadableLayerTable, match="2 layer tables"):
        read_layer_table(path)


def test_a_missing_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableLayerTable, match="cannot be read"):
        read_layer_table(tmp_path / "absent.log")


def test_kinds_of_layers_are_kept_as_the_compiler_names_them(tmp_path: Path) -> None:
    kinds = Counter(row.kind for row in read_layer_table(_real("image-linear", tmp_path)).rows)
    assert kinds == {"kgen": 87, "gemm": 49, "shape_call": 1, "correlation": 1}


def test_the_log_types_the_engines_inputs_and_outputs(tmp_path: Path) -> None:
    linear = "Row major linear {} format (kLINEAR)"
    assert read_layer_table(_real("image-fp16", tmp_path)).ports == (
        LayerTensor(name="image", shape=(-1, 3, 224, 224), datatype="Half", format=linear.format("FP16")),
        LayerTensor(name="out", shape=(-1, 512), datatype="Half", format=linear.format("FP16")),
    )
    tokens, _ = read_layer_table(_real("text-modelopt", tmp_path)).ports
    assert (tokens.name, tokens.datatype, tokens.shape) == ("tokens", "Int64", (-1, 77))


def test_ports_that_cannot_be_read_are_unknown_rather_than_half_a_list(tmp_path: Path) -> None:
    path = _real("image-fp16", tmp_path)
    path.write_bytes(path.read_bytes().replace(b"IOMode: Output, DataType: Half", b"IOMode: Output"))
    assert read_layer_table(path).ports == ()


def test_a_compressed_log_is_read_like_a_plain_one(tmp_path: Path) -> None:
    packed = DATA / "rtx-1.7.1-sm89-vit-b-32-image-linear.log.gz"
    assert read_layer_table(packed) == read_layer_table(_real("image-linear", tmp_path))


@pytest.mark.parametrize("shape", ["-", "1-2,3", "1,,2", "9" * 5000])
def test_a_shape_that_is_no_list_of_numbers_is_refused_with_its_row(shape: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableLayerTable, match="row 2 of the layer table cannot be read: expected the end of Inputs"):
        read_layer_table(_log(tmp_path, _row(), _row().replace("-1,4", shape)))


def test_a_stream_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableLayerTable, match="expected TacticName, StreamId"):
        read_layer_table(_log(tmp_path, _row().replace("StreamId: 0", f"StreamId: {'9' * 5000}")))
