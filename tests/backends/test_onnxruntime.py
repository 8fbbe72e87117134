from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from harness.backends import onnxruntime as module
from harness.backends.onnxruntime import OnnxRuntimeBackend
from harness.contracts import Action
from harness.errors import InvalidMeasurement, OutsideProfile, UnusableGraph, UnusableInputs
from harness.records.artifacts import EngineArtifact
from harness.records.spec import EngineSpec

MakeSpec = Callable[..., EngineSpec]
MakeEngine = Callable[..., EngineArtifact]
BACKEND = OnnxRuntimeBackend()


def _run(engine: EngineArtifact, pictures: np.ndarray) -> np.ndarray:
    with BACKEND.open(engine) as session:
        feed = session.upload({"image": pictures})
        session.launch(feed)
        return session.download(feed)["embedding"]


def test_the_engine_is_the_onnx_file_and_nothing_else_is_left(fp8_onnx: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    folder = tmp_path / "built"
    folder.mkdir()
    built = BACKEND.build(fp8_onnx, make_spec("onnxruntime"), folder)
    assert [path.name for path in folder.iterdir()] == [built.engine]
    assert (folder / built.engine).read_bytes() == fp8_onnx.read_bytes()


def test_a_folder_on_another_file_system_gets_a_copy(
    fp8_onnx: Path, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(module.os, "link", refuse)
    folder = tmp_path / "built"
    folder.mkdir()
    built = BACKEND.build(fp8_onnx, make_spec("onnxruntime"), folder)
    assert (folder / built.engine).read_bytes() == fp8_onnx.read_bytes()


def test_fp8_embeddings_are_those_of_the_quantized_product(fp8_onnx: Path, make_engine: MakeEngine, pictures: np.ndarray) -> None:
    weights = onnx.numpy_helper.to_array(onnx.load(fp8_onnx).graph.initializer[3]).astype(np.float64) * 0.001
    expected = pictures.reshape(3, -1).astype(np.float64) @ weights
    seen = _run(make_engine("onnxruntime", fp8_onnx), pictures).astype(np.float64)
    # E4M3 keeps three fraction bits: rounding one factor errs by at most 1/16 of it, and about 1/40 of the sum.
    assert np.linalg.norm(seen - expected) < 0.06 * np.linalg.norm(expected)


def test_what_is_loaded_for_rows_gives_the_same_rows(fp8_onnx: Path, make_engine: MakeEngine, pictures: np.ndarray) -> None:
    engine = make_engine("onnxruntime", fp8_onnx)
    with BACKEND.open_for_rows(engine) as session:
        feed = session.upload({"image": pictures})
        session.launch(feed)
        np.testing.assert_array_equal(session.download(feed)["embedding"], _run(engine, pictures))


def test_a_row_alone_and_in_a_batch_gives_the_same(fp8_onnx: Path, make_engine: MakeEngine, pictures: np.ndarray) -> None:
    engine = make_engine("onnxruntime", fp8_onnx)
    np.testing.assert_allclose(_run(engine, pictures)[:1], _run(engine, pictures[:1]), rtol=1e-3)


def test_feeds_share_neither_each_others_nor_the_callers_memory(fp8_onnx: Path, make_engine: MakeEngine, pictures: np.ndarray) -> None:
    with BACKEND.open(make_engine("onnxruntime", fp8_onnx)) as session:
        mine = pictures.copy()
        first, second = session.upload({"image": mine}), session.upload({"image": -mine})
        mine[:] = 0
        session.launch(first)
        session.launch(second)
        one, other = (np.asarray(session.download(feed)["embedding"], np.float32) for feed in (first, second))
    assert np.abs(one).max() > 0
    np.testing.assert_allclose(one, -other, atol=1e-2)


def test_what_was_downloaded_outlives_the_next_launch(fp8_onnx: Path, make_engine: MakeEngine, pictures: np.ndarray) -> None:
    with BACKEND.open(make_engine("onnxruntime", fp8_onnx)) as session:
        feed = session.upload({"image": pictures})
        session.launch(feed)
        kept = session.download(feed)["embedding"]
        before = kept.copy()
        kept[:] = 0
        session.launch(feed)
        np.testing.assert_array_equal(session.download(feed)["embedding"], before)


@pytest.mark.parametrize("rows", [0, 5])
def test_a_batch_outside_the_profile_is_refused(rows: int, fp8_onnx: Path, make_engine: MakeEngine) -> None:
    with BACKEND.open(make_engine("onnxruntime", fp8_onnx)) as session, pytest.raises(OutsideProfile, match="1/2/4"):
        session.upload({"image": np.zeros((rows, 3, 4, 4), np.float16)})


@pytest.mark.parametrize(
    "inputs",
    [
        {"picture": np.zeros((1, 3, 4, 4), np.float16)},
        {"image": np.zeros((1, 3, 4, 4), np.float32)},
        {"image": np.zeros((1, 3, 5, 4), np.float16)},
        {"image": np.zeros((), np.float16)},
        {},
    ],
    ids=["name", "dtype", "shape", "scalar", "nothing"],
)
def test_inputs_of_another_kind_are_refused_with_what_the_engine_takes(
    inputs: dict[str, np.ndarray], fp8_onnx: Path, make_engine: MakeEngine
) -> None:
    with (
        BACKEND.open(make_engine("onnxruntime", fp8_onnx)) as session,
        pytest.raises(UnusableInputs, match=r"image float16 \[any, 3, 4, 4\]"),
    ):
        session.upload(inputs)


def test_a_closed_session_says_so(fp8_onnx: Path, make_engine: MakeEngine, pictures: np.ndarray) -> None:
    with BACKEND.open(make_engine("onnxruntime", fp8_onnx)) as session:
        feed = session.upload({"image": pictures})
    with pytest.raises(InvalidMeasurement, match="closed"):
        session.launch(feed)


def test_an_output_of_unknown_shape_is_left_to_the_library(fp16_onnx: Path, make_engine: MakeEngine, pictures: np.ndarray) -> None:
    model = onnx.load(fp16_onnx)
    expected = _run(make_engine("onnxruntime", fp16_onnx), pictures)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, fp16_onnx)
    np.testing.assert_array_equal(_run(make_engine("onnxruntime", fp16_onnx), pictures), expected)


def test_vendor_quantization_nodes_are_refused_in_words(vendor_onnx: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    folder = tmp_path / "built"
    folder.mkdir()
    assert "domain `trt`" in (BACKEND.why_not(Action.BUILD, make_spec("onnxruntime", recipe="modelopt")) or "")
    with pytest.raises(UnusableGraph, match="domain `trt`"):
        BACKEND.build(vendor_onnx, make_spec("onnxruntime", recipe="modelopt"), folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "empty", "absent"])
def test_a_damaged_file_is_unusable_and_the_terminal_stays_quiet(
    damage: str, fp8_onnx: Path, make_spec: MakeSpec, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "built"
    folder.mkdir()
    whole = fp8_onnx.read_bytes()
    if damage == "absent":
        fp8_onnx.unlink()
    else:
        fp8_onnx.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    with pytest.raises(UnusableGraph):
        BACKEND.build(fp8_onnx, make_spec("onnxruntime"), folder)
    assert capfd.readouterr() == ("", "")


def test_threads_are_those_this_process_may_use() -> None:
    assert 1 <= module.intra_op_threads() <= (os.cpu_count() or 1)
