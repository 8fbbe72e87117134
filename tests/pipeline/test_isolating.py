"""Every worker of a pipeline is started by one door, which tells its loader where the vendor's libraries are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.backends.tensorrt_home import HOME
from harness.errors import UsageError, WorkerDied
from harness.pipeline import gpu_lines, isolating, pairing, profiling, studying, weighing
from harness.pipeline.isolating import worker_for
from harness.records.latency import Arm
from harness.records.timing import TimingProtocol
from harness.workers import worker as module
from tests.helpers.left_engines import fake_engine

ROOM = Path(isolating.__file__).parent
ENGINE = fake_engine(backend="tensorrt")
PLAN = pairing.Plan(arms={"a": (fake_engine(), ENGINE)}, protocol=TimingProtocol(), processes=1, rows=2)
SHARED = pairing.Plan(arms={"a": (ENGINE, ENGINE)}, protocol=TimingProtocol(), processes=1, rows=2, same_process=True)
STARTS = {
    "timing, one an engine": lambda: pairing.measure(PLAN),
    "timing, in one": lambda: pairing.measure(SHARED),
    "device memory": lambda: weighing.running_device_memory(ENGINE),
    "host memory": lambda: weighing.running_host_bytes(ENGINE),
    "profiling": lambda: profiling._profiled([ENGINE], profiling.Profiling()),
    "a trace": lambda: studying._traced(studying.Study(engine=ENGINE, changes={"none": 0.0}, processes=1, quartets=1, trace_s=1)),
    "embeddings": lambda: _looking()._run(ENGINE.spec, SimpleNamespace(file="rows.npz", input="image")),
    "a session": lambda: isolating.opened(ENGINE).__enter__(),
}


def _looking():
    pipeline = SimpleNamespace(maker=SimpleNamespace(engine=lambda spec: ENGINE))
    return gpu_lines.Looking(pipeline, None, None, SimpleNamespace(file=Path), None)


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What workers were started with; one that would load TensorRT dies."""
    found = []

    class Started:
        start_ms = 0.0

        def __init__(self, name, **how):
            found.append(how)
            if how["library_path"] is not None:
                raise WorkerDied("not here")

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(module, "Worker", Started)
    monkeypatch.setenv(HOME, str(tmp_path))
    return found


@pytest.mark.parametrize("what", STARTS)
def test_whatever_runs_an_engine_of_tensorrt_finds_its_libraries_from_the_start(started, tmp_path, what):
    with pytest.raises(WorkerDied, match="not here"):
        STARTS[what]()
    assert started[-1]["library_path"] == tmp_path / "libs"


def test_each_arm_of_a_timing_loads_the_tensorrt_that_was_named_for_it(started, tmp_path, monkeypatch):
    homes = (tmp_path / "old", tmp_path / "new")
    plan = replace(PLAN, arms={"a": (ENGINE, ENGINE)}, homes=homes)
    process = pairing._Process(plan, 0, pairing.Measured())
    for arm in Arm:
        with pytest.raises(WorkerDied):
            process._worker(str(arm), (arm,))
    assert [how["library_path"] for how in started] == [home / "libs" for home in homes]
    assert [how["environ"] for how in started] == [{HOME: str(home)} for home in homes]


def test_two_releases_cannot_share_a_process(tmp_path):
    with pytest.raises(UsageError, match="two backends, Pythons or releases of TensorRT"):
        replace(SHARED, homes=(tmp_path / "old", tmp_path / "new"))


def test_nothing_else_of_the_pipeline_starts_a_worker():
    starts = {path.name for path in ROOM.glob("*.py") if re.search(r"\bWorker\(", path.read_text(encoding="utf-8"))}
    assert starts == {"isolating.py"}


def test_a_backend_without_libraries_of_its_own_needs_none(started):
    worker_for("plain", ["fake", "onnxruntime"])
    assert started[-1]["library_path"] is None
