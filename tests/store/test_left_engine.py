from __future__ import annotations

import pytest

from harness.errors import UnusableEngine
from harness.records.spec import BuildOptions, Recipe
from harness.store.left_engine import read_left_engine
from tests.helpers.left_engines import BATCH, leave


def test_an_engine_is_read_with_what_its_record_says(tmp_path):
    engine = read_left_engine(leave(tmp_path, recipe="linear"))
    assert engine.spec.id == "tiny/image-linear-fake"
    assert engine.spec.recipe is Recipe.LINEAR
    assert engine.spec.batch == BATCH
    assert engine.path == tmp_path / "engine.onnx"


def test_what_its_builder_was_asked_comes_with_it(tmp_path):
    asked = BuildOptions(optimization_level=5, version_compatible=True)
    assert read_left_engine(leave(tmp_path, options=asked)).spec.options == asked


def _altered(path):
    path.write_bytes(b"another engine")


def _without_record(path):
    path.with_suffix(".json").unlink()


def _without_engine(path):
    path.unlink()


def _other_schema(path):
    record = path.with_suffix(".json")
    record.write_text(record.read_text().replace("engine/1", "engine/9"))


def _no_json(path):
    path.with_suffix(".json").write_text("{")


def _unknown_recipe(path):
    record = path.with_suffix(".json")
    record.write_text(record.read_text().replace('"fp16"', '"magic"'))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_altered, "it was altered"),
        (_without_record, "has no record beside it"),
        (_without_engine, "is no file"),
        (_other_schema, "newer enginegate"),
        (_no_json, "is no JSON"),
        (_unknown_recipe, "recipe 'magic' is unknown"),
    ],
)
def test_an_engine_that_is_not_what_it_should_be_is_refused(tmp_path, spoil, words):
    path = leave(tmp_path)
    spoil(path)
    with pytest.raises(UnusableEngine, match=words) as caught:
        read_left_engine(path)
    assert caught.value.exit_code == 2


def test_naming_the_record_itself_is_answered_with_the_file_to_name(tmp_path):
    with pytest.raises(UnusableEngine, match="name the engine file"):
        read_left_engine(leave(tmp_path).with_suffix(".json"))
