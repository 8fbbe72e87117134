from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from harness.errors import BuildFailed, UnusableGraph, UnusableInputs
from harness.need import is_installed
from harness.prepare import encoder_onnx as encoder_onnx_module
from harness.prepare.attention import unpack_attention
from harness.prepare.checkpoint import load_encoder
from harness.prepare.encoder_onnx import LOG_FILE, ONNX_FILE, make_onnx
from harness.prepare.export import export_onnx
from harness.prepare.inputs import Split, make_inputs
from harness.prepare.quantize import quantize
from harness.prepare.references import exact_rows
from harness.prepare.repair.all_repairs import repair
from harness.prepare.tidy import tidy
from harness.prepare.vendor_log import import_quietly, quiet_to
from harness.records.spec import EncoderSpec, Recipe

TOWERS = ("image", "text")
BLOCK_LINEARS = 12  # two blocks of six
FINISHED = (Recipe.FP16, Recipe.LINEAR, Recipe.ATTENTION, Recipe.COMPACT)
WITH_ATTENTION = (Recipe.ATTENTION, Recipe.COMPACT)
E4M3_MAX = 448  # largest finite E4M3 value


def spec_of(tower):
    return EncoderSpec.parse(f"small-clip/{tower}")


@pytest.fixture(scope="module")
def make(tmp_path_factory, small_configs):
    """Spec, recipe, folder and facts of a small encoder under a recipe, made once."""

    @cache
    def make(tower, recipe):
        spec, folder = spec_of(tower), tmp_path_factory.mktemp("made")
        recipe = recipe.on(spec.tower)
        calibration = make_inputs(spec, Split.CALIBRATION, 16) if recipe.is_quantized else None
        return spec, recipe, folder, make_onnx(spec, recipe, calibration, folder)

    return make


@pytest.fixture(params=list(Recipe))
def recipe(request):
    return request.param


@pytest.fixture(params=FINISHED)
def finished_recipe(request):
    """Recipes whose graph is repaired; `modelopt` stays the vendor's, which ONNX Runtime refuses."""
    return request.param


@pytest.fixture(params=TOWERS)
def tower(request):
    return request.param


@pytest.fixture
def made(make, tower, recipe):
    return make(tower, recipe)


@pytest.fixture
def finished(make, tower, finished_recipe):
    return make(tower, finished_recipe)


def graph_of(made):
    return onnx.load(made[2] / ONNX_FILE).graph


def run(made, rows):
    session = onnxruntime.InferenceSession(made[2] / ONNX_FILE, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: rows})[0])


def cosines(observed, reference):
    observed = observed.astype(np.float32)
    return (observed * reference).sum(1) / np.linalg.norm(observed, axis=1) / np.linalg.norm(reference, axis=1)


def test_input_and_output_have_the_names_types_and_shapes_that_others_rest_on(made):
    spec, _, _, _ = made
    graph = graph_of(made)
    (source,), (result,) = graph.input, graph.output
    expected = ("image", onnx.TensorProto.FLOAT16, ["batch", 3, 32, 32])
    if spec.tower == "text":
        expected = ("tokens", onnx.TensorProto.INT64, ["batch", 77])
    sizes = [dim.dim_param or dim.dim_value for dim in source.type.tensor_type.shape.dim]
    assert (source.name, source.type.tensor_type.elem_type, sizes) == expected
    assert (result.name, result.type.tensor_type.elem_type) == ("embedding", onnx.TensorProto.FLOAT16)
    assert result.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_quantized_graphs_hold_one_byte_a_block_weight(made):
    _, recipe, _, _ = made
    weights = [w for w in graph_of(made).initializer if w.data_type == onnx.TensorProto.FLOAT8E4M3FN and len(w.dims) == 2]
    assert len(weights) == (BLOCK_LINEARS if recipe.is_quantized else 0) + (recipe is Recipe.COMPACT)
    assert all(len(weight.raw_data) == np.prod(weight.dims) for weight in weights)


def test_a_block_linear_has_one_q_and_two_dq_and_an_attention_four_pairs_and_a_table_one_dq(finished):
    _, recipe, _, _ = finished
    kinds = Counter(node.op_type for node in graph_of(finished).node)
    linear, attention = (BLOCK_LINEARS, 2 * BLOCK_LINEARS), (BLOCK_LINEARS + 2 * 4, 2 * BLOCK_LINEARS + 2 * 4)
    compact = (attention[0], attention[1] + 1)
    expected = {Recipe.FP16: (0, 0), Recipe.LINEAR: linear, Recipe.ATTENTION: attention, Recipe.COMPACT: compact}
    assert (kinds["QuantizeLinear"], kinds["DequantizeLinear"]) == expected[recipe]


