from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx
import pytest

from harness.backends import _builder_options
from harness.backends import tensorrt_rtx as module
from harness.backends._nvinfer import build_plan
from harness.backends.tensorrt_rtx import TensorRtRtxBackend
from harness.contracts import Action
from harness.errors import BuildFailed, MissingDevice, UnsupportedTarget, UnusableGraph
from harness.records.artifacts import EngineArtifact
from harness.records.spec import BuildOptions, EngineSpec

MakeSpec = Callable[..., EngineSpec]
BACKEND = TensorRtRtxBackend()


@pytest.fixture
def build(make_spec: MakeSpec, tmp_path: Path) -> Callable[..., Path]:
    """Builds with the real compiler into a fresh folder, which it returns."""
    reason = BACKEND.why_not(Action.BUILD, make_spec("tensorrt_rtx", target="SM89"))
    if reason:
        pytest.skip(reason)

    def run(source: Path, target: str | None = "SM89", folder: str = "built") -> Path:
        (tmp_path / folder).mkdir()
        BACKEND.build(source, make_spec("tensorrt_rtx", target=target), tmp_path / folder)
        return tmp_path / folder

    return run


def test_an_fp8_graph_compiles_without_a_gpu_into_a_plan_and_a_log(fp8_onnx: Path, build: Callable[..., Path]) -> None:
    folder = build(fp8_onnx)
    log = (folder / "build.log").read_text(encoding="utf-8")
    assert sorted(path.name for path in folder.iterdir()) == ["build.log", "engine.engine"]
    assert "[VERBOSE] Layers:\nName: " in log
    assert "Datatype: FP8" in log
    assert "[ONNX Layer: /fc/MatMul]" in log
    assert "Total Weights Memory: " in log


def test_the_same_graph_gives_the_same_plan_byte_for_byte(fp8_onnx: Path, build: Callable[..., Path]) -> None:
    first, second = build(fp8_onnx, folder="first"), build(fp8_onnx, folder="second")
    assert (first / "engine.engine").read_bytes() == (second / "engine.engine").read_bytes()


def test_each_build_has_a_log_of_its_own(fp8_onnx: Path, fp16_onnx: Path, build: Callable[..., Path]) -> None:
    logs = [(build(source, folder=source.stem) / "build.log").read_text(encoding="utf-8") for source in (fp8_onnx, fp16_onnx)]
    assert [log.count("[VERBOSE] Layers:") for log in logs] == [1, 1]
    assert ["Datatype: FP8" in log for log in logs] == [True, False]


