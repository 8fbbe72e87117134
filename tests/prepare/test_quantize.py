from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from harness.errors import BuildFailed, UnsupportedRecipe
from harness.prepare.attention import unpack_attention
from harness.prepare.checkpoint import load_encoder
from harness.prepare.inputs import Split, make_inputs
from harness.prepare.quantize import block_attentions, block_convolutions, block_linears, quantize
from harness.records.spec import EncoderSpec, Recipe

PER_BLOCK = {"attn.q", "attn.k", "attn.v", "attn.out", "mlp.c_fc", "mlp.c_proj"}


def unpacked(name):
    encoder = load_encoder(EncoderSpec.parse(name))
    unpack_attention(encoder)
    return encoder


def rows(name, count=4):
    return make_inputs(EncoderSpec.parse(name), Split.CALIBRATION, count)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_block_linears_are_six_a_block_and_nothing_else(tower):
    paths = block_linears(unpacked(f"small-clip/{tower}"))
    assert set(paths) == {f"tower.transformer.resblocks.{block}.{name}" for block in (0, 1) for name in PER_BLOCK}


def test_block_linears_of_timm_are_found_without_knowing_its_names():
    paths = block_linears(unpacked("small-timm/image"))
    assert paths
    assert all(".blocks." in path for path in paths)
    assert not any("head" in path for path in paths)


def test_a_stack_of_linear_layers_is_no_stack_of_blocks():
    assert block_linears(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == []


@pytest.mark.parametrize("tower", ["image", "text"])
def test_linear_quantizes_block_linears_alone(tower):
    encoder = unpacked(f"small-clip/{tower}")
    promised = block_linears(encoder)
    amax = quantize(encoder, Recipe.LINEAR, rows(f"small-clip/{tower}"))
    assert set(amax) == {f"{path}.{kind}" for path in promised for kind in ("weight_quantizer", "input_quantizer")}


def test_block_attentions_are_one_a_block():
    assert block_attentions(unpacked("small-clip/text")) == [f"tower.transformer.resblocks.{block}.attn" for block in (0, 1)]


@pytest.mark.parametrize("name", ["small-clip/image", "small-clip/text"])
def test_attention_quantizes_the_operands_of_its_products_too(name):
    encoder = unpacked(name)
    linears, attentions = block_linears(encoder), block_attentions(encoder)
    amax = quantize(encoder, Recipe.ATTENTION, rows(name))
    beside = {f"{path}.{kind}" for path in attentions for kind in ("q_bmm_quantizer", "k_bmm_quantizer", "v_bmm_quantizer")}
    softmaxes = {f"{path}.softmax_quantizer" for path in attentions}
    assert set(amax) == {f"{path}.{kind}" for path in linears for kind in ("weight_quantizer", "input_quantizer")} | beside | softmaxes
    assert {amax[path] for path in softmaxes} == {1.0}
    assert not {amax[path] for path in beside} & {1.0}


def test_compact_quantizes_the_token_table_and_all_that_attention_does():
    name = "small-clip/text"
    encoder, inputs = unpacked(name), rows(name)
    largest = encoder.get_parameter("tower.token_embedding.weight").abs().max().item()
    amax = quantize(encoder, Recipe.COMPACT, inputs)
    attention = quantize(unpacked(name), Recipe.ATTENTION, inputs)
    assert set(amax) - set(attention) == {"tower.token_embedding.weight_quantizer"}
    assert set(attention) < set(amax)
    assert amax["tower.token_embedding.weight_quantizer"] == largest


def test_compact_without_a_token_table_is_refused_with_what_to_choose():
    with pytest.raises(UnsupportedRecipe, match="choose recipe attention"):
        quantize(unpacked("small-clip/image"), Recipe.COMPACT, rows("small-clip/image"))


def test_the_scale_of_q_is_seen_after_its_scaling():
    encoder, inputs = unpacked("small-clip/text"), rows("small-clip/text")
    seen = []
    layer = encoder.get_submodule("tower.transformer.resblocks.0.attn.q")
    hook = layer.register_forward_hook(lambda *args: seen.append(args[-1].abs().max().item()))
    with torch.inference_mode():
        encoder(torch.from_numpy(inputs.rows))
    hook.remove()
    amax = quantize(encoder, Recipe.ATTENTION, inputs)
    assert amax["tower.transformer.resblocks.0.attn.q_bmm_quantizer"] == pytest.approx(max(seen) * 32**-0.5, rel=1e-5)


def test_attention_leaves_model_optimizers_registry_as_it_was():
    name = "small-clip/text"
    quantize(unpacked(name), Recipe.ATTENTION, rows(name))
    amax = quantize(unpacked(name), Recipe.LINEAR, rows(name))
    assert not [path for path in amax if "bmm" in path or "softmax" in path]
    quantize(unpacked(name), Recipe.ATTENTION, rows(name))  # nor is it registered already


def test_attention_without_unpacked_attention_is_refused_with_what_to_choose():
    with pytest.raises(UnsupportedRecipe, match="choose recipe linear"):
        quantize(unpacked("small-resnet/image"), Recipe.ATTENTION, rows("small-resnet/image"))


def test_attention_quantizes_the_products_of_timms_blocks_and_not_its_pooling():
    encoder = unpacked("small-siglip/image")
    attentions = block_attentions(encoder)
    amax = quantize(encoder, Recipe.ATTENTION, rows("small-siglip/image"))
    assert len(attentions) == 6
    assert all(".blocks." in path for path in attentions)
    assert {path for path in amax if path.endswith("softmax_quantizer")} == {f"{path}.softmax_quantizer" for path in attentions}


def test_block_convolutions_of_a_resnet_are_those_of_its_bottlenecks():
    paths = block_convolutions(unpacked("small-resnet/image"))
    assert len(paths) == 16  # four bottlenecks, each with three and one that widens
    assert all(".layer" in path for path in paths)


def test_linear_quantizes_block_convolutions_where_no_block_has_linear_layers():
    encoder = unpacked("small-resnet/image")
    promised = block_convolutions(encoder)
    amax = quantize(encoder, Recipe.LINEAR, rows("small-resnet/image"))
    assert set(amax) == {f"{path}.{kind}" for path in promised for kind in ("weight_quantizer", "input_quantizer")}


def test_the_preset_also_takes_the_patch_convolution():
    amax = quantize(unpacked("small-clip/image"), Recipe.MODELOPT, rows("small-clip/image"))
    assert "tower.conv1.input_quantizer" in amax


def test_a_weight_quantizer_holds_its_weights_largest_magnitude():
    encoder = unpacked("small-clip/text")
    amax = quantize(encoder, Recipe.LINEAR, rows("small-clip/text"))
    weight = encoder.get_parameter("tower.transformer.resblocks.0.attn.q.weight")
    assert amax["tower.transformer.resblocks.0.attn.q.weight_quantizer"] == weight.abs().max().item()


def test_an_input_quantizer_holds_the_largest_magnitude_over_all_batches():
    encoder, inputs = unpacked("small-clip/image"), rows("small-clip/image", 40)  # three batches
    seen = []
    layer = encoder.get_submodule("tower.transformer.resblocks.0.attn.q")
    hook = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].abs().max().item()))
    with torch.inference_mode():
        encoder(torch.from_numpy(inputs.rows).float())
    hook.remove()
    amax = quantize(encoder, Recipe.LINEAR, inputs)
    assert amax["tower.transformer.resblocks.0.attn.q.input_quantizer"] == pytest.approx(max(seen), rel=1e-5)