def test_finished_graphs_are_valid_named_and_free_of_clutter(finished):
    _, _, folder, _ = finished
    onnx.checker.check_model(str(folder / ONNX_FILE), full_check=True)
    nodes = graph_of(finished).node
    assert all(node.name for node in nodes)
    assert len({node.name for node in nodes}) == len(nodes)
    assert not {node.op_type for node in nodes} & {"Identity", "Constant", "Pow", "Sqrt", "Div"}
    assert {node.domain for node in nodes} == {""}


def makers_of(graph):
    return {output: node for node in graph.node for output in node.output}


def products_of(graph):
    """The two MatMuls of each attention."""
    maker = makers_of(graph)
    for softmax in (node for node in graph.node if node.op_type == "Softmax"):
        scores = maker[softmax.input[0]]
        scores = scores if scores.op_type == "MatMul" else maker[scores.input[0]]  # a mask may be added between
        context = next(node for node in graph.node if node.op_type == "MatMul" and before_qdq(node.input[0], maker) is softmax)
        yield scores, context


def before_qdq(tensor, maker):
    """What makes a tensor, or what makes the tensor that it is a de-quantized form of."""
    node = maker[tensor]
    return maker[maker[node.input[0]].input[0]] if node.op_type == "DequantizeLinear" else node


def test_attention_is_a_product_a_softmax_and_a_product_with_q_scaled_first(finished):
    graph = graph_of(finished)
    maker = makers_of(graph)
    products = list(products_of(graph))
    assert len(products) == 2
    for scores, context in products:
        assert (scores.op_type, context.op_type) == ("MatMul", "MatMul")
        assert before_qdq(scores.input[0], maker).op_type == "Mul"
        softmax = before_qdq(context.input[0], maker)
        readers = [node.op_type for node in graph.node if softmax.output[0] in node.input]
        assert readers == ["QuantizeLinear" if finished[1] in WITH_ATTENTION else "MatMul"]


