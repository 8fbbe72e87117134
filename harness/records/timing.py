"""How launches are timed: the part of a latency that is decided before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import UsageError


class Cache(StrEnum):
    """What the caches hold when a launch begins."""

    HOT = "hot"  # what the launch before left: an untimed launch leads in to each block
    COLD = "cold"  # nothing of the engine: more than the last-level cache is walked over before each launch


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingProtocol:
    """A policy, fixed before the run.

    Attributes:
        block_ms: how long a block of the slower engine lasts, in milliseconds; one launch where that is longer.
        quartets: groups of four blocks, A B B A or B A A B, in each process.
        cache: what the caches hold when a launch begins.
        rest_ms: pause before each block, in milliseconds, which sets the duty cycle.
        graph: whether launches are graph replays where the backend has graphs.
        warm_windows: at most so many windows of `block_ms` are run before anything is timed.
        warm_tolerance: two windows agree when their medians differ by at most this share.
        seed: of the orders of blocks and of the inputs.

    Raises:
        UsageError: a figure that no measurement can have.
    """

    block_ms: float = 10.0  # 5 to 20 ms: below it a block's median is one launch's luck, above it a clock may have moved meanwhile
    quartets: int = 10
    cache: Cache = Cache.HOT
    rest_ms: float = 0.0
    graph: bool = True
    warm_windows: int = 20
    warm_tolerance: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [
            ("block_ms", self.block_ms > 0, "above 0"),
            ("quartets", self.quartets >= 1, "1 or more"),
            ("rest_ms", self.rest_ms >= 0, "0 or more"),
            ("warm_windows", self.warm_windows >= 2, "2 or more, since two must agree"),
            ("warm_tolerance", self.warm_tolerance > 0, "above 0"),
        ]
        for name, is_right, expected in wrong:
            if not is_right:
                raise UsageError(f"timing protocol: {name} is {getattr(self, name)}; expected {expected}")

    @property
    def id(self) -> str:
        """What of it a latency depends on, for keys: seed and number of blocks are left out, since they only say how well it is known."""
        launches = "graph" if self.graph else "plain"
        return f"block{self.block_ms:g}ms-{self.cache}-rest{self.rest_ms:g}ms-{launches}-warm{self.warm_tolerance:g}x{self.warm_windows}-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingSetting:
    """What a ratio of two engines depends on beside them and their GPU. Ratios that were timed in two settings are not compared.

    Attributes:
        driver: of the GPU; None without one.
        protocol: id, as of `TimingProtocol`.
        rows: of each launch.
        threads: of the host.
        shares_process: whether one process held both engines.
    """

    driver: str | None
    protocol: str
    rows: int
    threads: int
    shares_process: bool = False

    @property
    def facts(self) -> dict[str, str]:
        """As the provenance of a stored ratio has it."""
        rows, threads = _counted(self.rows, "row"), _counted(self.threads, "thread")
        processes = "both engines in one process" if self.shares_process else "one process an engine"
        return {"timing_driver": self.driver or "none", "timing_protocol": f"{self.protocol}, {rows} a launch, {threads}, {processes}"}

    def differences(self, provenance: Mapping[str, str]) -> tuple[str, ...]:
        """What was otherwise when the ratio with this provenance was timed, each as `driver 570.1 (here 580.2)`.

        A record that says nothing of it is told as unknown, and differs; where there is no driver, none can differ.
        """
        words: list[str] = []
        for name, here in self.facts.items():
            told = provenance.get(name, "none" if here == "none" else "unknown")
            words += [] if told == here else [f"{name.removeprefix('timing_')} {told} (here {here})"]
        return tuple(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioTiming:
    """What a ratio was made of: its log ratios, one a process of every stage, and the setting in which they were timed."""

    logs: Sequence[float]
    setting: TimingSetting


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
