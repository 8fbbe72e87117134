"""Counts memory of the device, block by block, as it is taken and given back. Knows nothing of CUDA."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from harness.records.observations import DeviceMemory, DevicePhase, PhaseBytes

_TROUBLES_KEPT = 8


@dataclass(slots=True)
class _Tally:
    runtime_bytes: int = 0
    session_bytes: int = 0
    held_bytes: int = 0
    peak_bytes: int = 0
    requests: int = 0


class AllocationCounter:
    """What is held now, and what each phase took. Any thread may call it."""

    def __init__(self) -> None:
        # Reentrant, since a collection of garbage while it is held may close something, and so give memory back.
        self._lock = threading.RLock()
        self._live: dict[int, int] = {}
        self._held_bytes = 0
        self._tallies: dict[DevicePhase, _Tally] = {}
        self._troubles: list[str] = []
        self._phase = DevicePhase.LOAD
        self.enter(DevicePhase.LOAD)

    def enter(self, phase: DevicePhase) -> None:
        """What is taken from here on belongs to `phase`; one that was left is gone on with."""
        with self._lock:
            self._phase = phase
            tally = self._tallies.setdefault(phase, _Tally())
            self._note_held(tally)

    def took(self, address: int, nbytes: int, *, by_runtime: bool) -> None:
        """A block was taken, by the vendor's runtime or by the session."""
        with self._lock:
            tally = self._tallies[self._phase]
            if address in self._live:
                self.trouble(f"address {address:#x} was taken twice")
                self._held_bytes -= self._live[address]
            self._live[address] = nbytes
            self._held_bytes += nbytes
            tally.requests += 1
            if by_runtime:
                tally.runtime_bytes += nbytes
            else:
                tally.session_bytes += nbytes
            self._note_held(tally)

    def gave_back(self, address: int) -> None:
        """The block at `address` is free again."""
        with self._lock:
            if address not in self._live:
                self.trouble(f"address {address:#x} was given back and never taken")
                return
            self._held_bytes -= self._live.pop(address)
            self._note_held(self._tallies[self._phase])

    def trouble(self, words: str) -> None:
        """Something about counting went wrong, which nobody who computes must notice."""
        with self._lock:
            if len(self._troubles) < _TROUBLES_KEPT:
                self._troubles.append(words)

    def reading(self, rows: int = 0) -> DeviceMemory:
        """All that was counted so far."""
        with self._lock:
            phases = tuple(
                PhaseBytes(
                    phase=phase,
                    runtime_bytes=tally.runtime_bytes,
                    session_bytes=tally.session_bytes,
                    held_bytes=tally.held_bytes,
                    peak_bytes=tally.peak_bytes,
                    requests=tally.requests,
                )
                for phase, tally in self._tallies.items()
            )
            return DeviceMemory(phases=phases, rows=rows, troubles=tuple(self._troubles))

    def _note_held(self, tally: _Tally) -> None:
        tally.held_bytes = self._held_bytes
        tally.peak_bytes = max(tally.peak_bytes, self._held_bytes)
