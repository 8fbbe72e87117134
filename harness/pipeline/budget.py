"""Minutes that a command may take, and steps that are not begun when they would not end in time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class OutOfTime(Exception):
    """The next step would end after the budget. It never leaves the pipeline."""


class Budget:
    """What is left of some minutes.

    Args:
        minutes: from now on; None for no limit.
    """

    def __init__(self, minutes: float | None) -> None:
        self._ends = None if minutes is None else time.monotonic() + 60 * minutes
        self._longest: dict[str, float] = {}

    def holds(self, expected_s: float) -> bool:
        """Whether something that is expected to take so long may begin: it would end in time, and the time is not over."""
        return self._ends is None or ((now := time.monotonic()) < self._ends and now + expected_s <= self._ends)

    @contextmanager
    def step(self, kind: str) -> Iterator[None]:
        """A step, as long as the longest of its kind so far may end in time; of the first of a kind nothing is known.

        Raises:
            OutOfTime: it may not, and is not begun.
        """
        started = time.monotonic()
        if not self.holds(self._longest.get(kind, 0.0)):
            raise OutOfTime(kind)
        try:
            yield
        finally:
            self._longest[kind] = max(self._longest.get(kind, 0.0), time.monotonic() - started)
