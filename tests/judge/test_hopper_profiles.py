"""Profiles of real engines of TensorRT 10.6 on an H200, timed layer by layer, explained as `enginegate explain` does."""

from __future__ import annotations

import functools

import pytest

from harness.judge.gain import explain
from harness.judge.layer_costs import SEVERAL, layer_costs
from harness.judge.slower_layers import slower_layers
from harness.records.explanation import Work
from harness.store.profiles import read_profile
from tests.helpers.gates import REPOSITORY

PROFILES = REPOSITORY / "docs/data/hopper-trt-10.6/profiles"
ENCODERS = ["ViT-B-32-image", "ViT-B-32-text", "ViT-L-14-image"]


@functools.cache
def profile(encoder, recipe):
    return read_profile(PROFILES / f"{encoder}-{recipe}.profile.json.gz")


@functools.cache
def explained(encoder):
    return explain(profile(encoder, "fp16"), profile(encoder, "linear"))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_profiler_names_every_layer_as_the_inspector_does(encoder):
    for recipe in ("fp16", "linear"):
        seen = profile(encoder, recipe)
        assert [layer.name for layer in seen.times.layers] == [row.name for row in seen.layers]
        assert {len(layer.ms) for layer in seen.times.layers} == {30}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_nothing_is_dropped_and_little_has_no_place(encoder):
    found = explained(encoder)
    for differences in (found.by_work, found.by_place, found.by_place_and_work, found.parts):
        assert sum(one.a.ms for one in differences) == pytest.approx(found.a.layers_ms)
        assert sum(one.b.ms for one in differences) == pytest.approx(found.b.layers_ms)
    assert SEVERAL not in {one.name for one in found.by_place}
    assert found.b.unplaced_ms < 0.03 * found.b.layers_ms
    assert not found.in_turns


def test_layers_add_up_to_a_launch_where_they_are_long():
    """Of an encoder with layers of some microseconds they add up to more: a launch without graphs has gaps, which count as theirs."""
    large, small = explained("ViT-L-14-image"), explained("ViT-B-32-text")
    assert large.b.layers_ms == pytest.approx(large.b.launch_ms, rel=0.01)
    assert 1.1 < small.b.layers_ms / small.b.launch_ms < 1.2


def test_every_product_of_a_block_and_every_attention_is_found():
    works = [cost.work for cost in layer_costs(profile("ViT-L-14-image", "linear"))]
    assert (works.count(Work.FP8_GEMM), works.count(Work.ATTENTION), works.count(Work.FP16_GEMM)) == (4 * 24, 24, 2)


def test_the_product_that_is_fused_with_gelu_gains_least_of_all():
    parts = {part.name: part for part in explained("ViT-L-14-image").parts}
    fused = parts["*/mlp/c_fc/MatMul, c_fc/Add, gelu/Gelu"]
    others = [
        part for name, part in parts.items() if "MatMul" in name and name.startswith("*") and part is not fused and "Softmax" not in name
    ]
    assert len(others) == 3
    assert all(part.a.ms / part.b.ms > 1.7 for part in others)
    assert fused.a.ms / fused.b.ms < 1.25
    assert fused.b.tflops < 0.6 * min(part.b.tflops for part in others)


def test_what_got_slower_in_the_text_tower_is_the_normalization_that_lost_its_kernel():
    words = slower_layers(profile("ViT-B-32-text", "fp16"), profile("ViT-B-32-text", "linear"), top=1)
    assert words.startswith(
        "next to ViT-B-32/text-fp16-tensorrt it takes longer in */Add_1, ln_1/LayerNormalization (x11): 0.154 -> 0.439 ms"
    )
