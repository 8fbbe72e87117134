"""Layer times: a run of its own in a context of its own, and a profiler's trace read for what it says."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from harness.backends import _copy_rate, _cuda_session, _product_rate, tensorrt_rtx
from harness.backends._cuda_session import TensorRtSession
from harness.backends._onnxruntime_profile import read_profile
from harness.backends._product_rate import write_product
from harness.backends.onnxruntime import OnnxRuntimeBackend
from harness.backends.tensorrt_rtx import TensorRtRtxBackend
from harness.contracts import Action, LayerTimed, ProfiledLaunches
from harness.errors import InvalidMeasurement
from harness.measure import ranges
from harness.measure.layer_times import profiled
from harness.records.artifacts import EngineArtifact
from harness.records.spec import BatchProfile, EngineSpec
from tests.backends.test_tensorrt import NotedCuda, NotedEngine

MakeEngine = Callable[..., EngineArtifact]


class Profiler:
    """TensorRT's own class: it has to be initialised by name."""

    def __init__(self) -> None:
        self.is_ready = True


class ProfiledEngine(NotedEngine):
    """Tells a profiler of two layers a launch; the second one's time is the number of the launch."""

    def __init__(self, cuda: NotedCuda) -> None:
        super().__init__(cuda)
        self.contexts: list[Any] = []

    def create_execution_context(self) -> Any:
        context = super().create_execution_context()
        context.profiler = None
        launches: list[int] = []

        def execute(stream: int) -> bool:
            self.cuda.calls.append("enqueue")
            launches.append(1)
            if context.profiler is not None:
                assert context.profiler.is_ready
                context.profiler.report_layer_time("first", 0.5)
                context.profiler.report_layer_time("second", float(len(launches)))
            return True

        context.execute_async_v3 = execute
        self.contexts.append(context)
        return context

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(get_engine_information=lambda kind: f"the layers as {kind}")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> NotedCuda:
    noted = NotedCuda()
    monkeypatch.setattr(_cuda_session, "Cuda", lambda: noted)
    monkeypatch.setattr(_copy_rate, "Cuda", lambda: noted)
    monkeypatch.setattr(_cuda_session, "logger_of", lambda trt: SimpleNamespace(errors=[]))
    return noted


@pytest.fixture
def layered(cuda: NotedCuda) -> ProfiledEngine:
    return ProfiledEngine(cuda)


@pytest.fixture
def session(layered: ProfiledEngine) -> TensorRtSession:
    trt: Any = SimpleNamespace(
        TensorIOMode=SimpleNamespace(INPUT="in"), IProfiler=Profiler, LayerInformationFormat=SimpleNamespace(JSON="JSON")
    )
    return TensorRtSession(trt, layered, BatchProfile(minimum=1, optimum=2, maximum=4), "GPU-1")


def test_layers_are_timed_in_a_context_that_no_other_launch_uses(
    session: TensorRtSession, layered: ProfiledEngine, pictures: np.ndarray
) -> None:
    assert isinstance(session, LayerTimed)
    feed = session.upload({"image": pictures})
    told = session.profile(feed, 2)
    assert told.launches == ((("first", 0.5), ("second", 1.0)), (("first", 0.5), ("second", 2.0)))
    assert told.inspector == "the layers as JSON"
    assert [context.profiler is not None for context in layered.contexts] == [False, True]


def test_warm_up_does_not_count_and_whole_launches_are_timed_without_the_profiler(
    session: TensorRtSession, cuda: NotedCuda, pictures: np.ndarray
) -> None:
    feed = session.upload({"image": pictures})
    seen = profiled(session, feed, name="an engine", rows=3, launches=4, warm_up=3).times
    assert [layer.ms for layer in seen.layers] == [(0.5,) * 4, (4.0, 5.0, 6.0, 7.0)]
    assert (seen.sum_ms, seen.launches, seen.warm_up) == (6.0, 4, 3)
    assert seen.launch_ms == (1.5,) * 4
    assert seen.launched == "graph replays (CUDA events)"
    assert cuda.calls.count("cudaGraphLaunch") == 3 + 4 + 2  # each block has a launch that leads in


def test_a_profiler_that_tells_nothing_is_no_profile(session: TensorRtSession, layered: ProfiledEngine, pictures: np.ndarray) -> None:
    feed = session.upload({"image": pictures})
    layered.create_execution_context = lambda: NotedEngine(layered.cuda).create_execution_context()  # type: ignore[method-assign]
    with pytest.raises(InvalidMeasurement, match="told no layer times"):
        session.profile(feed, 1)


