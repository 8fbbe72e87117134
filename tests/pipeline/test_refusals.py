"""A machine that lacks something is told what, by every command alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.backends import tensorrt as module
from harness.backends._cuda import Found
from harness.errors import MissingDevice, MissingLibrary, UnsupportedTarget
from harness.pipeline.explaining_gain import _engine
from harness.pipeline.gpu_reporting import _require_backend
from harness.records.machine import Gpu
from harness.records.spec import Recipe
from tests.helpers.left_engines import fake_engine, leave

A100 = Gpu(name="NVIDIA A100", sm="SM80", uuid="GPU-1")
LACKING = [
    (Found(gpu=A100, cuda_major=13), "TensorRT is not installed", MissingLibrary, "missing_library", 4),
    (Found(why_not="no NVIDIA driver answers"), None, MissingDevice, "missing_device", 4),
    (Found(gpu=A100, cuda_major=13), None, UnsupportedTarget, "unsupported_target", 2),
]


@pytest.fixture(params=LACKING, ids=["no library", "no driver", "no FP8"])
def lacking(request, monkeypatch):
    found, library_words, kind, code, exit_code = request.param
    monkeypatch.setattr(module, "find_gpu", lambda: found)
    monkeypatch.setattr(module.library, "cuda_major", lambda: 13)
    monkeypatch.setattr(module.library, "why_no_library", lambda: library_words)
    assert (kind.code, kind.exit_code) == (code, exit_code)
    return kind


def test_a_report_of_nothing_is_refused_by_the_name_of_what_is_missing(lacking):
    linear = replace(fake_engine(backend="tensorrt").spec, recipe=Recipe.LINEAR)
    with pytest.raises(lacking, match="tensorrt can build nothing here") as caught:
        _require_backend([linear])
    assert type(caught.value) is lacking


def test_an_engine_that_cannot_be_explained_here_is_told_by_the_name_of_what_is_missing(lacking, tmp_path):
    left = leave(tmp_path, "tiny-image-linear", backend="tensorrt", recipe="linear")
    with pytest.raises(lacking) as caught:
        _engine(left)
    assert type(caught.value) is lacking


def test_a_report_goes_on_where_one_of_its_engines_can_be_had(monkeypatch):
    monkeypatch.setattr(module, "find_gpu", lambda: Found(gpu=A100, cuda_major=13))
    monkeypatch.setattr(module.library, "cuda_major", lambda: 13)
    monkeypatch.setattr(module.library, "why_no_library", lambda: None)
    spec = fake_engine(backend="tensorrt").spec
    _require_backend([replace(spec, recipe=recipe) for recipe in (Recipe.LINEAR, Recipe.FP16)])
