"""Watches the machine around each block, whichever machine it is, and says afterwards what it saw."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from harness.measure.cpu_state import CpuState, cpu_state
from harness.measure.gpu_state import ClockLock, Gpu, GpuState, held_by_this_process, require_alone, watched
from harness.records.latency import OTHER_PROCESSES, Arm, Block

Timed = Callable[[], tuple[float, ...]]

# Whoever lends a GPU that others share may want its settings left alone, whichever command times there.
LEAVE_CLOCKS = "ENGINEGATE_LEAVE_CLOCKS"


class Guard(Protocol):
    """Times a block and looks at the machine before and after it."""

    def block(self, arm: Arm, timed: Timed) -> Block: ...

    def words(self) -> dict[str, str]:
        """What it saw, by name, for people."""
        ...


class CpuGuard:
    """On the host's processor nothing is known that makes a block worthless; what is seen is told."""

    def __init__(self) -> None:
        self._seen: list[CpuState] = [cpu_state()]

    def block(self, arm: Arm, timed: Timed) -> Block:
        """The block, and a look at the processor after it."""
        ms = timed()
        self._seen.append(cpu_state())
        return Block(arm=arm, ms=ms)

    def words(self) -> dict[str, str]:
        """Load and clock."""
        loads = [state.load for state in self._seen if state.load is not None]
        clocks = [state.clock_mhz for state in self._seen if state.clock_mhz is not None]
        return {
            "guard": f"processor: load {_range(loads, '')}; clock {_range(clocks, ' MHz')}",
            "clocks": "unlocked: the host's processor",
        }


class GpuGuard:
    """Clock of each block while it ran, and throttle reasons from looks before and after it."""

    def __init__(self, gpu: Gpu, *, ours: int, lock: bool) -> None:
        self._gpu = gpu
        self._ours = ours
        require_alone(gpu.state(), ours=ours)
        self._lock = _lock_of(gpu) if lock else None
        self._last = gpu.state()
        self._problem: str | None = None
        self._reasons: dict[str, int] = {}

    def block(self, arm: Arm, timed: Timed) -> Block:
        """The block with the SM clock and all that lowered it; also that others computed beside it, who came after the guard was set up."""
        before = self._gpu.state()
        with self._gpu.clocks_meanwhile() as clocks:
            ms = timed()
        self._last = self._gpu.state()
        clock, reasons = self._gpu.during(before, self._last, clocks)
        if max(before.strangers(self._ours), self._last.strangers(self._ours)):
            reasons = (*reasons, OTHER_PROCESSES)
        for reason in reasons:
            self._reasons[reason] = self._reasons.get(reason, 0) + 1
        self._problem = self._problem or self._lock_problem(self._last)
        return Block(arm=arm, ms=ms, sm_clock_mhz=clock, throttle=reasons)

    def words(self) -> dict[str, str]:
        """The last look, what lowered clocks in how many blocks, and whether they were locked."""
        lowered = {reason: blocks for reason, blocks in self._reasons.items() if reason != OTHER_PROCESSES}
        throttled = ", ".join(f"{reason} in {blocks} blocks" for reason, blocks in lowered.items())
        beside = self._reasons.get(OTHER_PROCESSES)
        strangers = f"; other processes computed beside {beside} blocks, which do not count" if beside else ""
        locked = self._lock.words if self._lock else "unlocked: not asked for"
        return {
            "guard": f"GPU {self._gpu.uuid}: {self._last}; lowered by {throttled or 'nothing'}{strangers}",
            "clocks": f"{locked}; {self._problem}" if self._problem else locked,
        }

    def _lock_problem(self, state: GpuState) -> str | None:
        return self._gpu.lock_problem(self._lock, state) if self._lock else None


class BlindGuard:
    """A GPU that nobody can look at."""

    def __init__(self, why: str) -> None:
        self._why = why

    def block(self, arm: Arm, timed: Timed) -> Block:
        """The block alone."""
        return Block(arm=arm, ms=timed())

    def words(self) -> dict[str, str]:
        """Why nothing was seen."""
        return {"guard": self._why, "clocks": "unlocked: nobody can ask"}


@contextlib.contextmanager
def guarded(device_uuid: str | None, *, ours: int, lock: bool = True) -> Iterator[Guard]:
    """The guard of the device that engines run on.

    Args:
        device_uuid: the GPU; None is the host's processor.
        ours: how many workers of this run hold it; this process is counted beside them where it holds it.
        lock: whether to lock its clocks where that is permitted.

    Raises:
        InvalidMeasurement: others compute on that GPU, or NVML does not know it.
    """
    if device_uuid is None:
        yield CpuGuard()
        return
    with _ended_in_order(), watched(device_uuid) as gpu:
        yield BlindGuard(gpu) if isinstance(gpu, str) else GpuGuard(gpu, ours=ours + held_by_this_process(), lock=lock)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Have SIGTERM, which CI sends to a job that it cancels, end this process as Ctrl-C does: through the code that gives clocks back."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _lock_of(gpu: Gpu) -> ClockLock:
    if os.environ.get(LEAVE_CLOCKS, "") not in ("", "0"):
        return ClockLock(mhz=None, words=f"unlocked: {LEAVE_CLOCKS} is set")
    return gpu.lock_clocks()


def _range(figures: list[float], unit: str) -> str:
    return f"{min(figures):.4g} to {max(figures):.4g}{unit}" if figures else "unknown"