@pytest.mark.parametrize("recipe", [Recipe.LINEAR, Recipe.ATTENTION, Recipe.MODELOPT])
def test_quantized_embeddings_stay_near_and_are_not_the_same(recipe):
    encoder, inputs = unpacked("small-clip/image"), rows("small-clip/image")
    batch = torch.from_numpy(inputs.rows).float()
    before = encoder(batch)
    quantize(encoder, recipe, inputs)
    cosine = nn.functional.cosine_similarity(before, encoder(batch))
    assert 0.98 < cosine.min() < 0.99999


@pytest.mark.parametrize(
    ("recipe", "error", "found"),
    [
        (Recipe.LINEAR, UnsupportedRecipe, "no repeated blocks"),
        (Recipe.ATTENTION, UnsupportedRecipe, "no repeated blocks"),
        (Recipe.MODELOPT, BuildFailed, "could not quantize the encoder"),
    ],
)
def test_a_tower_without_layers_in_blocks_is_refused(recipe, error, found):
    with pytest.raises(error, match=found):
        quantize(nn.Sequential(nn.Flatten(), nn.LayerNorm(3 * 32 * 32)), recipe, rows("small-clip/image"))


def test_an_encoder_that_cannot_take_the_rows_is_told_with_the_cause():
    with pytest.raises(BuildFailed, match="could not quantize the encoder: RuntimeError"):
        quantize(unpacked("small-clip/image"), Recipe.LINEAR, rows("small-resnet/image"))


def test_inputs_that_leave_a_quantizer_without_a_magnitude_are_refused():
    encoder = unpacked("small-clip/image")
    with torch.no_grad():
        encoder.get_parameter("tower.transformer.resblocks.1.attn.out.weight").zero_()
    with pytest.raises(BuildFailed, match=r"resblocks\.1\.attn\.out\.weight_quantizer with 0"):
        quantize(encoder, Recipe.LINEAR, rows("small-clip/image"))


def test_rows_beyond_a_batch_count():
    encoder, inputs = unpacked("small-clip/image"), rows("small-clip/image", 20)
    loud = inputs.rows.copy()
    loud[19] = loud[19][:, ::-1] * np.float16(8)
    first = quantize(encoder, Recipe.MODELOPT, dataclasses.replace(inputs, rows=loud))
    assert first["tower.conv1.input_quantizer"] == np.abs(loud.astype(np.float32)).max()
