"""A report has what each engine takes of the GPU, and a failure of counting costs nothing else of the engine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.contracts import Capability
from harness.errors import WorkerFailed
from harness.pipeline import gpu_lines, weighing
from harness.pipeline.gpu_lines import Looking
from harness.records.gpu_report import ReportLine, Stage
from harness.records.observations import DeviceMemory, DevicePhase, PhaseBytes
from harness.records.verdict import Status
from tests.helpers.left_engines import fake_engine

ENGINE = fake_engine(backend="tensorrt")
LINE = ReportLine(encoder="tiny/image", weights="seeded:0", recipe=ENGINE.spec.recipe, batch=4, is_refilled=False)
SEEN = DeviceMemory(
    phases=(PhaseBytes(phase=DevicePhase.LOAD, runtime_bytes=70, session_bytes=0, held_bytes=70, peak_bytes=70, requests=1),), rows=4
)


@pytest.fixture
def looking(monkeypatch):
    """Over an engine that was approved with 70 bytes of the device."""
    monkeypatch.setattr(weighing, "running_device_memory", lambda artifact: SEEN)
    monkeypatch.setattr(Looking, "_keeper", lambda self, engine: SimpleNamespace(keep_device_memory=lambda engine, seen: None))
    return Looking(
        pipeline=SimpleNamespace(maker=SimpleNamespace(engine=lambda spec: ENGINE)),
        policy=SimpleNamespace(margin=lambda *_: 0.01),
        approvals=SimpleNamespace(
            counted=lambda judgement, engine: judgement,
            figure=lambda metric, engine: 70.0,
            is_same_graph=lambda engine: True,
            machine_class=lambda engine: "a GPU",
        ),
        prepared=None,
        folder=None,
    )


def test_what_an_engine_takes_is_judged_once(looking):
    again = looking.with_device_memory(looking.with_device_memory(LINE, ENGINE.spec), ENGINE.spec)
    assert [(one.metric, one.observed, one.status) for one in again.benchmark] == [("device_peak_bytes", 70, Status.PASS)]
    assert again.done == ()


def test_a_worker_that_dies_is_an_event_and_nothing_more(looking, monkeypatch):
    def dies(artifact):
        raise WorkerFailed("it died")

    monkeypatch.setattr(weighing, "running_device_memory", dies)
    line = looking.with_device_memory(LINE, ENGINE.spec)
    assert line.benchmark == ()
    assert [(event.stage, event.message) for event in line.events] == [(Stage.ACCURACY, "it died")]


def test_a_backend_that_counts_nothing_is_left_alone(looking, monkeypatch):
    monkeypatch.setattr(gpu_lines, "backend_of", lambda name: SimpleNamespace(capabilities=frozenset({Capability.FP8})))
    assert looking.with_device_memory(LINE, ENGINE.spec) is LINE
