"""Where a builder has kernels for a batch that cannot change only, the engine of one batch stands in, and everyone is told."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from harness.backends.fake import FakeBackend
from harness.contracts import Capability
from harness.errors import BuildFailed, NeedsFixedBatch
from harness.pipeline import isolating, making
from harness.pipeline.making import Maker
from harness.records.artifacts import OnnxArtifact
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, Recipe
from harness.store.cache import ArtifactCache, CacheMode

OPEN = BatchProfile(minimum=1, optimum=8, maximum=64)
ENCODER = EncoderSpec.parse("ViT-B-32/image", weights="sha256:0")
LINEAR = EngineSpec(encoder=ENCODER, recipe=Recipe.LINEAR, backend="fake", batch=OPEN)


class Picky(FakeBackend):
    """Has FP8 kernels for a batch that cannot change, and for no other."""

    @property
    def capabilities(self):
        return super().capabilities | {Capability.MAY_NEED_FIXED_BATCH}

    def build(self, source, engine, folder):
        BUILDS.append(engine)
        if engine.recipe.is_quantized and not engine.batch.is_fixed:
            raise REFUSAL[0]
        return super().build(source, engine, folder)


BUILDS: list[EngineSpec] = []
REFUSAL: list[Exception] = []


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> list[EngineSpec]:
    """Every build that was tried."""
    BUILDS.clear()
    REFUSAL[:] = [NeedsFixedBatch("this release has no FP8 kernels for a batch that changes\nits log says more")]
    for module in (making, isolating):
        monkeypatch.setattr(module, "backend_of", lambda name: Picky())
    return BUILDS


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    from onnx import TensorProto, helper, save

    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["batch", 8]) for name in ("image", "embedding")]
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["embedding"], name="relu")], "small", ports[:1], ports[1:])
    path = tmp_path / "encoder.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


RECIPES = (Recipe.FP16, Recipe.LINEAR)


def _maker(
    cache: Path, onnx: Path, notes: list[str] | None = None, mode: CacheMode = CacheMode.USE, recipes: tuple[Recipe, ...] = RECIPES
) -> Maker:
    said = [] if notes is None else notes
    cache_of_session = ArtifactCache(cache, mode, session_id=mode)
    maker = Maker(cache_of_session, lambda words: contextlib.nullcontext(), said.append, recipes=recipes)
    for recipe in (Recipe.FP16, Recipe.LINEAR):
        made = OnnxArtifact(encoder=ENCODER, recipe=recipe, origin="sha256:0", path=onnx, sha256=f"{recipe}", nbytes=1, opset=20)
        maker.adopt(made)
    return maker


def test_the_engine_of_the_optimum_stands_in_and_says_why(picky: list[EngineSpec], tmp_path: Path, onnx: Path) -> None:
    notes: list[str] = []
    maker = _maker(tmp_path, onnx, notes)
    found = maker.stand_in(LINEAR)
    assert found.engine == replace(LINEAR, batch=BatchProfile.parse("8/8/8"))
    assert "built for batch 8/8/8 in place of 1/8/64" in found.note
    assert "no FP8 kernels for a batch that changes" in found.note
    assert "its log says more" not in found.note
    assert notes == [f"{LINEAR.id}: {found.note}"]
    assert maker.engine(found.engine).spec.batch.is_fixed


def test_one_engine_decides_for_all_that_it_is_compared_with(picky: list[EngineSpec], tmp_path: Path, onnx: Path) -> None:
    maker = _maker(tmp_path, onnx)
    half = replace(LINEAR, recipe=Recipe.FP16)
    found = maker.stand_in(half)
    assert found.engine == replace(maker.stand_in(LINEAR).engine, recipe=Recipe.FP16)
    assert "as is every engine of ViT-B-32/image" in found.note
    assert maker.note_on(found.engine) == found.note
    assert picky == [LINEAR]


def test_what_was_only_tried_is_no_engine_of_the_run(picky: list[EngineSpec], tmp_path: Path, onnx: Path) -> None:
    maker = _maker(tmp_path, onnx)
    found = [maker.stand_in(replace(LINEAR, recipe=recipe)).engine for recipe in (Recipe.LINEAR, Recipe.FP16)]
    for engine in found:
        maker.engine(engine)
    assert maker.engines == tuple(found)
    assert len({engine.id for engine in maker.engines}) == 2


def test_where_nothing_quantized_is_compared_fp16_keeps_its_batch(picky: list[EngineSpec], tmp_path: Path, onnx: Path) -> None:
    half = replace(LINEAR, recipe=Recipe.FP16)
    assert _maker(tmp_path, onnx, recipes=(Recipe.FP16,)).stand_in(half).engine == half
    assert picky == []


def test_a_refused_build_is_not_tried_again_in_the_next_session(picky: list[EngineSpec], tmp_path: Path, onnx: Path) -> None:
    first = _maker(tmp_path, onnx).stand_in(LINEAR)
    assert picky == [LINEAR]
    assert _maker(tmp_path, onnx).stand_in(LINEAR) == first
    assert picky == [LINEAR]
    _maker(tmp_path, onnx, mode=CacheMode.REBUILD).stand_in(LINEAR)
    assert picky == [LINEAR, LINEAR]


def test_an_engine_of_a_fixed_batch_is_itself_and_nothing_is_built(picky: list[EngineSpec], tmp_path: Path, onnx: Path) -> None:
    spec = replace(LINEAR, batch=BatchProfile.parse("8/8/8"))
    assert _maker(tmp_path, onnx).stand_in(spec).engine == spec
    assert picky == []


def test_a_builder_that_can_builds_what_was_asked_for(picky: list[EngineSpec], tmp_path: Path, onnx: Path, monkeypatch) -> None:
    monkeypatch.setattr(Picky, "build", lambda self, source, engine, folder: FakeBackend.build(self, source, engine, folder))
    found = _maker(tmp_path, onnx).stand_in(LINEAR)
    assert (found.engine, found.note) == (LINEAR, "")


def test_any_other_failure_is_the_engines_own(picky: list[EngineSpec], tmp_path: Path, onnx: Path) -> None:
    REFUSAL[:] = [BuildFailed("no engine")]
    maker, half = _maker(tmp_path, onnx), replace(LINEAR, recipe=Recipe.FP16)
    assert maker.stand_in(half).engine == half
    with pytest.raises(BuildFailed, match="no engine"):
        maker.stand_in(LINEAR)
