"""The command `layers`: of files that builders and inspectors left, and of encoders that it builds."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from harness.backends.registry import get_backend
from harness.cli import main
from harness.contracts import Action
from harness.records.engine_nodes import EngineLayers
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.store.codec import from_json
from tests.helpers.gates import REPOSITORY, Gate
from tests.helpers.real_exports import real_export

HOPPER = REPOSITORY / "docs/data/hopper-trt-10.6"
LINEAR = HOPPER / "ViT-B-32-image-linear_fixed_128.layers.json.gz"
DATA = REPOSITORY / "tests/measure/data"

_SMALL = EngineSpec(encoder=EncoderSpec.parse("small-clip/image"), recipe=Recipe.LINEAR, backend="tensorrt_rtx", target="SM89")
_WHY_NO_RTX = get_backend("tensorrt_rtx").why_not(Action.BUILD, _SMALL)
needs_rtx = pytest.mark.skipif(_WHY_NO_RTX is not None, reason=f"tensorrt_rtx: {_WHY_NO_RTX}")


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Path:
    """The graph that the engine of `LINEAR` was built from."""
    return real_export("image-linear", tmp_path_factory.mktemp("exports"))


@pytest.fixture
def gate(tmp_path, warm_cache) -> Gate:
    """The command in a folder of its own, with the session's cache."""
    return Gate(tmp_path / "project", warm_cache)


def told(capsys, *arguments: object, code: int = 0) -> tuple[str, str]:
    assert main(["layers", *map(str, arguments)]) == code
    return capsys.readouterr()


def test_a_file_with_its_graph_is_told_block_by_block(graph, capsys):
    out, err = told(capsys, LINEAR, "--onnx", graph)

    assert err == ""
    assert "116 layers, 12 blocks" in out
    assert "588 ONNX nodes: 396 fp8, 0 mixed, 106 half, 86 unseen" in out
    assert "block 0, and 1 to 10 alike: /tower/transformer/resblocks.0/" in out
    assert "attn/Mul, attn/MatMul, attn/Softmax" in out
    assert max(map(len, out.splitlines())) <= 140


def test_all_shows_every_block(graph, capsys):
    out, _ = told(capsys, LINEAR, "--onnx", graph, "--all")

    assert all(f"block {index}: /tower/transformer/resblocks.{index}/" in out for index in range(12))
    assert "attn/q/weight_quantizer/TRT_FP8DequantizeLinear" in out


def test_json_holds_every_row_and_node(graph, capsys):
    out, _ = told(capsys, LINEAR, "--onnx", graph, "--json")

    record = from_json(EngineLayers, out.encode(), origin="stdout")
    assert (record.schema, record.file, record.encoder) == ("enginegate/layers/1", str(LINEAR), None)
    assert (len(record.rows), len(record.nodes), record.blocks) == (116, 588, 12)
    product = next(node for node in record.nodes if node.node == "/tower/transformer/resblocks.3/attn/q/MatMul")
    assert (product.op_type, product.block, product.realised, product.kind) == ("MatMul", 3, "fp8", "gemm")
    assert product.layer is not None
    assert record.rows[product.layer].name == product.kernel


def test_without_the_graph_one_line_says_why_there_are_no_blocks(capsys):
    out, err = told(capsys, LINEAR)

    assert "all layers, in engine order" in out
    assert err.count("\n") == 1
    assert "--onnx FILE" in err


@pytest.mark.parametrize("name", ["rtx-1.7.1-sm89-vit-b-32-image-linear.log.gz", "hand-made-trt-11-vit-b-32-image-linear.json"])
def test_logs_and_the_spelling_of_tensorrt_11_are_told_too(name, capsys):
    out, _ = told(capsys, DATA / name, "--json")

    record = from_json(EngineLayers, out.encode(), origin="stdout")
    fused = next(node for node in record.nodes if node.node.endswith("resblocks.0/attn/Softmax"))
    assert (fused.realised, fused.kind, fused.op_type, fused.block) == ("half", "kgen", None, None)
    assert [port.datatype for port in record.ports] == ["Half", "Half"]


