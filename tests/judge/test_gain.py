"""Where the time of real engines goes: TensorRT 10.6 on an H100, their layers timed as each test says."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace

import pytest

from harness.judge.engine_rows import GEMM_KINDS
from harness.judge.gain import explain
from harness.judge.layer_costs import AFTER, BEFORE, NOWHERE, SEVERAL, layer_costs
from harness.judge.slower_layers import slower_layers
from harness.judge.structure import GraphView
from harness.measure.layers import read_layer_table
from harness.measure.onnx_graph import read_onnx_graph
from harness.records.explanation import Work
from harness.records.profile import LayerTime
from tests.helpers.gates import REPOSITORY
from tests.helpers.profiles import ROWS, profile_of
from tests.helpers.real_exports import real_export

TABLES = REPOSITORY / "docs/data/hopper-trt-10.6"


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    return functools.cache(lambda recipe: GraphView(read_onnx_graph(real_export(f"image-{recipe}", folder))))


@functools.cache
def table(recipe):
    return read_layer_table(TABLES / f"ViT-B-32-image-{recipe}_fixed_128.layers.json.gz")


@pytest.fixture(scope="module")
def pair(view):
    """FP16 and `linear`, each layer one millisecond."""
    return profile_of(table("fp16"), view("fp16")), profile_of(table("linear"), view("linear"))


def works(profile):
    return Counter(cost.work for cost in layer_costs(profile))


def test_kinds_of_work_are_told_apart(view, pair):
    half, linear = map(works, pair)
    assert (half[Work.FP16_GEMM], half[Work.FP8_GEMM], half[Work.ATTENTION]) == (50, 0, 12)  # 48 of blocks, patches and the projection
    assert (linear[Work.FP16_GEMM], linear[Work.FP8_GEMM], linear[Work.ATTENTION]) == (2, 48, 12)
    unfused = works(profile_of(table("attention"), view("attention")))
    assert (unfused[Work.ATTENTION], unfused[Work.SOFTMAX], unfused[Work.FP8_GEMM]) == (0, 12, 72)
    assert half[Work.OTHER] == linear[Work.OTHER] == 1  # a call that computes shapes


def test_every_list_adds_up_to_every_layer(pair):
    explained = explain(*pair)
    for differences in (explained.by_work, explained.by_place, explained.by_place_and_work, explained.parts):
        assert sum(one.a.ms for one in differences) == pytest.approx(len(table("fp16").rows))
        assert sum(one.b.ms for one in differences) == pytest.approx(len(table("linear").rows))
    assert explained.a.layers_ms == pytest.approx(len(table("fp16").rows))


def test_blocks_alike_cost_alike_and_nothing_is_in_several(pair):
    explained = explain(*pair)
    by_place = {one.name: one for one in explained.by_place}
    assert SEVERAL not in by_place
    assert len({round(by_place[f"block {block}"].b.ms, 6) for block in range(1, 11)}) == 1
    assert by_place[BEFORE].a.ms > 0
    assert by_place[AFTER].a.ms > 0
    # The sum that ends a block and the normalization that begins the next are one kernel: half each.
    assert explained.a.shared_ms >= 11
    assert by_place[NOWHERE].a.ms == explained.a.unplaced_ms == 3  # two copies around the patches, and the call for shapes


def test_a_product_and_its_half_precision_twin_are_one_part(pair):
    parts = {one.name: one for one in explain(*pair).parts}
    (fc,) = [one for name, one in parts.items() if "c_fc/MatMul" in name]
    assert (fc.count, fc.a.ms, fc.b.ms) == (12, pytest.approx(12), pytest.approx(12))
    assert fc.name == "*/mlp/c_fc/MatMul, c_fc/Add, gelu/Gelu"
    assert "*/attn/q/MatMul, k/MatMul, v/MatMul, q/Add and 2 more" in parts


def test_rates_are_operations_and_bytes_over_time(view):
    explained = explain(*[profile_of(table("fp16"), view("fp16"), lambda row: 2.0)] * 2)
    fc = next(one for one in explained.parts if "c_fc/MatMul" in one.name)
    # 50 tokens of 128 pictures by 768 by 3072, twelve of them in 24 ms.
    assert fc.a.tflops == pytest.approx(12 * 2 * 50 * ROWS * 768 * 3072 / 24 / 1e9)
    halves = 50 * ROWS * 768 + 768 * 3072 + 3072 + 50 * ROWS * 3072
    assert fc.a.gbps == pytest.approx(12 * 2 * halves / 24 / 1e6)
    elementwise = next(one for one in explained.by_work if one.name == Work.ELEMENTWISE)
    assert elementwise.a.tflops is None


def test_layers_that_the_table_has_not_are_told_and_counted(pair):
    half, linear = pair
    strange = LayerTime(name="a layer of no table", ms=(5.0, 5.0, 5.0))
    times = replace(half.times, layers=(*half.times.layers, strange))
    explained = explain(replace(half, times=times), linear)
    assert explained.a.unmatched == ("a layer of no table",)
    assert explained.a.unplaced_ms == pytest.approx(8)
    assert sum(one.a.ms for one in explained.by_work) == pytest.approx(len(table("fp16").rows) + 5)


def test_two_layers_of_one_name_are_taken_in_order(pair):
    half, _ = pair
    names = {row.name: "twice" for row in half.layers if row.kind == "CaskConvolution"} | {"_gemm_mha_v2_myl3_5": "twice"}
    rows = tuple(replace(row, name=names.get(row.name, row.name)) for row in half.layers)
    layers = tuple(replace(layer, name=names.get(layer.name, layer.name)) for layer in half.times.layers)
    renamed = replace(half, layers=rows, times=replace(half.times, layers=layers))
    assert works(renamed) == works(half)


def test_without_a_graph_kinds_of_work_are_still_told_and_blocks_are_not(view):
    bare = profile_of(table("linear"), None)
    assert works(bare)[Work.FP8_GEMM] == 48
    assert works(bare)[Work.ATTENTION] == 12
    explained = explain(bare, bare)
    assert [one.name for one in explained.by_place] == ["the whole tower", NOWHERE]
    assert all(one.a.tflops is None for one in explained.by_work)


def test_the_sentence_tells_whole_launches_and_what_makes_the_difference(view):
    half = profile_of(table("fp16"), view("fp16"), lambda row: 2.0 if row.kind in GEMM_KINDS else 1.0, launch_ms=45.0)
    linear = profile_of(table("linear"), view("linear"), launch_ms=40.0)
    sentence = explain(half, linear).sentence
    assert "B is 1.125 times as fast" in sentence
    assert "49 ms less in GEMM" in sentence
    assert "more in elementwise" in sentence


def test_the_three_parts_that_got_slower_are_named_the_worst_first(view, pair):
    half, _ = pair
    slower = {"c_proj": 4.0, "attn/out": 3.0, "attn/v": 2.0, "c_fc": 1.5}

    def ms(row):
        return next((factor for word, factor in slower.items() if any(f"{word}/MatMul" in name for name in row.onnx_nodes)), 1.0)

    words = slower_layers(half, profile_of(table("fp16"), view("fp16"), ms))
    places = [words.index(part) for part in ("*/mlp/c_proj/MatMul", "*/attn/out/MatMul", "*/attn/q/MatMul")]
    assert places == sorted(places)
    assert "c_fc" not in words
    assert "(x12): 12 -> 48 ms" in words
    assert "no part of it takes longer" in slower_layers(half, half)
