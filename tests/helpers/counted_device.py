"""A pytest plugin for runs in another process: the fake backend has a device whose memory is counted, as full TensorRT has.

`COUNTED_EXTRA_BYTES` and `COUNTED_LAUNCH_BYTES` in the environment say how much more an engine takes, and how much its launches do.
"""

from __future__ import annotations

import os

import pytest

from harness.backends import fake
from harness.backends._allocations import AllocationCounter
from harness.contracts import Capability
from harness.pipeline import weighing
from harness.records.artifacts import EngineArtifact
from harness.records.observations import DeviceMemory, DevicePhase

WEIGHTS_BYTES, ACTIVATION_BYTES = 1_000_000, 50_000


class CountedDevice(fake.FakeBackend):
    """With the one capability that a gate of the device's memory asks for."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """As full TensorRT."""
        return super().capabilities | {Capability.DEVICE_MEMORY}


def _weighed(engine: EngineArtifact) -> DeviceMemory:
    counter = AllocationCounter()
    counter.took(1, WEIGHTS_BYTES, by_runtime=True)
    counter.enter(DevicePhase.CONTEXT)
    counter.took(2, ACTIVATION_BYTES + int(os.environ.get("COUNTED_EXTRA_BYTES", "0")), by_runtime=True)
    counter.enter(DevicePhase.LAUNCHES)
    if taken := int(os.environ.get("COUNTED_LAUNCH_BYTES", "0")):
        counter.took(3, taken, by_runtime=True)
    return counter.reading(engine.spec.batch.maximum)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    patch = pytest.MonkeyPatch()
    patch.setattr(fake, "FakeBackend", CountedDevice)
    patch.setattr(weighing, "running_device_memory", _weighed)
    config.add_cleanup(patch.undo)
