"""The block at fault is named, on real exports of both towers."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import onnx
import pytest

from harness.errors import InvalidMeasurement
from harness.pipeline.locating import locate
from harness.pipeline.making import Maker
from harness.prepare.hidden_states import hidden_states
from harness.prepare.inputs import EmojiSet, Split
from harness.records.observations import Embeddings
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.store.cache import ArtifactCache, default_cache_dir
from tests.helpers.block_faults import FAULTS
from tests.helpers.gates import CONFIGS
from tests.helpers.localisation_study import ENCODERS, RECIPES, PlantedMaker, cases, is_good_enough, report

FC2 = next(fault for fault in FAULTS if fault.name == "activation scale of fc2 x 1/4")
BIAS = next(fault for fault in FAULTS if fault.name == "no activation function")


@pytest.fixture(scope="module")
def maker():
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ENGINEGATE_MODEL_CONFIGS", str(CONFIGS))
        yield Maker(ArtifactCache(default_cache_dir()), lambda _: nullcontext())


@pytest.fixture(scope="module")
def spec():
    return EngineSpec(encoder=EncoderSpec.parse("small-clip/image"), recipe=Recipe.LINEAR, backend="onnxruntime")


@pytest.fixture(scope="module")
def inputs(maker, spec):
    return maker.inputs(spec.encoder, EmojiSet(split=Split.EVALUATION, rows=24))


def planted(maker, spec, folder, plant):
    """A maker whose graph of this engine `plant` has changed."""
    model = onnx.load(maker.onnx(spec.encoder, spec.recipe).path)
    node = plant(model)
    onnx.save(model, folder / "planted.onnx")
    return PlantedMaker(maker, spec, folder / "planted.onnx"), node


def test_at_least_nine_in_ten_faults_are_named_by_their_block(maker, tmp_path):
    found = list(cases(maker, ENCODERS, RECIPES, FAULTS, tmp_path, one_in=8))

    assert is_good_enough(found), report(found, every=True)
    assert sum(case.is_visible for case in found) >= 10
    assert len({(case.spec.encoder, case.spec.recipe) for case in found}) == len(ENCODERS) * len(RECIPES)
    assert {case.named_quantizer for case in found if case.is_visible} == {True}, report(found, every=True)
    assert [case.clean.suspect for case in found if case.clean.suspect] == []


def test_the_curve_falls_for_good_behind_a_fault_and_the_own_errors_do_not(maker, spec, inputs, tmp_path):
    broken, node = planted(maker, spec, tmp_path, lambda model: FC2.plant(model, 0))

    found = locate(broken, spec, inputs, observed=None, exact=None)

    blocks = [stage for stage in found.stages if stage.block is not None]
    assert all(stage.curve_db < 22 for stage in blocks)
    assert [stage.stands_out for stage in blocks] == [True, False, False]
    assert found.left_out[0].node == node
    assert found.left_out[0].tensor in {
        name for one in onnx.load(broken.onnx(spec.encoder, spec.recipe).path).graph.node for name in one.output
    }


def test_a_fault_that_is_no_quantizer_is_said_to_be_none(maker, spec, inputs, tmp_path):
    broken, _ = planted(maker, spec, tmp_path, lambda model: BIAS.plant(model, 1))

    found = locate(broken, spec, inputs, observed=None, exact=None)

    assert found.suspect == "block 1"
    assert "none of its 10 quantizers recovers it" in found.sentence


def test_a_fault_of_an_fp16_graph_has_its_block_too(maker, spec, inputs, tmp_path):
    fp16 = replace(spec, recipe=Recipe.FP16)

    def plant(model):
        weight = next(one for one in model.graph.node if one.op_type == "LayerNormalization" and "resblocks.1/ln_2" in one.name).input[1]
        tensor = next(one for one in model.graph.initializer if one.name == weight)
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) / np.float16(2), weight))

    broken, _ = planted(maker, fp16, tmp_path, plant)

    found = locate(broken, fp16, inputs, observed=None, exact=None)

    assert (found.suspect, found.left_out) == ("block 1", ())


@pytest.mark.parametrize(("end", "name"), [("before", "ln_pre"), ("after", "ln_post")])
def test_a_fault_outside_the_blocks_has_its_stage(maker, spec, inputs, tmp_path, end, name):
    def plant(model):
        norm = next(one for one in model.graph.node if one.op_type == "LayerNormalization" and name in one.name)
        scale = next(one for one in model.graph.initializer if one.name == norm.input[1])
        values = onnx.numpy_helper.to_array(scale).copy()
        values[::2] *= -1
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, "planted"))
        norm.input[1] = "planted"

    broken, _ = planted(maker, spec, tmp_path, plant)

    found = locate(broken, spec, inputs, observed=None, exact=None)

    assert (found.suspect, found.left_out) == (f"{end} the blocks", ())
    assert "it holds no quantizer" in found.sentence


def test_overflow_of_fp16_is_found_where_it_begins(maker, spec, inputs, tmp_path):
    def plant(model):
        norm = next(one for one in model.graph.node if one.op_type == "LayerNormalization" and "resblocks.1/ln_1" in one.name)
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.full(128, 60000, np.float16), "planted"))
        norm.input[1] = "planted"

    broken, _ = planted(maker, replace(spec, recipe=Recipe.FP16), tmp_path, plant)

    found = locate(broken, replace(spec, recipe=Recipe.FP16), inputs, observed=None, exact=None)

    assert found.suspect == "block 1"
    assert next(stage.own_db for stage in found.stages if stage.block == 1) is None
    assert found.graph_db is None


def test_an_engine_worse_than_its_graph_is_told_from_a_bad_graph(maker, spec, inputs):
    exact = maker.reference(spec.encoder, inputs)
    noise = np.random.default_rng(0).normal(size=exact.rows.shape).astype(np.float32)
    observed = Embeddings(rows=exact.rows + noise, ids=exact.ids, inputs_digest=exact.inputs_digest, made_by="an engine")

    found = locate(maker, spec, inputs, observed=observed, exact=exact)

    assert found.suspect is None
    assert "what was built from it lost the rest" in found.sentence


def test_the_rows_that_the_engine_turned_furthest_are_looked_at(maker, spec, inputs):
    exact = maker.reference(spec.encoder, inputs)
    rows = exact.rows.copy()
    rows[17] = np.nan
    observed = Embeddings(rows=rows, ids=exact.ids, inputs_digest=exact.inputs_digest, made_by="an engine")

    found = locate(maker, spec, inputs, observed=observed, exact=exact)

    assert (found.rows, found.engine_db) == (16, None)


def test_blocks_that_cannot_be_matched_are_said_in_words(spec, inputs):
    with pytest.raises(InvalidMeasurement, match="3 repeated blocks in PyTorch and 4 in its ONNX graph"):
        hidden_states(spec.encoder, inputs, blocks=4)


def test_a_resnets_blocks_are_matched(maker):
    spec = EngineSpec(encoder=EncoderSpec.parse("small-resnet/image"), recipe=Recipe.LINEAR, backend="onnxruntime")

    found = locate(maker, spec, maker.inputs(spec.encoder, EmojiSet(split=Split.EVALUATION, rows=8)), observed=None, exact=None)

    assert sum(stage.block is not None for stage in found.stages) > 2
    assert all(stage.own_db is not None and stage.own_db > 15 for stage in found.stages)
