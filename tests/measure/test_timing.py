from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from harness.errors import InvalidMeasurement
from harness.measure.timing import WARM_UP_LAUNCHES, interleaved_ms, samples
from harness.records.observations import Tensors


class _Clock:
    """Nanoseconds that pass only when a session says so."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class _Session:
    """Takes as long as it is told, and tells the clock."""

    def __init__(self, arm: str, clock: _Clock, cost_ns: Callable[[], int], launched: list[str]) -> None:
        self._arm, self._clock, self._cost_ns, self._launched = arm, clock, cost_ns, launched
        self.collecting: set[bool] = set()

    def upload(self, inputs: Tensors) -> None: ...

    def launch(self, feed: object) -> None:
        self._launched.append(self._arm)
        self.collecting.add(gc.isenabled())
        self._clock.now += self._cost_ns()

    def download(self, feed: object) -> Tensors:
        raise AssertionError("timing downloads nothing")


def _arms(clock: _Clock, launched: list[str], **cost_ns: Callable[[], int]) -> dict[str, tuple[_Session, None]]:
    return {arm: (_Session(arm, clock, cost, launched), None) for arm, cost in cost_ns.items()}


def test_each_launch_is_timed_alone_in_milliseconds() -> None:
    clock = _Clock()
    arms = _arms(clock, [], fast=lambda: 1_000_000, slow=lambda: 2_500_000)
    assert interleaved_ms(arms, rounds=3, seed=0, clock=clock) == {"fast": (1.0,) * 3, "slow": (2.5,) * 3}


def test_every_round_launches_every_arm_once_and_pairs_of_rounds_mirror_each_other() -> None:
    launched: list[str] = []
    clock = _Clock()
    interleaved_ms(_arms(clock, launched, a=lambda: 1, b=lambda: 1, c=lambda: 1), rounds=40, seed=7, clock=clock)
    timed = launched[3 * WARM_UP_LAUNCHES :]
    rounds = [timed[start : start + 3] for start in range(0, len(timed), 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert all(second == first[::-1] for first, second in zip(rounds[::2], rounds[1::2], strict=True))
    assert len({tuple(order) for order in rounds}) > 2


def test_the_order_is_the_seeds() -> None:
    def order(seed: int) -> list[str]:
        launched: list[str] = []
        clock = _Clock()
        interleaved_ms(_arms(clock, launched, a=lambda: 1, b=lambda: 1), rounds=21, seed=seed, clock=clock)
        return launched

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_a_steady_drift_falls_on_both_arms_alike() -> None:
    clock = _Clock()
    arms = _arms(clock, [], a=lambda: 1_000_000 + clock.now // 100, b=lambda: 1_000_000 + clock.now // 100)
    seen = interleaved_ms(arms, rounds=20, seed=3, clock=clock)
    assert sum(seen["a"]) == pytest.approx(sum(seen["b"]), rel=1e-3)


def test_garbage_is_not_collected_while_the_clock_runs() -> None:
    clock = _Clock()
    arms = _arms(clock, [], a=lambda: 1)
    session, _ = arms["a"]
    interleaved_ms(arms, rounds=1, seed=0, clock=clock)
    assert False in session.collecting
    assert gc.isenabled()


@pytest.mark.parametrize("rounds", [0, -1])
def test_nothing_to_time_is_refused(rounds: int) -> None:
    with pytest.raises(InvalidMeasurement, match="nothing to time"):
        interleaved_ms(_arms(_Clock(), [], a=lambda: 1), rounds=rounds, seed=0)
    with pytest.raises(InvalidMeasurement, match="0 engines"):
        interleaved_ms({}, rounds=1, seed=0)


def test_a_clock_that_runs_backwards_is_refused() -> None:
    clock = _Clock()
    with pytest.raises(InvalidMeasurement, match="5 ns backwards"):
        interleaved_ms(_arms(clock, [], a=lambda: -5), rounds=1, seed=0, clock=clock)


def test_times_become_a_record() -> None:
    record = samples("engine", [1.0, 2.0], batch=4)
    assert (record.engine, record.batch, record.clock, record.ms) == ("engine", 4, "host", (1.0, 2.0))


@pytest.mark.parametrize("ms", [[], [0.0], [float("nan")], [1.0, -1.0]])
def test_times_that_cannot_be_are_refused(ms: list[float]) -> None:
    with pytest.raises(InvalidMeasurement, match="not all above 0 ms"):
        samples("engine", ms, batch=1)
