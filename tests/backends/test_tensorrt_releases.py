"""One code path builds, inspects and runs with every release, by what each one has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.backends import _builder_options, _cuda_session, _nvinfer
from harness.backends import tensorrt as module
from harness.backends._cuda import Found
from harness.backends.tensorrt import ALLOW_HOST_CODE, TensorRtBackend
from harness.errors import (
    BuildFailed,
    ContextLost,
    HostCodeRefused,
    InvalidMeasurement,
    MissingDevice,
    NeedsFixedBatch,
    OutOfDeviceMemory,
    UnsupportedOption,
    UnusableEngine,
    UnusableGraph,
    UnusableTimingCache,
)
from harness.records.artifacts import BuiltFiles, EngineArtifact
from harness.records.machine import Gpu
from harness.records.spec import BatchProfile, BuildOptions, EngineSpec
from tests.backends.test_tensorrt import NotedCuda
from tests.helpers.fake_tensorrt import ACTIVATION_BYTES, INSPECTED, RELEASES, WEIGHTS_BYTES, Script, fake_tensorrt, symbols

MakeSpec = Callable[..., EngineSpec]
H100 = Gpu(name="NVIDIA H100 80GB HBM3", sm="SM90", uuid="GPU-1")


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def trt(release: str, script: Script, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in for one release, on an H100."""
    fake = fake_tensorrt(release, script)
    monkeypatch.setattr(_nvinfer, "_loggers", {})
    monkeypatch.setattr(module, "find_gpu", lambda: Found(gpu=H100, cuda_major=13))
    monkeypatch.setattr(module.library, "why_no_library", lambda: None)
    monkeypatch.setattr(module.library, "cuda_major", lambda: 13)
    monkeypatch.setattr(module.library, "version", lambda: fake.__version__)
    monkeypatch.setattr(module.library, "load", lambda: fake)
    monkeypatch.delenv(ALLOW_HOST_CODE, raising=False)
    return fake


@pytest.fixture
def build(trt: Any, make_spec: MakeSpec, tmp_path: Path) -> Callable[..., BuiltFiles]:
    def built(recipe: str = "linear", *, batch: str = "4/4/4", say: Any = None, **options: Any) -> BuiltFiles:
        spec = replace(make_spec("tensorrt", recipe), batch=BatchProfile.parse(batch), options=BuildOptions(**options))
        return TensorRtBackend(say).build(tmp_path / "encoder.onnx", spec, tmp_path)

    return built


def test_every_release_is_asked_the_same(build: Any, trt: Any, script: Script, tmp_path: Path) -> None:
    built = build(workspace_mib=512, optimization_level=2)
    assert script.asked["network flags"] == 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert script.asked["config"].profiling_verbosity is trt.ProfilingVerbosity.DETAILED
    assert script.asked["pool"] == ("WORKSPACE", 512 * 2**20)
    assert script.asked["config"].builder_optimization_level == 2
    assert script.asked["profile"]["image"] == ([4, 3, 4, 4],) * 3
    assert (tmp_path / built.engine).read_bytes() == b"plan"
    assert (tmp_path / str(built.layers)).read_text() == INSPECTED
    assert built.device == str(H100)


def test_what_is_not_asked_is_left_to_the_builder(build: Any, trt: Any, script: Script) -> None:
    build()
    assert "pool" not in script.asked
    assert "flags" not in script.asked
    assert script.asked["config"].builder_optimization_level == 3


def test_bytes_come_from_what_a_release_can_say(build: Any, trt: Any, release: str) -> None:
    memory = build().memory
    says_weights = "get_engine_stat" in symbols(release)["classes"]["ICudaEngine"]["methods"]
    assert memory.weights_bytes == (WEIGHTS_BYTES if says_weights else None)
    assert memory.activation_bytes == ACTIVATION_BYTES
    assert memory.profile_bytes == (ACTIVATION_BYTES,)


def test_the_releases_differ_where_the_branches_are() -> None:
    """Were all three alike, running every one of them would prove one branch."""
    engines = {release: set(symbols(release)["classes"]["ICudaEngine"]["methods"]) for release in RELEASES}
    assert "get_engine_stat" not in engines["10.6"]
    assert "get_engine_stat" in engines["10.15"] & engines["11.2"]
    assert "get_device_memory_size_for_profile" in engines["10.6"] & engines["10.15"]
    assert "get_device_memory_size_for_profile" not in engines["11.2"]
    assert all("get_device_memory_size_for_profile_v2" in methods for methods in engines.values())