def test_a_build_prints_nothing(fp8_onnx: Path, build: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
    build(fp8_onnx)
    assert capfd.readouterr() == ("", "")


def test_fp8_for_a_target_without_it_is_refused_in_the_builders_words(fp8_onnx: Path, build: Callable[..., Path]) -> None:
    with pytest.raises(UnsupportedTarget, match=r"(?s)SM86 has no fp8_e4m3.*SM89 \(Ada\) or newer.*Cannot compile for target"):
        build(fp8_onnx, "SM86")


def test_fp16_for_that_target_compiles(fp16_onnx: Path, build: Callable[..., Path]) -> None:
    assert (build(fp16_onnx, "SM86") / "engine.engine").stat().st_size > 0


def test_a_target_the_library_does_not_know_is_refused_with_those_it_knows(fp8_onnx: Path, build: Callable[..., Path]) -> None:
    with pytest.raises(UnsupportedTarget, match=r"does not compile for SM90; it knows .*SM89.*SM120"):
        build(fp8_onnx, "SM90")


def test_the_vendors_own_nodes_compile(vendor_onnx: Path, build: Callable[..., Path]) -> None:
    assert "Datatype: FP8" in (build(vendor_onnx) / "build.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("damage", ["cut", "empty", "absent"])
def test_a_damaged_file_is_unusable(damage: str, fp8_onnx: Path, build: Callable[..., Path]) -> None:
    whole = fp8_onnx.read_bytes()
    if damage == "absent":
        fp8_onnx.unlink()
    else:
        fp8_onnx.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    with pytest.raises(UnusableGraph, match=r"fp8\.onnx"):
        build(fp8_onnx)


def test_a_node_the_parser_does_not_know_is_named(fp16_onnx: Path, build: Callable[..., Path]) -> None:
    model = onnx.load(fp16_onnx)
    model.graph.node[-1].op_type = "Conjure"
    onnx.save(model, fp16_onnx)
    with pytest.raises(UnusableGraph, match=r"/fc/MatMul.*Conjure"):
        build(fp16_onnx)


@pytest.mark.parametrize(("axis", "words"), [(0, "fixed batch of 7"), (2, "but the first, which is the batch")])
def test_axes_that_no_profile_fits_are_refused(axis: int, words: str, fp16_onnx: Path, build: Callable[..., Path]) -> None:
    model = onnx.load(fp16_onnx)
    dim = model.graph.input[0].type.tensor_type.shape.dim[axis]
    if axis == 0:
        dim.dim_value = 7
    else:
        dim.dim_param = "height"
    onnx.save(model, fp16_onnx)
    with pytest.raises(UnusableGraph, match=words):
        build(fp16_onnx)


def test_what_the_bindings_raise_becomes_a_failed_build(
    fp16_onnx: Path, build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr("tensorrt_rtx_bindings.Builder", refuse)
    with pytest.raises(BuildFailed, match="factory function returned nullptr") as caught:
        build(fp16_onnx)
    assert isinstance(caught.value.__cause__, TypeError)


def test_running_is_not_offered(make_spec: MakeSpec, make_engine: Callable[..., EngineArtifact]) -> None:
    words = "compiles TensorRT-RTX engines ahead of time and does not run them"
    assert words in (BACKEND.why_not(Action.RUN, make_spec("tensorrt_rtx", target="SM89")) or "")
    with pytest.raises(MissingDevice, match=words):
        BACKEND.open(make_engine("tensorrt_rtx", None, target="SM89"))


@pytest.mark.parametrize(
    ("system", "machine", "words"),
    [
        ("Darwin", "arm64", "NVIDIA publishes no TensorRT-RTX wheels for Darwin on arm64"),
        ("Linux", "aarch64", "NVIDIA publishes no TensorRT-RTX wheels for Linux on aarch64"),
        ("Linux", "x86_64", "pip install 'enginegate[rtx]'"),
    ],
)
def test_an_absent_library_is_told_with_the_remedy_this_system_has(
    system: str, machine: str, words: str, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_installed", lambda _: False)
    monkeypatch.setattr(module.platform, "system", lambda: system)
    monkeypatch.setattr(module.platform, "machine", lambda: machine)
    assert words in (BACKEND.why_not(Action.BUILD, make_spec("tensorrt_rtx", target="SM89")) or "")


def test_a_build_without_a_target_is_told_to_name_one(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_installed", lambda _: True)
    assert "names no target" in (BACKEND.why_not(Action.BUILD, make_spec("tensorrt_rtx")) or "")


def test_a_real_builder_takes_every_option_and_says_how_far_it_is(
    fp8_onnx: Path, make_spec: MakeSpec, tmp_path: Path, build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorrt_rtx_bindings as trt

    monkeypatch.setattr(_builder_options, "SAY_EVERY_S", 0.0)
    said: list[str] = []
    asked = BuildOptions(workspace_mib=64, optimization_level=1)
    batch = make_spec("tensorrt_rtx", target="SM89").batch
    aim = partial(module._aim_at, trt.ComputeCapability.SM89)
    plan = build_plan(trt, fp8_onnx, batch, tmp_path / "build.log", aim, said.append, options=asked)
    assert len(bytes(plan.content)) > 0
    assert plan.notes == ()
    assert all(re.fullmatch(r".+ \d+ %", words) for words in said)
    assert len({words.rpartition(" ")[0].rpartition(" ")[0] for words in said}) > 1  # phases
