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

DATA = REPOSITORY / "docs/data"
IN_TURNS = ["ViT-L-14-image-linear", "ViT-L-14-image-attention", "ViT-L-14-text-linear", "ViT-L-14-text-attention"]
APART = ["ViT-B-32-image-linear", "ViT-B-32-text-linear"]


@functools.cache
def pair(engine):
    """FP16 and the engine: of one run in turns, or each of a run of its own."""
    if engine in IN_TURNS:
        return tuple(read_profile(DATA / f"h200-trt-10.6/explain/{engine}-{side}.profile.json.gz") for side in "ab")
    return tuple(
        read_profile(DATA / f"hopper-trt-10.6/profiles/{engine.rpartition('-')[0]}-{recipe}.profile.json.gz")
        for recipe in ("fp16", "linear")
    )


@functools.cache
def explained(engine):
    return explain(*pair(engine))


@pytest.mark.parametrize("name", IN_TURNS + APART)
def test_the_profiler_names_every_layer_as_the_inspector_does(name):
    for seen in pair(name):
        assert [layer.name for layer in seen.times.layers] == [row.name for row in seen.layers]
        assert {len(layer.ms) for layer in seen.times.layers} == {30}


@pytest.mark.parametrize("name", IN_TURNS + APART)
def test_nothing_is_dropped_and_little_has_no_place(name):
    found = explained(name)
    for differences in (found.by_work, found.by_place, found.by_place_and_work, found.parts):
        assert sum(one.a.ms for one in differences) == pytest.approx(found.a.layers_ms)
        assert sum(one.b.ms for one in differences) == pytest.approx(found.b.layers_ms)
    assert SEVERAL not in {one.name for one in found.by_place}
    assert found.b.unplaced_ms < 0.03 * found.b.layers_ms
    assert found.in_turns is (name in IN_TURNS)


def test_layers_add_up_to_a_launch_where_they_are_long():
    """Of an encoder with layers of some microseconds they add up to more: a launch without graphs has gaps, which count as theirs."""
    large, small = explained("ViT-L-14-image-linear"), explained("ViT-B-32-text-linear")
    assert large.b.layers_ms == pytest.approx(large.b.launch_ms, rel=0.01)
    assert 1.1 < small.b.layers_ms / small.b.launch_ms < 1.2


def test_every_product_of_a_block_and_every_attention_is_found():
    works = [cost.work for cost in layer_costs(pair("ViT-L-14-image-linear")[1])]
    assert (works.count(Work.FP8_GEMM), works.count(Work.ATTENTION), works.count(Work.FP16_GEMM)) == (4 * 24, 24, 2)


def test_the_product_that_is_fused_with_gelu_gains_least_of_all():
    parts = {part.name: part for part in explained("ViT-L-14-image-linear").parts}
    fused = parts["*/mlp/c_fc/MatMul, c_fc/Add, gelu/Gelu"]
    others = [
        part for name, part in parts.items() if "MatMul" in name and name.startswith("*") and part is not fused and "Softmax" not in name
    ]
    assert len(others) == 3
    assert all(part.a.ms / part.b.ms > 1.7 for part in others)
    assert fused.a.ms / fused.b.ms < 1.25
    assert fused.b.tflops < 0.6 * min(part.b.tflops for part in others)


def test_what_got_slower_in_the_text_tower_is_the_normalization_that_lost_its_kernel():
    words = slower_layers(*pair("ViT-B-32-text-linear"), top=1)
    assert words.startswith(
        "next to ViT-B-32/text-fp16-tensorrt it takes longer in */Add_1, ln_1/LayerNormalization (x11): 0.154 -> 0.439 ms"
    )


def test_attention_that_lost_its_fusion_is_found_in_what_it_became():
    found = explained("ViT-L-14-image-attention")
    works = {one.name: one for one in found.by_work}
    assert works[Work.ATTENTION].b.ms == 0
    assert works[Work.SOFTMAX].a.ms == 0
    assert works[Work.SOFTMAX].b.layers == 24
    worst = found.parts[0]
    assert (worst.name, worst.count) == ("*/attn/MatMul, MatMul_1, Mul, Softmax", 24)
    assert worst.b.ms > 4 * worst.a.ms
