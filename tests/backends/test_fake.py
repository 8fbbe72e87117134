from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.backends.fake import FakeBackend, Fault
from harness.errors import UnusableGraph
from harness.measure.layers import read_layer_table
from harness.records.artifacts import EngineArtifact
from harness.records.spec import EngineSpec

MakeSpec = Callable[..., EngineSpec]
MakeEngine = Callable[..., EngineArtifact]


@pytest.fixture
def run(make_engine: MakeEngine) -> Callable[..., np.ndarray]:
    """Runs pictures through a fake engine."""

    def run(pictures: np.ndarray, fault: Fault | None = None, recipe: str = "fp16") -> np.ndarray:
        with FakeBackend(fault=fault).open(make_engine("fake", None, recipe=recipe)) as session:
            feed = session.upload({"image": pictures})
            session.launch(feed)
            return session.download(feed)["embedding"]

    return run


def test_its_embeddings_are_linear_in_each_row_alone(run: Callable[..., np.ndarray], pictures: np.ndarray) -> None:
    together = run(pictures)
    np.testing.assert_array_equal(together[1:2], run(pictures[1:2]))
    np.testing.assert_allclose(run(pictures * np.float16(2)), 2 * together, rtol=1e-6)


def test_a_quantized_recipe_is_near_fp16_and_not_the_same(run: Callable[..., np.ndarray], pictures: np.ndarray) -> None:
    exact, quantized = run(pictures), run(pictures, recipe="linear")
    error = np.linalg.norm(quantized - exact) / np.linalg.norm(exact)
    assert 0.005 < error < 0.05


def test_it_can_be_told_to_break(run: Callable[..., np.ndarray], pictures: np.ndarray) -> None:
    exact = run(pictures)
    assert np.isnan(run(pictures, Fault.NAN)).any(axis=1).tolist() == [True, False, False]
    assert np.ptp(run(pictures, Fault.CONSTANT)) == 0
    assert np.ptp(run(pictures, Fault.SHIFT) - exact) < 1e-5
    np.testing.assert_array_equal(run(pictures, Fault.SWAP), np.roll(exact, 1, axis=0))
    np.testing.assert_array_equal(run(pictures, Fault.SLOW), exact)


def test_its_build_log_holds_an_ideal_layer_table(fp8_onnx: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    folder = tmp_path / "built"
    folder.mkdir()
    built = FakeBackend().build(fp8_onnx, make_spec("fake"), folder)
    assert built.log is not None
    gemm = next(row for row in read_layer_table(folder / built.log).rows if row.kind == "gemm")
    assert gemm.onnx_nodes == ("/fc/dequantize", "/fc/weights", "/fc/MatMul")
    assert [tensor.datatype for tensor in (*gemm.inputs, *gemm.constants)] == ["FP8", "FP8"]
    assert gemm.constants[0].shape == (48, 32)


def test_a_file_that_is_no_onnx_is_refused(make_spec: MakeSpec, tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(UnusableGraph, match=r"junk\.onnx cannot be read"):
        FakeBackend().build(tmp_path / "junk.onnx", make_spec("fake"), tmp_path)
