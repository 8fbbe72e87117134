"""Recipe `compact`, on a small encoder: the token table in FP8, and one set of artifacts with `attention` where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from harness.backends.registry import get_backend
from harness.contracts import Action
from harness.pipeline.checking import check_graph
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from tests.helpers.gates import REPOSITORY, Gate

_SMALL = EngineSpec(encoder=EncoderSpec.parse("small-clip/text"), recipe=Recipe.COMPACT, backend="tensorrt_rtx", target="SM89")
_WHY_NO_RTX = get_backend("tensorrt_rtx").why_not(Action.BUILD, _SMALL)
needs_rtx = pytest.mark.skipif(_WHY_NO_RTX is not None, reason=f"tensorrt_rtx: {_WHY_NO_RTX}")


@pytest.fixture(scope="session")
def exports(tmp_path_factory, warm_cache) -> Path:
    """ONNX files of the small text tower, made by the command; not to be changed."""
    gate = Gate(tmp_path_factory.mktemp("compact"), warm_cache)
    for recipe in ("fp16", "attention", "compact"):
        result = gate.command("build", "small-clip/text", "--recipe", recipe, "--backend", "onnxruntime", "--out", "out")
        assert result.code == 0, result.stderr
    return gate.folder / "out"


def found(path: Path, policy: str, *, reference: Path | None = None) -> set[tuple[str, str | None]]:
    record = check_graph(path, reference=reference, policy=policy, gate_file=REPOSITORY / "gate.toml").record
    return {(one.check, one.node) for one in record.findings}


def text(exports: Path, recipe: str) -> Path:
    return exports / f"small-clip-text-{recipe}.onnx"


def test_a_clean_export_gives_no_finding(exports):
    assert found(text(exports, "compact"), "compact", reference=text(exports, "fp16")) == set()


def test_a_table_in_fp8_is_found_where_the_policy_keeps_it(exports):
    assert ("O10", "/tower/token_embedding/Gather") in found(text(exports, "compact"), "attention")


def test_a_table_in_fp16_is_found_where_the_policy_promises_fp8(exports):
    checks = found(text(exports, "attention"), "compact")

    assert ("O12", "/tower/token_embedding/Gather") in checks
    assert "O14" in {check for check, _ in checks}


def table_of(model):
    """The table's DequantizeLinear and its stored codes."""
    gather = next(node for node in model.graph.node if node.op_type == "Gather" and node.input[1] == "tokens")
    dequantize = next(node for node in model.graph.node if gather.input[0] in node.output)
    return dequantize, next(tensor for tensor in model.graph.initializer if tensor.name == dequantize.input[0])


def with_scales(model, scales, axis=0):
    dequantize, _ = table_of(model)
    model.graph.initializer.append(numpy_helper.from_array(scales.astype(np.float16), "scales"))
    dequantize.input[1] = "scales"
    dequantize.attribute.append(helper.make_attribute("axis", axis))


def another_table(model):
    _, codes = table_of(model)
    codes.raw_data = np.roll(np.frombuffer(codes.raw_data, np.uint8), 1).tobytes()


def one_row_without_a_scale(model):
    dequantize, codes = table_of(model)
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == dequantize.input[1])
    scales = np.full(codes.dims[0], numpy_helper.to_array(scale))
    scales[30_000] = 0
    with_scales(model, scales)


def a_scale_a_column(model):
    with_scales(model, np.full(table_of(model)[1].dims[1], 0.01), axis=1)


def nan_codes(model):
    _, codes = table_of(model)
    codes.raw_data = b"\x7f" + codes.raw_data[1:]


@pytest.mark.parametrize(
    ("plant", "check"), [(another_table, "O8"), (one_row_without_a_scale, "O5"), (a_scale_a_column, "O5"), (nan_codes, "O7")]
)
def test_a_defect_of_the_table_is_found_at_it(exports, tmp_path, plant, check):
    model = onnx.load(text(exports, "compact"))
    plant(model)
    onnx.save(model, tmp_path / "m.onnx")

    places = {"/tower/token_embedding/Gather", table_of(model)[0].name}
    assert {node for one, node in found(tmp_path / "m.onnx", "compact", reference=text(exports, "fp16")) if one == check} <= places
    assert check in {one for one, _ in found(tmp_path / "m.onnx", "compact", reference=text(exports, "fp16"))}


def test_a_scale_a_row_is_no_defect(exports, tmp_path):
    model = onnx.load(text(exports, "compact"))
    dequantize, codes = table_of(model)
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == dequantize.input[1])
    with_scales(model, np.full(codes.dims[0], numpy_helper.to_array(scale)))
    onnx.save(model, tmp_path / "m.onnx")

    assert found(tmp_path / "m.onnx", "compact", reference=text(exports, "fp16")) == set()


@needs_rtx
def test_a_text_engine_keeps_its_table_in_fp8(tmp_path, warm_cache):
    result = Gate(tmp_path, warm_cache)("--recipes", "compact", "--encoders", "small-clip/text", "-m", "graph or benchmark")

    assert set(result.red.values()) <= {"NO_BASELINE"}, result.red
    ratio = result.of("weights_ratio", "compact", "tensorrt_rtx")
    # The table is six of the small tower's seven million weights.
    assert ratio["observed"] == pytest.approx(ratio["bound"], rel=0.02)
    assert ratio["observed"] < 0.52


def test_an_image_tower_shares_what_attention_made(tmp_path, warm_cache):
    gate = Gate(tmp_path, warm_cache)
    records = []
    for recipe in ("attention", "compact"):
        result = gate.command("build", "small-clip/image", "--recipe", recipe, "--backend", "onnxruntime", "--out", "out")
        assert result.code == 0, result.stderr
        records.append(json.loads((gate.folder / "out" / f"small-clip-image-{recipe}.json").read_text()))
    attention, compact = records

    assert attention["sha256"] == compact["sha256"]
    assert (compact["engine"]["recipe"], compact["engine"]["cache"]) == ("compact", "hit")
    assert compact["engine"]["onnx_sha256"] == attention["engine"]["onnx_sha256"]
    assert "preparing" not in result.stderr