def test_phases_are_said_with_their_percentage(build: Any, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    def during(config: Any) -> None:
        config.progress_monitor.phase_start("Building Engine", None, 3)
        config.progress_monitor.phase_start("Tactic Selection", "Building Engine", 4)
        assert config.progress_monitor.step_complete("Tactic Selection", 0)
        config.progress_monitor.phase_finish("Tactic Selection")
        assert config.progress_monitor.step_complete("Building Engine", 2)

    said: list[str] = []
    script.during = during
    monkeypatch.setattr(_builder_options, "SAY_EVERY_S", 0.0)
    build(say=said.append)
    assert said == ["Building Engine 0 %", "Tactic Selection 0 %", "Tactic Selection 25 %", "Building Engine 100 %"]


def test_a_listener_that_is_gone_fails_no_build(build: Any, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_words: str) -> None:
        calls.append(1)
        raise OSError("nobody listens")

    calls: list[int] = []
    script.during = lambda config: [config.progress_monitor.phase_start(f"phase {number}", None, 1) for number in range(3)]
    monkeypatch.setattr(_builder_options, "SAY_EVERY_S", 0.0)
    build(say=gone)
    assert calls == [1]


def test_without_a_listener_nobody_monitors(build: Any, script: Script) -> None:
    script.during = lambda config: pytest.fail("monitored") if "progress_monitor" in config.__dict__ else None
    build()


def test_a_timing_cache_is_read_written_and_told(build: Any, script: Script, tmp_path: Path) -> None:
    times = tmp_path / "times.bin"
    assert "before empty" in build(timing_cache=str(times)).notes[0]
    assert times.read_bytes() == b"more"
    (note,) = build(timing_cache=str(times)).notes
    assert times.read_bytes() == b"moremore"
    assert "(4 bytes)" in note
    assert "(8 bytes)" in note
    assert script.asked["ignores a cache's mismatch"] is False
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("times.bin")] == ["times.bin"]


def test_a_timing_cache_of_another_gpu_or_release_is_refused_and_left_alone(build: Any, script: Script, tmp_path: Path) -> None:
    times = tmp_path / "times.bin"
    times.write_bytes(b"of another GPU")
    script.refuses_cache = True
    with pytest.raises(UnusableTimingCache, match="another release's or GPU's"):
        build(timing_cache=str(times))
    assert times.read_bytes() == b"of another GPU"


@pytest.mark.parametrize(
    "nonsense",
    [{"cache_says": [("ERROR", "Serialization assertion magicTagRead == kMAGIC_TAG failed.")]}, {"drops_cache": True}],
    ids=["logged", "dropped"],
)
def test_a_file_that_is_no_timing_cache_is_refused_before_the_graph_is_read(
    build: Any, script: Script, tmp_path: Path, nonsense: dict[str, Any]
) -> None:
    times = tmp_path / "times.bin"
    times.write_bytes(b"no kernel times")
    vars(script).update(nonsense)
    script.parser_errors = [("", "", "the graph was read")]
    with pytest.raises(UnusableTimingCache, match=r"refuses the timing cache .*times\.bin") as caught:
        build(timing_cache=str(times))
    assert ("magicTagRead" in str(caught.value)) is ("cache_says" in nonsense)
    assert "config" not in script.asked  # nothing was built
    assert times.read_bytes() == b"no kernel times"


def test_a_timing_cache_that_a_build_made_no_use_of_is_left_alone(build: Any, script: Script, tmp_path: Path) -> None:
    times = tmp_path / "times.bin"
    times.write_bytes(b"no kernel times")
    script.says = [("ERROR", "Error Code 4: The timing cache will not be used!")]
    with pytest.raises(UnusableTimingCache, match="will not be used"):
        build(timing_cache=str(times))
    assert times.read_bytes() == b"no kernel times"


def test_a_timing_cache_that_cannot_be_written_is_told(build: Any, tmp_path: Path) -> None:
    with pytest.raises(UnusableTimingCache, match="cannot be written"):
        build(timing_cache=str(tmp_path / "no folder" / "times.bin"))


def test_a_release_without_an_option_says_which(trt: Any, build: Any) -> None:
    del trt.MemoryPoolType
    with pytest.raises(UnsupportedOption, match=f"{trt.__version__} has nothing for --workspace-mib"):
        build(workspace_mib=1)


