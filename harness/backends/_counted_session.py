"""A session whose every byte on the device is counted, by phase; for weighing an engine, never for timing it."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from harness.backends._allocations import AllocationCounter
from harness.backends._cuda_session import CudaFeed, TensorRtSession
from harness.records.observations import DeviceMemory, DevicePhase, Tensors
from harness.records.spec import BatchProfile


class CountedSession(TensorRtSession):
    """As any other. The engine comes from a runtime that allocates through `counter`, and the session's own buffers go there too."""

    def __init__(self, trt: ModuleType, engine: Any, batch: BatchProfile, device_uuid: str, counter: AllocationCounter) -> None:
        self._counter = counter
        super().__init__(trt, engine, batch, device_uuid)

    def upload(self, inputs: Tensors | Mapping[str, Any]) -> CudaFeed:
        """As any other session's."""
        self._counter.enter(DevicePhase.BUFFERS)
        return super().upload(inputs)

    def launch(self, feed: CudaFeed) -> None:
        """As any other session's."""
        self._counter.enter(DevicePhase.LAUNCHES if feed.is_launched else DevicePhase.FIRST_LAUNCH)
        super().launch(feed)

    def close(self) -> None:
        """As any other session's."""
        self._counter.enter(DevicePhase.CLOSE)
        super().close()

    def device_memory(self, rows: int) -> DeviceMemory:
        """What was taken so far; `rows` is the batch of the launches."""
        return self._counter.reading(rows)

    def _new_context(self) -> Any:
        self._counter.enter(DevicePhase.CONTEXT)
        return super()._new_context()

    def _allocated(self, nbytes: int) -> int:
        address = super()._allocated(nbytes)
        self._counter.took(address, nbytes, by_runtime=False)
        return address

    def _free(self, addresses: dict[str, int]) -> None:
        for address in addresses.values():
            self._counter.gave_back(address)
        super()._free(addresses)