def test_launches_of_other_layers_are_refused(session: TensorRtSession, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = session.upload({"image": pictures})
    whole = session.profile(feed, 2)
    cut = replace(whole, launches=(whole.launches[0], whole.launches[0], whole.launches[1][:1]))
    monkeypatch.setattr(TensorRtSession, "profile", lambda self, feed, launches: cut)
    with pytest.raises(InvalidMeasurement, match="told 1 or 2 layers"):
        profiled(session, feed, name="an engine", rows=3, launches=2, warm_up=1)


def test_a_backend_without_a_profiler_is_told(pictures: np.ndarray) -> None:
    with pytest.raises(InvalidMeasurement, match="does not say how long a layer takes"):
        profiled(SimpleNamespace(), None, name="an engine", rows=1)  # type: ignore[arg-type]


def test_copies_count_what_is_read_and_what_is_written(cuda: NotedCuda) -> None:
    copied = 2 * 20 * _copy_rate._NBYTES  # in the 1.5 ms that the clock here always says
    assert _copy_rate.copy_gbps() == pytest.approx(copied / 1.5e-3 / 1e9)
    assert cuda.calls.count("cudaMemcpyAsync") == 5 * 21
    assert cuda.calls.count("cudaFree") == 2


# -- ONNX Runtime ---------------------------------------------------------------------------------------------------------------------


def test_onnx_runtime_tells_its_nodes_with_their_types(fp8_onnx: Path, make_engine: MakeEngine, pictures: np.ndarray) -> None:
    with OnnxRuntimeBackend().open(make_engine("onnxruntime", fp8_onnx)) as session:
        seen = profiled(session, session.upload({"image": pictures}), name="fp8", rows=3, launches=5, warm_up=2)
    assert [len(layer.ms) for layer in seen.times.layers] == [5] * len(seen.rows)
    assert [layer.name for layer in seen.times.layers] == [row.name for row in seen.rows]
    (product,) = [row for row in seen.rows if "/fc/MatMul" in row.onnx_nodes]
    assert product.inputs[0].shape == (3, 48)
    quantize = next(row for row in seen.rows if row.kind == "QuantizeLinear")
    assert quantize.outputs[0].datatype == "FP8"
    assert seen.times.launched == "plain launches (host)"


@pytest.mark.parametrize("document", [b"", b"[1, 2]", b'{"a": 1}', b'[{"cat": "Node", "name": "x_kernel_time"}]'])
def test_a_trace_that_is_none_is_told(document: bytes) -> None:
    with pytest.raises(InvalidMeasurement, match="ONNX Runtime's profile"):
        read_profile(document, 1)


def test_a_trace_of_fewer_launches_is_told() -> None:
    run = {"cat": "Session", "name": "model_run", "ts": 0, "dur": 5}
    with pytest.raises(InvalidMeasurement, match="holds 1 launches; expected 2"):
        read_profile(json.dumps([run]).encode(), 2)


# -- names for Nsight -----------------------------------------------------------------------------------------------------------------


def test_stretches_of_work_are_named_where_nvtx_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Range:
        def __init__(self, words: str, domain: str) -> None:
            said.append(f"{domain}: {words}")

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(ranges, "_nvtx", lambda: SimpleNamespace(annotate=Range))
    with ranges.named("profiled launches"):
        pass
    monkeypatch.setattr(ranges, "_nvtx", lambda: None)
    with ranges.named("nobody looks"):
        pass
    assert said == ["enginegate: profiled launches"]


# -- the product whose rate is measured -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fp8", [False, True])
def test_the_product_to_measure_is_a_graph_of_one_matmul(fp8: bool, tmp_path: Path) -> None:
    path = tmp_path / "product.onnx"
    write_product(path, 64, fp8=fp8)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node].count("MatMul") == 1
    assert len(path.read_bytes()) < 64 * 64 * (1 if fp8 else 2) + 1000


@pytest.mark.parametrize("fp8", [False, True])
def test_the_measured_rate_is_that_of_the_products_own_layer(
    fp8: bool, make_spec: Callable[..., EngineSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built by the real compiler, and run by a session that tells two layers; the slower of them, at its fastest, is the product."""
    spec = make_spec("tensorrt_rtx", target="SM89")
    if why_not := TensorRtRtxBackend().why_not(Action.BUILD, spec):
        pytest.skip(why_not)
    trt = importlib.import_module(tensorrt_rtx.MODULE)
    aim = partial(tensorrt_rtx._aim_at, tensorrt_rtx._capability(trt, spec))
    built: list[Path] = []

    class Session:
        def __init__(self, *_: object) -> None: ...

        def upload(self, inputs: dict[str, np.ndarray]) -> object:
            assert inputs["rows"].shape == (128, 128)
            return None

        def profile(self, feed: object, launches: int) -> ProfiledLaunches:
            return ProfiledLaunches(launches=tuple((("quantize", 0.1), ("product", 1.0 + number % 3)) for number in range(launches)))

        def close(self) -> None: ...

    monkeypatch.setattr(_product_rate, "TensorRtSession", Session)
    plain = _product_rate.build_plan
    monkeypatch.setattr(_product_rate, "build_plan", lambda *given: plain(*given[:4], aim))
    rate = _product_rate.product_tflops(trt, tmp_path, built.append, "GPU-1", fp8=fp8, side=128)
    assert rate == pytest.approx(2 * 128**3 / 1e-3 / 1e12)
    (log,) = tmp_path.glob("*.log")
    assert ("Datatype: FP8" in log.read_text(encoding="utf-8")) is fp8
    assert built[0].stat().st_size > 0
