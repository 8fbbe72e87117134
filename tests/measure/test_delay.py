"""A launch on the host's clock is longer by what it was delayed, and no other feed's is."""

from __future__ import annotations

from harness.contracts import Delayable
from harness.measure.delay import DelayedSession
from harness.measure.timing import launch_ms


class Clock:
    """Each look at it takes a microsecond."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 1000
        return self.now_ns


class Instant:
    """Launches take no time."""

    def upload(self, inputs):
        return object()

    def launch(self, feed):
        return None

    def download(self, feed):
        return {}


def test_only_the_delayed_feed_takes_longer():
    clock = Clock()
    session = DelayedSession(Instant(), clock)
    slow, plain = session.upload({}), session.upload({})
    assert session.delay(slow, 0.5) == 0.5

    assert isinstance(session, Delayable)
    assert 0.5 <= launch_ms(session, slow, clock) < 0.51
    assert launch_ms(session, plain, clock) < 0.01