def test_host_code_is_refused_before_anything_is_built(build: Any, script: Script) -> None:
    with pytest.raises(HostCodeRefused, match=f"{ALLOW_HOST_CODE}=1"):
        build(version_compatible=True)
    assert script.asked == {}


def test_host_code_is_allowed_by_its_owner_and_for_plans_that_need_it_alone(
    build: Any, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOW_HOST_CODE, "1")
    build(version_compatible=True)
    assert script.asked["flags"] == ["VERSION_COMPATIBLE"]
    assert script.asked["host code allowed"] is True
    build()
    assert script.asked["host code allowed"] is False


def test_a_parser_error_names_the_node_and_the_words_of_onnx(build: Any, script: Script) -> None:
    script.parser_errors = [("/visual/blocks.3/attn/MatMul", "MatMuh", "no importer is registered for it")]
    with pytest.raises(UnusableGraph, match=r"encoder\.onnx:\n  node '/visual/blocks.3/attn/MatMul' \(MatMuh\): no importer"):
        build()


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Requested amount of GPU memory (1099511627776 bytes) could not be allocated.", OutOfDeviceMemory),
        ("Insufficient memory for some tactics", OutOfDeviceMemory),
        ("Could not find any implementation for node {ForeignNode[/blocks.0]}.", BuildFailed),
    ],
)
def test_a_build_without_an_engine_is_named_by_what_the_vendor_said(build: Any, script: Script, words: str, kind: type) -> None:
    script.plan, script.says = None, [("ERROR", words)]
    with pytest.raises(kind) as caught:
        build()
    assert type(caught.value) is kind
    assert words in str(caught.value)


def test_fp8_without_kernels_for_a_batch_that_changes_has_a_name_of_its_own(build: Any, script: Script) -> None:
    script.plan, script.says = None, [("ERROR", "Failed to find fallback kernel. tactics.size() 24")]
    with pytest.raises(NeedsFixedBatch, match="--batch 2/2/2"):
        build(batch="1/2/4")
    with pytest.raises(BuildFailed) as caught:
        build(batch="4/4/4")
    assert type(caught.value) is BuildFailed


@pytest.fixture
def engine(build: Any, trt: Any, make_engine: Callable[..., EngineArtifact], tmp_path: Path) -> EngineArtifact:
    made = make_engine("tensorrt", tmp_path / build("fp16").engine, recipe="fp16")
    return replace(made, backend_version=trt.__version__, device=str(H100))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> NotedCuda:
    noted = NotedCuda()
    monkeypatch.setattr(_cuda_session, "Cuda", lambda: noted)
    for one in (module, _cuda_session):
        monkeypatch.setattr(one, "context_lost", lambda: None)
    return noted


@pytest.mark.usefixtures("cuda")
def test_every_release_tells_a_profiler_how_long_its_layers_take(engine: EngineArtifact, script: Script, pictures: np.ndarray) -> None:
    script.layers = [("first", 0.5), ("second", 1.5)]
    with TensorRtBackend().open(engine) as session:
        told = session.profile(session.upload({"image": pictures}), 2)
    assert told.launches == ((("first", 0.5), ("second", 1.5)),) * 2
    assert told.inspector == INSPECTED


@pytest.mark.usefixtures("cuda")
def test_a_release_that_tells_a_profiler_nothing_is_told(engine: EngineArtifact, pictures: np.ndarray) -> None:
    with TensorRtBackend().open(engine) as session, pytest.raises(InvalidMeasurement, match="told no layer times"):
        session.profile(session.upload({"image": pictures}), 1)