def test_a_graph_whose_blocks_do_not_repeat_gives_operators_and_says_that_blocks_are_unknown(tmp_path, capsys):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="only")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT16, [2, 2]) for name in "xy")
    weight = helper.make_tensor("w", TensorProto.FLOAT16, [2, 2], [1.0] * 4)
    onnx.save(helper.make_model(helper.make_graph([node], "g", [x], [y], [weight])), tmp_path / "g.onnx")
    operand = {"Name": "x", "Dimensions": [2, 2], "Format/Datatype": "Half"}
    layer = {"Name": "k", "LayerType": "gemm", "Inputs": [operand], "Outputs": [{**operand, "Name": "y"}], "Metadata": "[ONNX Layer: only]"}
    (tmp_path / "layers.json").write_text(json.dumps({"Layers": [layer], "Bindings": ["x", "y"]}))

    out, err = told(capsys, tmp_path / "layers.json", "--onnx", tmp_path / "g.onnx", "--json")

    assert json.loads(out)["nodes"][0]["op_type"] == "MatMul"
    assert json.loads(out)["blocks"] is None
    assert "blocks are unknown (none repeats)" in err


def test_a_graph_of_another_export_is_told_apart(graph, capsys, tmp_path):
    strange = tmp_path / "layers.json"
    strange.write_text(gzip.decompress(LINEAR.read_bytes()).decode().replace("/tower/", "/other/"))

    _, err = told(capsys, strange, "--onnx", graph, code=2)

    assert "none of the nodes" in err
    half = HOPPER / "ViT-B-32-image-fp16_fixed_128.layers.json.gz"
    assert told(capsys, half, "--onnx", graph)[1] == ""
    _, err = told(capsys, HOPPER / "ViT-B-32-image-attention_fixed_128.layers.json.gz", "--onnx", graph)
    assert "96 nodes that layers name are not in" in err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b'{"Layers": ["a", "b"], "Bindings": []}', "LAYER_NAMES_ONLY"),
        (b'{"Layers": [', "no whole JSON document"),
        (b"{}", 'a list "Layers"'),
        (b"\0\0", "binary"),
        (b"text", "no layer table"),
    ],
)
def test_a_file_that_cannot_be_used_is_usage_and_one_line(content, words, tmp_path, capsys):
    path = tmp_path / "layers.json"
    path.write_bytes(content)

    out, err = told(capsys, path, code=2)

    assert (out, err.count("\n")) == ("", 1)
    assert words in err
    document, _ = told(capsys, path, "--json", code=2)
    assert json.loads(document)["error"]["code"] == "unusable_layer_table"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.log"], "absent.log is no file"),
        (["ViT-B32/image"], "ViT-B-32"),
        (["ViT-B-32/image", "--recipe", "fp17"], "fp16"),
        (["ViT-B-32/image", "--backend", "onnxruntime"], "leaves no layer table"),
        (["ViT-B-32/image", "--target", "SM80"], "FP8"),
        (["ViT-B-32/image", "--batch", "8"], "MIN/OPT/MAX"),
        (["ViT-B-32/image", "--onnx", "graph.onnx"], "--onnx has no use"),
        ([str(LINEAR), "--target", "SM89"], "--target has no use"),
        ([str(LINEAR), "--cache-dir", "cache"], "--cache-dir has no use"),
        ([str(LINEAR), "--onnx", "absent.onnx"], "absent.onnx"),
    ],
)
def test_what_cannot_be_meant_is_usage(arguments, words, capsys):
    out, err = told(capsys, *arguments, code=2)

    assert out == ""
    assert words in err
    assert "Traceback" not in err


@needs_rtx
def test_an_encoder_is_built_and_told(gate):
    result = gate.command("layers", "small-clip/image", "--json")

    assert result.code == 0, result.stderr
    record = from_json(EngineLayers, result.stdout.encode(), origin="stdout")
    assert (record.encoder, record.engine, record.file) == ("small-clip/image", "linear tensorrt_rtx/SM89", None)
    assert (record.blocks, record.source) == (3, "TensorRT-RTX build log")
    products = [node for node in record.nodes if node.op_type == "MatMul" and node.operands is not None and node.operands.weights == "FP8"]
    assert {node.realised for node in products} == {"fp8"}
    assert len(products) == 18


def test_an_encoder_on_the_fake_backend_is_told_anywhere(gate):
    result = gate.command("layers", "small-clip/image", "--backend", "fake")

    assert result.code == 0, result.stderr
    assert result.stdout.startswith("small-clip/image linear fake\nTensorRT-RTX build log: ")
    assert "block 0, and 1 to 2 alike" in result.stdout


def test_a_reader_who_has_seen_enough_does_no_harm(graph):
    command = f"{sys.executable} -m harness layers {LINEAR} --onnx {graph} --all | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
