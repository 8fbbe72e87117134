"""One launch is timed alone, without pauses of ours."""

from __future__ import annotations

import gc

import pytest

from harness.errors import InvalidMeasurement
from harness.measure.timing import garbage_kept, launch_ms
from harness.records.observations import Tensors


class _Clock:
    """Nanoseconds that pass only when a session says so."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class _Session:
    """Takes as long as it is told, and tells the clock."""

    def __init__(self, clock: _Clock, cost_ns: int) -> None:
        self._clock, self._cost_ns = clock, cost_ns

    def upload(self, inputs: Tensors) -> None: ...

    def launch(self, feed: object) -> None:
        self._clock.now += self._cost_ns

    def download(self, feed: object) -> Tensors:
        raise AssertionError("timing downloads nothing")


def test_a_launch_is_timed_alone_in_milliseconds() -> None:
    clock = _Clock()
    assert launch_ms(_Session(clock, 2_500_000), None, clock) == 2.5


def test_garbage_is_not_collected_while_the_clock_runs() -> None:
    with garbage_kept():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_clock_that_runs_backwards_is_refused() -> None:
    clock = _Clock()
    with pytest.raises(InvalidMeasurement, match="5 ns backwards"):
        launch_ms(_Session(clock, -5), None, clock)