def test_attention_reads_q_k_softmax_and_v_through_fp8_at_the_calibrated_scales(make, tower):
    made = make(tower, Recipe.ATTENTION)
    graph, amax = graph_of(made), made[3].amax
    maker, constants = makers_of(graph), {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for block, (scores, context) in enumerate(products_of(graph)):
        names = ("q_bmm", "k_bmm", "softmax", "v_bmm")
        for name, operand in zip(names, (*scores.input, *context.input), strict=True):
            dequantize = maker[operand]
            quantize = maker[dequantize.input[0]]
            assert (dequantize.op_type, quantize.op_type) == ("DequantizeLinear", "QuantizeLinear")
            scales = [float(constants[node.input[1]]) for node in (quantize, dequantize)]
            largest = amax[f"tower.transformer.resblocks.{block}.attn.{name}_quantizer"]
            assert scales == [pytest.approx(largest / E4M3_MAX, rel=1e-3)] * 2  # as near as float16 is
            assert (largest == 1.0) == (name == "softmax")


def test_the_token_table_is_fp8_codes_of_its_own_scale_before_rows_are_gathered(make):
    made = make("text", Recipe.COMPACT)
    graph, largest = graph_of(made), made[3].amax["tower.token_embedding.weight_quantizer"]
    maker, constants = makers_of(graph), {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (gather,) = (node for node in graph.node if node.op_type == "Gather" and node.input[1] == "tokens")
    dequantize = maker[gather.input[0]]
    codes, scale = (constants[name].astype(np.float32) for name in dequantize.input)
    table = load_encoder(spec_of("text")).get_parameter("tower.token_embedding.weight").numpy()
    assert dequantize.op_type == "DequantizeLinear"
    assert scale == pytest.approx(largest / E4M3_MAX, rel=1e-3) == pytest.approx(np.abs(table).max() / E4M3_MAX, rel=1e-3)
    # E4M3 rounds to 1/16 of a number, or to half of its smallest step; FP16 had rounded before, table and scale alike.
    e4m3, half = np.maximum(np.abs(table) / 16, scale * 2.0**-10), np.abs(table) * 2.0**-10 + 2.0**-25
    assert (np.abs(codes * scale - table) <= e4m3 + half).all()


def test_onnx_runtime_gives_the_reference_within_the_recipes_precision(finished):
    spec, recipe, _, _ = finished
    inputs = make_inputs(spec, Split.EVALUATION, 5)
    cosine = cosines(run(finished, inputs.rows), exact_rows(spec, inputs).rows)
    if recipe is Recipe.FP16:
        assert cosine.min() > 0.99999
    else:
        assert 0.98 < cosine.min() < 0.99999  # FP8 that changes nothing would be no FP8


def test_the_batch_is_free(finished):
    spec, _, _, _ = finished
    rows = make_inputs(spec, Split.EVALUATION, 3).rows
    assert np.allclose(run(finished, rows)[:1], run(finished, rows[:1]), atol=5e-3)


@pytest.mark.skipif(not is_installed("tensorrt_rtx_bindings"), reason="TensorRT-RTX is not installed; install enginegate[rtx]")
def test_tensorrt_parses_the_graph_strongly_typed(made):
    trt: Any = import_quietly("tensorrt_rtx_bindings", to="test")
    logger = trt.Logger(trt.Logger.ERROR)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = trt.Builder(logger).create_network(flags)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse((made[2] / ONNX_FILE).read_bytes()), [str(parser.get_error(i)) for i in range(parser.num_errors)]


def test_facts_tell_repairs_magnitudes_and_opset_and_can_be_written_down(made):
    _, recipe, _, facts = made
    names = [step.name for step in facts.repairs]
    assert facts.opset == 20
    assert (len(facts.amax) >= 2 * BLOCK_LINEARS) == recipe.is_quantized
    assert ("softmax_without_v" in names) == (recipe is Recipe.LINEAR)
    assert json.loads(json.dumps(dataclasses.asdict(facts)))["opset"] == 20


def test_fp16_needs_no_repair_and_modelopt_gets_none(made):
    _, recipe, _, facts = made
    if recipe in (Recipe.FP16, Recipe.MODELOPT):
        assert facts.repairs == ()


def test_a_layer_whose_scale_fp16_rounds_to_zero_is_mended_and_told(tmp_path, monkeypatch):
    def with_a_tiny_layer(spec, *, log=None):
        encoder = load_encoder(spec, log=log)
        with torch.no_grad():
            encoder.get_parameter(f"{tiny}.weight").mul_(1e-5)
        return encoder

    tiny = "tower.transformer.resblocks.1.mlp.c_fc"
    node = "/tower/transformer/resblocks.1/mlp/c_fc/MatMul"
    monkeypatch.setattr(encoder_onnx_module, "load_encoder", with_a_tiny_layer)
    facts = make_onnx(spec_of("text"), Recipe.LINEAR, make_inputs(spec_of("text"), Split.CALIBRATION, 4), tmp_path)

    assert [(step.name, step.count) for step in facts.repairs if step.name == "zero_scales"] == [("zero_scales", 1)]
    graph = onnx.load(tmp_path / ONNX_FILE).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    product = next(one for one in graph.node if one.name == node)
    codes, scale = (constants[name].astype(np.float32) for name in makers_of(graph)[product.input[1]].input)
    original = load_encoder(spec_of("text")).get_parameter(f"{tiny}.weight").numpy().T.astype(np.float32) * np.float32(1e-5)
    assert np.allclose(codes * scale, original.astype(np.float16), rtol=1 / 16 + 1e-3, atol=0)


def test_what_the_exporters_own_fp16_conversion_leaves_is_mended(tmp_path):
    spec = spec_of("text")
    encoder: Any = load_encoder(spec)
    inputs = make_inputs(spec, Split.EVALUATION, 3)
    unpack_attention(encoder)
    quantize(encoder, Recipe.LINEAR, make_inputs(spec, Split.CALIBRATION, 4))
    converted = exported_in_fp32_and_converted(encoder, tmp_path / ONNX_FILE)
    assert float_casts_of(converted) == 3  # two q, k, v inputs and the final projection

    mended = [step.name for step in repair(converted, {})]
    tidy(converted, dim=encoder.dim)
    onnx.save(converted, tmp_path / ONNX_FILE)

    assert "float_casts" in mended
    assert float_casts_of(converted) == 0
    onnx.checker.check_model(str(tmp_path / ONNX_FILE), full_check=True)
    observed = run((spec, Recipe.LINEAR, tmp_path, None), inputs.rows)
    assert cosines(observed, exact_rows(spec, inputs).rows).min() > 0.98


def exported_in_fp32_and_converted(encoder, path):
    """What Model Optimizer's exporter makes of an FP32 model when it is asked for float16."""
    exporter = import_quietly("modelopt.torch._deploy.utils.torch_onnx", to="test")
    example = torch.zeros(2, *encoder.row_shape, dtype=torch.int64)
    options = {"model_name": "converted", "weights_dtype": "fp16", "dynamic_axes": {"tokens": {0: "batch"}}}
    with quiet_to(None):
        packed, _ = exporter.get_onnx_bytes_and_metadata(encoder, (example,), **options)
    path.write_bytes(exporter.OnnxBytes.from_bytes(packed).get_onnx_model_file_bytes())
    return onnx.load(path)


def float_casts_of(model):
    casts = (node for node in model.graph.node if node.op_type == "Cast")
    return sum(attribute.i == onnx.TensorProto.FLOAT for node in casts for attribute in node.attribute)


def test_the_folder_holds_the_graph_and_the_vendors_log_alone(made):
    _, _, folder, _ = made
    assert {path.name for path in folder.iterdir()} == {ONNX_FILE, LOG_FILE}
    assert "No pretrained weights loaded" in (folder / LOG_FILE).read_text()


def test_nothing_is_printed_and_nothing_stays_in_the_temporary_folder(tmp_path, monkeypatch, capfd):
    (tmp_path / "temporary").mkdir()
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    spec = spec_of("image")
    make_onnx(spec, Recipe.LINEAR, make_inputs(spec, Split.CALIBRATION, 2), tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path / "temporary") == []
    assert tempfile.tempdir == str(tmp_path / "temporary")


def test_the_same_encoder_gives_the_same_bytes(tmp_path):
    spec = spec_of("text")
    calibration = make_inputs(spec, Split.CALIBRATION, 4)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make_onnx(spec, Recipe.LINEAR, calibration, tmp_path / name)
    assert (tmp_path / "one" / ONNX_FILE).read_bytes() == (tmp_path / "two" / ONNX_FILE).read_bytes()


def test_a_quantized_recipe_without_calibration_rows_is_refused(tmp_path):
    with pytest.raises(UnusableInputs, match="no calibration rows"):
        make_onnx(spec_of("image"), Recipe.LINEAR, None, tmp_path)


def test_rows_of_the_other_tower_are_refused(tmp_path):
    tokens = make_inputs(spec_of("text"), Split.CALIBRATION, 2)
    with pytest.raises(UnusableInputs, match="takes 'image' and was given 'tokens'"):
        make_onnx(spec_of("image"), Recipe.LINEAR, tokens, tmp_path)
    with pytest.raises(UnusableInputs, match="takes 'image' and was given 'tokens'"):
        exact_rows(spec_of("image"), tokens)


def test_an_encoder_that_one_file_cannot_hold_is_refused(tmp_path):
    huge = nn.Linear(2**16, 2**15, device="meta")
    with pytest.raises(UnusableGraph, match="4,295,032,832 bytes"):
        export_onnx(huge, spec_of("image"), tmp_path / ONNX_FILE)


def test_an_exporter_that_stops_is_told_with_its_own_words_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    encoder = load_encoder(spec_of("image"))

    def unexportable(rows):
        return torch.linalg.eigvals(rows[:, 0].float()).real

    monkeypatch.setattr(encoder.tower, "forward", unexportable)
    with pytest.raises(BuildFailed, match="could not export small-clip/image"):
        export_onnx(encoder, spec_of("image"), tmp_path / ONNX_FILE)
    assert os.listdir(tmp_path) == []


def test_a_graph_that_stays_invalid_after_all_repairs_is_refused(tmp_path, monkeypatch):
    def break_it(model, *, dim):
        model.graph.node[0].op_type = "NoSuchOperator"

    monkeypatch.setattr(encoder_onnx_module, "tidy", break_it)
    with pytest.raises(BuildFailed, match="no valid ONNX after all repairs"):
        make_onnx(spec_of("text"), Recipe.FP16, None, tmp_path)


def test_the_reference_is_what_the_untouched_encoder_gives(small):
    inputs = make_inputs(small, Split.EVALUATION, 20)
    batch = torch.from_numpy(inputs.rows)
    with torch.inference_mode():
        expected = load_encoder(small)(batch.float() if small.tower == "image" else batch).numpy()
    rows = exact_rows(small, inputs).rows
    assert rows.dtype == np.float32
    assert np.allclose(rows, expected, atol=1e-5)
