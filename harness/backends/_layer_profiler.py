"""Hears from TensorRT how long each layer of a launch took."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from harness.contracts import LayerMilliseconds


def new_profiler(trt: ModuleType) -> Any:
    """An `IProfiler` for one context. Its `taken` gives what it heard since it was asked last, in order."""

    class Collecting(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self._heard: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self._heard.append((layer_name, float(ms)))

        def taken(self) -> LayerMilliseconds:
            heard, self._heard = tuple(self._heard), []
            return heard

    return Collecting()
