"""Towers of every kind, all the way to checked graphs and engines: what a recipe makes of them is clean, or is refused in words."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from harness.backends.registry import get_backend
from harness.contracts import Action
from harness.errors import UnsupportedRecipe
from harness.pipeline.checking import check_graph
from harness.pipeline.leaving import build_engine
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from tests.helpers.gates import CONFIGS, REPOSITORY, Gate

GATE_FILE = REPOSITORY / "gate.toml"
# Blocks, and products with weights, of each kind of tower: quickgelu's MLP, timm's attention with a pooling, residual convolutions.
TOWERS = {"small-quickgelu/image": (3, 18), "small-siglip/image": (6, 36), "small-resnet/image": (12, 40)}
WITHOUT_ATTENTION = {"small-resnet/image"}
CLEAN = [(name, recipe) for name in TOWERS for recipe in ("linear", "attention") if (name, recipe) != ("small-resnet/image", "attention")]

_SUBJECT = EngineSpec(encoder=EncoderSpec.parse("small-siglip/image"), recipe=Recipe.LINEAR, backend="tensorrt_rtx", target="SM89")
_WHY_NO_RTX = get_backend("tensorrt_rtx").why_not(Action.BUILD, _SUBJECT)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kinds")


@pytest.fixture(scope="module")
def build(cache, tmp_path_factory):
    """Builds in this process, so that libraries are loaded once; what is built is remembered by the cache."""
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ENGINEGATE_MODEL_CONFIGS", str(CONFIGS))

        def build(name: str, recipe: str) -> Path:
            engine = EngineSpec(encoder=EncoderSpec.parse(name), recipe=Recipe(recipe), backend="onnxruntime")
            return build_engine(engine, cache_dir=cache, out=out, progress=lambda _: nullcontext()).path

        yield build


def checked(path: Path, policy: str, reference: Path | None = None):
    return check_graph(path, reference=reference, policy=policy, gate_file=GATE_FILE).record


@pytest.mark.parametrize(("name", "recipe"), CLEAN)
def test_clean_exports_give_no_finding(build, name, recipe):
    record = checked(build(name, recipe), recipe, build(name, "fp16"))

    assert record.findings == ()
    assert (record.summary.blocks, record.summary.weight_gemms) == TOWERS[name]
    assert record.summary.quantized == record.summary.folded == record.summary.weight_gemms
    assert record.summary.fp8_flop_share is not None


@pytest.mark.parametrize("name", TOWERS)
def test_the_fp16_export_is_clean_and_no_fp8_graph(build, name):
    assert checked(build(name, "fp16"), "fp16").findings == ()
    assert [one.check for one in checked(build(name, "fp16"), "linear").findings] == ["O12"]


def test_recipe_attention_is_refused_for_a_tower_without_attention_in_its_blocks(build):
    with pytest.raises(UnsupportedRecipe, match="choose recipe linear"):
        build("small-resnet/image", "attention")


def test_a_trunk_is_not_what_recipe_attention_promises(build):
    [finding] = checked(build("small-resnet/image", "linear"), "attention").findings

    assert (finding.check, finding.found) == ("O12", "blocks of convolutions, without attention")


@pytest.mark.skipif(_WHY_NO_RTX is not None, reason=f"tensorrt_rtx: {_WHY_NO_RTX}")
def test_engines_of_every_kind_keep_what_linear_promises(build, cache, tmp_path):
    for name in TOWERS:
        for recipe in ("fp16", "linear"):
            build(name, recipe)
    encoders = [argument for name in TOWERS for argument in ("--encoders", name)]

    recipes = ("--recipes", "fp16", "--recipes", "linear")
    result = Gate(tmp_path, cache)(*encoders, *recipes, "--backends", "tensorrt_rtx", "-m", "graph", "--baselines=create")

    assert (result.code, result.red) == (0, {}), result.stdout
    seen = {(row["encoder"], row["recipe"], row["metric"]): row for row in result.verdicts}
    for name, (blocks, gemms) in TOWERS.items():
        assert seen[name, "linear", "block_gemms_fp8"]["observed"] == gemms
        assert seen.get((name, "linear", "fused_attention"), {}).get("observed") == (None if name in WITHOUT_ATTENTION else blocks)
    assert "stand alone before convolutions" in seen["small-resnet/image", "linear", "unfused_qdq"]["reason"]
    silent = {(row["encoder"], row["gate"]): row["reason"] for row in result.document["not_run"] if row["encoder"] in WITHOUT_ATTENTION}
    for metric in ("fused_attention", "check_O11"):
        assert "have no attention" in silent["small-resnet/image", metric]
