from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from harness.backends.pytorch import PyTorchBackend
from harness.backends.registry import get_backend
from harness.contracts import Action
from harness.errors import BuildFailed, InvalidMeasurement, OutsideProfile, UnusableInputs
from harness.records.artifacts import EngineArtifact
from harness.records.spec import EncoderSpec, EngineSpec

MakeSpec = Callable[..., EngineSpec]
MakeEngine = Callable[..., EngineArtifact]


def _flatten_and_project(_: EncoderSpec) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 8))


@pytest.fixture
def backend() -> PyTorchBackend:
    return PyTorchBackend(_flatten_and_project)


def test_it_runs_the_module_it_was_handed_in_fp32(backend: PyTorchBackend, make_engine: MakeEngine, pictures: np.ndarray) -> None:
    with backend.open(make_engine("pytorch", None, recipe="fp16")) as session:
        feed = session.upload({"image": pictures})
        session.launch(feed)
        (seen,) = session.download(feed).values()
    linear = _flatten_and_project(EncoderSpec.parse("any/image"))[2]
    assert isinstance(linear, nn.Linear)
    expected = pictures.reshape(3, -1).astype(np.float32) @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    assert seen.dtype == np.float32
    np.testing.assert_allclose(np.asarray(seen, np.float32), expected, rtol=1e-5, atol=1e-6)


def test_it_needs_a_loader_to_run(make_spec: MakeSpec, make_engine: MakeEngine) -> None:
    bare = get_backend("pytorch")
    assert "load=" in (bare.why_not(Action.RUN, make_spec("pytorch", recipe="fp16")) or "")
    with pytest.raises(InvalidMeasurement, match="load="), bare.open(make_engine("pytorch", None, recipe="fp16")):
        pass


def test_a_quantized_recipe_is_refused(backend: PyTorchBackend, make_spec: MakeSpec, make_engine: MakeEngine) -> None:
    assert "runs no quantized recipe" in (backend.why_not(Action.RUN, make_spec("pytorch", recipe="linear")) or "")
    with pytest.raises(InvalidMeasurement, match="runs no quantized recipe"), backend.open(make_engine("pytorch", None, recipe="linear")):
        pass


def test_it_builds_nothing(backend: PyTorchBackend, make_spec: MakeSpec, tmp_path) -> None:
    spec = make_spec("pytorch", recipe="fp16")
    assert "builds no engine" in (backend.why_not(Action.BUILD, spec) or "")
    with pytest.raises(BuildFailed, match="builds no engine"):
        backend.build(tmp_path / "any.onnx", spec, tmp_path)


def test_it_refuses_the_inputs_that_engines_refuse(backend: PyTorchBackend, make_engine: MakeEngine, pictures: np.ndarray) -> None:
    with backend.open(make_engine("pytorch", None, recipe="fp16")) as session:
        with pytest.raises(UnusableInputs, match="image float16"):
            session.upload({"image": pictures.astype(np.float32)})
        with pytest.raises(OutsideProfile):
            session.upload({"image": np.concatenate([pictures, pictures])})


def test_a_module_that_fails_is_a_broken_measurement_in_its_own_words(
    backend: PyTorchBackend, make_engine: MakeEngine, pictures: np.ndarray
) -> None:
    with backend.open(make_engine("pytorch", None, recipe="fp16")) as session:
        feed = session.upload({"image": pictures[:, :, :2, :]})
        with pytest.raises(InvalidMeasurement, match=r"image \[3, 3, 2, 4\].*shapes"):
            session.launch(feed)