@pytest.mark.usefixtures("cuda")
def test_a_session_runs_with_what_every_release_has(engine: EngineArtifact, script: Script, pictures: np.ndarray) -> None:
    with TensorRtBackend().open(engine) as session:
        assert [str(port) for port in session.ports] == ["image float16 [any, 3, 4, 4]"]
        feed = session.upload({"image": pictures})
        session.launch(feed)
        assert session.download(feed)["embedding"].shape == (3, 8)
        assert session.capture(feed) is None
    assert set(script.asked["addresses"]) == {"image", "embedding"}
    assert script.asked["host code allowed"] is False


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Serialization assertion plan->header.magicTag == rt::kPLAN_MAGIC_TAG failed.", UnusableEngine),
        ("[defaultAllocator.cpp::allocate] CUDA error: out of memory", OutOfDeviceMemory),
    ],
)
def test_a_plan_that_does_not_load_is_named_by_what_the_vendor_said(engine: EngineArtifact, script: Script, words: str, kind: type) -> None:
    script.loads, script.says = False, [("ERROR", words)]
    with pytest.raises(kind, match="TensorRT"), TensorRtBackend().open(engine):
        pass


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize(
    ("head", "named"),
    [
        (b"ftrt" + bytes(20) + bytes([10, 7, 0, 23]), "of another build (its header names TensorRT 10.7.0.23); it said"),
        (b"ftrt" + bytes(20) + bytes([10, 7]), "of another build; it said"),
        (b"ftrt\1" + bytes(19) + bytes([10, 7, 0, 23]), "of another build; it said"),
        (bytes(64), "of another build; it said"),
    ],
    ids=["named", "cut", "another form", "no plan"],
)
def test_a_plan_that_is_refused_is_told_by_the_release_that_its_header_names(
    engine: EngineArtifact, script: Script, head: bytes, named: str
) -> None:
    script.loads = False
    assert engine.path is not None
    engine.path.write_bytes(head)
    with pytest.raises(UnusableEngine) as caught, TensorRtBackend().open(replace(engine, sha256=None)):
        pass
    assert named in str(caught.value)


@pytest.mark.parametrize("change", [lambda plan: plan[:2], lambda plan: plan[:-1] + b"x"], ids=["cut", "altered"])
def test_a_plan_with_another_digest_is_refused_before_the_vendor_sees_it(
    engine: EngineArtifact, monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes]
) -> None:
    assert engine.path is not None
    digest = hashlib.sha256(engine.path.read_bytes()).hexdigest()
    engine.path.write_bytes(change(engine.path.read_bytes()))
    monkeypatch.setattr(module.library, "load", lambda: pytest.fail("TensorRT was loaded"))
    with pytest.raises(UnusableEngine, match="cut or altered"), TensorRtBackend().open(replace(engine, sha256=digest)):
        pass


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize(("number", "kind"), [(35, MissingDevice), (2, OutOfDeviceMemory), (200, MissingDevice)])
def test_a_runtime_that_failed_to_start_is_never_touched(
    engine: EngineArtifact, script: Script, number: int, kind: type[Exception]
) -> None:
    script.asked.clear()
    script.runtime_says = [("ERROR", f"createInferRuntime: CUDA initialization failure with error: {number} in runtime.cpp")]
    with pytest.raises(kind, match="starts no runtime here"), TensorRtBackend().open(engine):
        pass
    assert "host code allowed" not in script.asked


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("where", ["runtime", "plan"])
def test_an_engine_after_a_broken_context_is_told_of_that_and_not_of_a_missing_device(
    engine: EngineArtifact, script: Script, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    said = [("ERROR", "CUDA initialization failure with error: 700")]
    script.runtime_says = said if where == "runtime" else []
    script.loads, script.says = False, said
    monkeypatch.setattr(module, "context_lost", lambda: ContextLost("CUDA answers cudaErrorIllegalAddress"))
    with pytest.raises(ContextLost, match=r"cudaErrorIllegalAddress(.|\n)*error: 700"), TensorRtBackend().open(engine):
        pass


@pytest.mark.usefixtures("cuda")
def test_a_version_compatible_plan_is_not_refused_for_its_release(
    engine: EngineArtifact, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = replace(engine, backend_version="10.0.1")
    with pytest.raises(UnusableEngine, match=r"built by TensorRT 10\.0\.1"), TensorRtBackend().open(older):
        pass
    compatible = replace(older, spec=replace(older.spec, options=BuildOptions(version_compatible=True)))
    with pytest.raises(HostCodeRefused), TensorRtBackend().open(compatible):
        pass
    monkeypatch.setenv(ALLOW_HOST_CODE, "1")
    with TensorRtBackend().open(compatible):
        assert script.asked["host code allowed"] is True


def test_the_stand_in_lacks_what_the_release_lacks(trt: Any, release: str) -> None:
    engine = trt.ICudaEngine()
    assert hasattr(engine, "get_engine_stat") is ("get_engine_stat" in symbols(release)["classes"]["ICudaEngine"]["methods"])
    with pytest.raises(AttributeError, match="no attribute 'max_workspace_size'"):
        trt.IBuilderConfig().max_workspace_size = 1
    assert not hasattr(SimpleNamespace(**vars(trt)), "no_such_class")
