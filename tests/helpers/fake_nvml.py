"""A module of the shape of nvidia-ml-py, for one board."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml

UUID = "GPU-5f1c1d2e-0000-1111-2222-333344445555"
NO_PERMISSION = pynvml.NVML_ERROR_NO_PERMISSION
NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED


class FakeNvml:
    """The functions of the installed bindings by their names, for one board; errors are the bindings' own classes."""

    NVMLError = pynvml.NVMLError
    NVML_CLOCK_SM = pynvml.NVML_CLOCK_SM
    NVML_CLOCK_MEM = pynvml.NVML_CLOCK_MEM
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU

    def __init__(self, **refused: int):
        self.refused = refused
        self.reasons = 0
        self.processes = 1
        self.sm_mhz = 1980
        self.locked = None
        self.calls: list[str] = []

    def __getattr__(self, name):
        assert hasattr(pynvml, name), f"{name} is no function of the installed bindings"
        answers = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetHandleByUUID": self._handle,
            "nvmlDeviceGetClockInfo": lambda handle, kind: self.sm_mhz if kind == self.NVML_CLOCK_SM else 2619,
            "nvmlDeviceGetMaxClockInfo": lambda handle, kind: 1980,
            "nvmlDeviceGetPowerUsage": lambda handle: 412_300,
            "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700_000,
            "nvmlDeviceGetTemperature": lambda handle, sensor: 51,
            "nvmlDeviceGetTemperatureV": lambda handle, sensor: 52,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: self.reasons,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: self.reasons,
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: [SimpleNamespace(pid=n) for n in range(self.processes)],
            "nvmlDeviceGetEccMode": lambda handle: [1, 1],
            "nvmlDeviceGetMigMode": lambda handle: [0, 0],
            "nvmlDeviceSetGpuLockedClocks": self._lock,
            "nvmlDeviceResetGpuLockedClocks": self._unlock,
        }

        def call(*arguments):
            self.calls.append(name)
            if name in self.refused:
                raise pynvml.NVMLError(self.refused[name])
            return answers[name](*arguments)

        return call

    def _handle(self, uuid):
        if uuid != UUID:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return object()

    def _lock(self, handle, low, high):
        assert low == high
        self.locked = self.sm_mhz = low

    def _unlock(self, handle):
        self.locked = None
