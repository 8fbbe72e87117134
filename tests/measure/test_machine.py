from __future__ import annotations

import subprocess
import sys

import pynvml
import pytest

from harness.measure import machine as module
from harness.measure.machine import machine_class, this_machine


def test_this_machine_has_what_a_report_names() -> None:
    machine = this_machine()
    assert machine.cpu_count >= 1
    assert machine.cpu_model
    assert {"numpy", "onnx", "pytest"} <= set(machine.versions)


def test_an_engine_built_ahead_of_time_is_not_tied_to_this_machine() -> None:
    assert machine_class("SM89") == "aot-SM89"


@pytest.mark.parametrize(
    ("said", "known_as"),
    [("AMD64", "x86_64"), ("x86_64", "x86_64"), ("arm64", "aarch64"), ("aarch64", "aarch64"), ("riscv64", "riscv64"), ("", "unknown")],
)
def test_a_cpu_has_one_class_whatever_its_system_calls_it(said: str, known_as: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.platform, "machine", lambda: said)
    assert machine_class(None) == f"cpu-{known_as}"


def test_gpus_are_named_where_a_driver_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda handle: f"GPU {handle}")
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "580.1")
    machine = this_machine()
    assert (machine.gpus, machine.driver) == (("GPU 0", "GPU 1"), "580.1")


def test_a_driver_that_fails_costs_only_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert this_machine().gpus == ()


def test_asking_loads_no_accelerator_library() -> None:
    code = (
        "import sys, harness.measure.embeddings, harness.measure.layers, harness.measure.memory, harness.measure.onnx_graph\n"
        "import harness.measure.timing; from harness.measure.machine import this_machine; this_machine()\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'tensorrt_rtx_bindings', 'tensorrt'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
