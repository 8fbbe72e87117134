"""Lines of gate.toml: bounds, margins and waivers, each meant for some engines and each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase

from harness.errors import BadGateFile
from harness.records.spec import EngineSpec
from harness.records.verdict import Direction

# What may be said about which metric. All others are judged against the graph itself, or against every row.
BOUNDED = {
    "calibration_coverage": Direction.FLOOR,
    "centred_snr_db": Direction.FLOOR,
    "cosine_min": Direction.FLOOR,
    "cosine_p01": Direction.FLOOR,
    "fp8_error_db": Direction.FLOOR,
    "fp8_flop_share": Direction.FLOOR,
    "logit_drift_p99": Direction.CEILING,
    "property_after_eot": Direction.CEILING,
    "property_batch_order": Direction.CEILING,
    "property_batch_size": Direction.CEILING,
    "property_duplicates": Direction.CEILING,
    "property_lengths": Direction.CEILING,
    "property_neighbours": Direction.CEILING,
    "property_rows": Direction.CEILING,
    "recall_at_1_drop": Direction.CEILING,
    "recall_at_5_drop": Direction.CEILING,
    "snr_loss_db": Direction.CEILING,
    "top10_overlap": Direction.FLOOR,
    "zero_shot_agreement": Direction.FLOOR,
    "zero_shot_top1_drop": Direction.CEILING,
}
MARGINS = {
    "activation_bytes": "relative",
    "centred_snr_db": "absolute",
    "device_peak_bytes": "relative",
    "host_bytes": "relative",
    "latency_ms": "relative",
    "latency_ratio": "relative",
    "plan_bytes": "relative",
    "reformat_bytes": "relative",
    "snr_to_fake_quant_db": "absolute",
    "weights_bytes": "relative",
    "weights_ratio": "relative",
}
# An engine beside its FP16 twin, held to a stored number; and beside the engine that was approved, where that is stored.
LATENCY_RATIO, LATENCY_MS = "latency_ratio", "latency_ms"
# What is timed in fresh processes when its gate is asked for; and what a gate file may leave out, since asking takes time.
TIMED = frozenset({LATENCY_RATIO, LATENCY_MS})
MAY_BE_LEFT_OUT = TIMED | {"host_bytes"}
# What a waiver can lift: whatever is bad when it is large. Of the rest, no ceiling could say how bad it may become.
WAIVABLE = frozenset(
    {metric for metric, direction in BOUNDED.items() if direction is Direction.CEILING}
    | {
        "activation_bytes",
        "device_peak_bytes",
        "host_bytes",
        "latency_ms",
        "latency_ratio",
        "plan_bytes",
        "reformat_bytes",
        "weights_bytes",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which engines a line of gate.toml is meant for: shell patterns, of which an engine must match one of each."""

    encoders: tuple[str, ...] = ("*",)
    recipes: tuple[str, ...] = ("*",)
    backends: tuple[str, ...] = ("*",)

    def covers(self, engine: EngineSpec) -> bool:
        """Whether this line is meant for `engine`."""
        asked = (
            (engine.encoder.name, self.encoders),
            (str(engine.recipe), self.recipes),
            (engine.backend, self.backends),
        )
        return all(any(fnmatchcase(name, pattern) for pattern in patterns) for name, patterns in asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound(Selection):
    """One absolute limit on one metric, with the reason it is where it is.

    Attributes:
        limit: in the metric's unit.
        direction: the good side of it.
    Raises:
        BadGateFile: the limit is no finite number, or the reason is missing.
    """

    metric: str
    limit: float
    direction: Direction
    reason: str

    def __post_init__(self) -> None:
        _require_finite(f"the bound of {self.metric}", self.limit)
        wanted = BOUNDED.get(self.metric)
        if wanted is not None and self.direction is not wanted:
            raise BadGateFile(f"the bound of {self.metric} is a {self.direction}; expected a {wanted}, the side on which it is good")
        _require_reason(f"the bound of {self.metric}", self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin(Selection):
    """How far a metric may be from what it is compared with: a stored baseline, or a prediction.

    Attributes:
        relative: 0.02 is two percent of the figure compared with. Of a metric in `TIMED` it is Delta: the slow-down that PASS excludes.
        absolute: in the metric's unit.
        machine_classes: shell patterns such as `cpu-*`; the line is meant for observations on machines of those classes.
        gated: False: what this line covers is not gated, for its reason; the line has no number then.
        session_spread: of a metric in `TIMED`: how far the figure moves between sessions without a change, as a share of it. A FAIL lies
            beyond it.
        processes: of a metric in `TIMED`: fresh pairs of processes in each of its two stages.
        quartets: likewise: groups of four blocks in each process.
        same_graph: of bytes: the line holds for the very graph that was approved too, since its builder does not repeat itself; else
            that graph must give the same figure.
    Raises:
        BadGateFile: not exactly one of the numbers is given, it is no finite number of at least 0, the reason is missing, or a figure
            of timing is impossible or stands beside a metric that nobody times.
    """

    metric: str
    reason: str
    relative: float | None = None
    absolute: float | None = None
    machine_classes: tuple[str, ...] = ("*",)
    gated: bool = True
    session_spread: float = 0.0
    processes: int = 8
    quartets: int = 10
    same_graph: bool = False

    def __post_init__(self) -> None:
        what = f"the margin of {self.metric}"
        _require_reason(what, self.reason)
        if not self.gated:
            self._require_no_number(what)
            return
        if (self.relative is None) == (self.absolute is None):
            raise BadGateFile(f"{what} is neither relative nor absolute, or both; expected exactly one of the two")
        wanted = MARGINS.get(self.metric)
        if wanted is not None and getattr(self, wanted) is None:
            raise BadGateFile(f"{what} is of the wrong kind; expected {wanted} = ..., in which that metric is compared")
        _require_finite(what, self.size)
        if self.size < 0:
            raise BadGateFile(f"{what} is {self.size}; expected at least 0")
        if self.metric in TIMED:
            self._require_possible_timing(what)

    def covers_on(self, engine: EngineSpec, machine_class: str | None) -> bool:
        """Whether this line is meant for `engine` on a machine of that class; None is unknown, which only lines for all machines cover."""
        return self.covers(engine) and any(fnmatchcase(machine_class or "", pattern) for pattern in self.machine_classes)

    def _require_no_number(self, what: str) -> None:
        if self.metric not in MAY_BE_LEFT_OUT:
            raise BadGateFile(
                f"{what} says gated = false; expected that only of {', '.join(sorted(MAY_BE_LEFT_OUT))}, whose gates take time"
            )
        if self.relative is not None or self.absolute is not None:
            raise BadGateFile(f"{what} says gated = false and has a number; expected one of the two")

    def _require_possible_timing(self, what: str) -> None:
        _require_finite(what, self.session_spread)
        if not 0 <= self.session_spread < self.size:
            raise BadGateFile(
                f"{what}: session_spread is {self.session_spread:g} and relative {self.size:g}; expected at least 0 and less than "
                "relative, since a slow-down that only tells sessions apart cannot be excluded"
            )
        if self.processes < 3 or self.quartets < 1:
            raise BadGateFile(f"{what}: {self.processes} processes of {self.quartets} quartets; expected at least 3, of at least 1")

    @property
    def size(self) -> float:
        """The one that is given."""
        given = self.absolute if self.relative is None else self.relative
        return math.nan if given is None else given


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver(Selection):
    """A known regression that somebody answers for until a day.

    Attributes:
        ceiling: how bad the metric may be meanwhile, in its unit.
        owner: who answers for it.
        expires: the last day on which it holds.
    Raises:
        BadGateFile: a metric that no ceiling can lift, a ceiling that is no finite number, no reason or no owner.
    """

    metric: str
    ceiling: float
    reason: str
    owner: str
    expires: date

    def __post_init__(self) -> None:
        what = f"the waiver of {self.metric}"
        if self.metric not in WAIVABLE:
            raise BadGateFile(f"{what} lifts nothing; expected a metric that is bad when it is large: one of {', '.join(sorted(WAIVABLE))}")
        _require_finite(what, self.ceiling)
        _require_reason(what, self.reason)
        if not self.owner.strip():
            raise BadGateFile(f"{what} has no owner; name who answers for it until {self.expires}")

    def is_over(self, today: date) -> bool:
        """Whether its last day has passed."""
        return today > self.expires


def _require_finite(what: str, number: float) -> None:
    if not math.isfinite(number):
        raise BadGateFile(f"{what} is {number}; expected a finite number, since every comparison with NaN passes")


def _require_reason(what: str, reason: str) -> None:
    if not reason.strip():
        raise BadGateFile(f"{what} has no reason; say in one sentence where the number comes from")
