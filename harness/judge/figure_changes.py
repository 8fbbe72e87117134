"""Figures and gates of one engine in two runs: what differs, and whether that is worse than the gate file allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.errors import BadGateFile
from harness.records.comparison import Effect, FigureChange, StatusChange
from harness.records.gate_lines import BOUNDED, MARGINS, MAY_BE_LEFT_OUT
from harness.records.policy import GatePolicy
from harness.records.run import EngineRow
from harness.records.spec import EngineSpec
from harness.records.verdict import Direction, Status, Suite, Verdict

_MEMORY = ("weights_bytes", "plan_bytes", "activation_bytes")
_NOT_KNOWN_TO_BE_GOOD = (Status.INCONCLUSIVE, Status.NO_BASELINE)

GateKey = tuple[Suite, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSeen:
    """One engine in one run.

    Attributes:
        row: None when the run left none: it was not built, or there is no engine, as for gates of the exported graph.
        gates: by suite and metric.
        cpu_model: of the machine that ran it.
        machine_class: likewise, for lines of the gate file that are meant for some classes.
        inputs: digest of the inputs that its embeddings were seen on; None when unknown.
    """

    row: EngineRow | None
    gates: Mapping[GateKey, Verdict]
    cpu_model: str
    machine_class: str
    inputs: str | None = None


def figure_changes(a: EngineSeen, b: EngineSeen, engine: EngineSpec | None, policy: GatePolicy) -> Iterator[FigureChange]:
    """Every figure that differs: bytes from the engines, all others from their gates.

    Args:
        a, b: the engine in the two runs.
        engine: which it is; None for gates of the exported graph, whose figures have no margins.
        policy: the margins and bounds that gates are held to as well.
    """
    if a.row is not None and b.row is not None:
        for metric in _MEMORY:
            yield from _bytes_change(metric, a.row, b.row, _Held(engine, b.machine_class, policy))
    for key, before in a.gates.items():
        after = b.gates.get(key)
        if after is not None and key[1] not in _MEMORY and before.observed is not None and after.observed is not None:
            yield from _gate_change(before, after, a, b, _Held(engine, b.machine_class, policy))


def status_changes(a: EngineSeen, b: EngineSeen, compared: frozenset[str]) -> Iterator[StatusChange]:
    """Every gate with another status.

    Args:
        a, b: the engine in the two runs.
        compared: metrics whose figures were compared, so that a missing baseline in B leaves nothing open.
    """
    for suite, metric in dict.fromkeys((*a.gates, *b.gates)):
        before, after = (side.gates[suite, metric].status if (suite, metric) in side.gates else None for side in (a, b))
        if before != after:
            yield StatusChange(suite=suite, metric=metric, a=before, b=after, effect=_status_effect(before, after, metric in compared))


def compared_metrics(a: EngineSeen, b: EngineSeen, changes: Iterable[FigureChange]) -> frozenset[str]:
    """Metrics whose figures both runs give and that were held to a margin or a bound here, so that no baseline is needed.

    Estimates are none of them: where B has too few samples for a verdict, its figure alone settles nothing.

    Args:
        a, b: the engine in the two runs.
        changes: its figures that differ.
    """
    both = {
        key[1]
        for key, gate in a.gates.items()
        if gate.observed is not None and key in b.gates and b.gates[key].observed is not None and b.gates[key].interval is None
    }
    if a.row is not None and b.row is not None:
        both |= {metric for metric in _MEMORY if None not in (getattr(a.row, metric), getattr(b.row, metric))}
    unknown = {change.metric for change in changes if change.effect is Effect.UNKNOWN}
    return frozenset(both & ({*_MEMORY, *_JUDGES} | set(BOUNDED)) - unknown)


def _status_effect(before: Status | None, after: Status | None, is_compared: bool) -> Effect:
    if before is None or after is None:  # judged in one of the runs only: nothing to compare, and shown
        return Effect.NEUTRAL
    if after is Status.FAIL:
        return Effect.WORSE
    if after is Status.INVALID:
        return Effect.UNKNOWN
    if after in _NOT_KNOWN_TO_BE_GOOD:
        return Effect.UNKNOWN if before is Status.PASS and not is_compared else Effect.NEUTRAL
    return Effect.BETTER if before in (Status.FAIL, Status.INVALID) else Effect.NEUTRAL


@dataclass(frozen=True, slots=True)
class _Held:
    """What the figures of one engine are held to."""

    engine: EngineSpec | None
    machine_class: str
    policy: GatePolicy

    def margin(self, metric: str) -> float | None:
        """None where the gate file has no line about it, or says that it is not gated."""
        if self.engine is None or metric not in MARGINS:
            return None
        try:
            return self.policy.margin(metric, self.engine, self.machine_class)
        except BadGateFile:
            return None

    def same_graph_margin(self, metric: str) -> float:
        """Of the same graph under the same builder; only where `margin` is not None."""
        assert self.engine is not None
        return self.policy.same_graph_margin(metric, self.engine, self.machine_class)


# -- bytes -----------------------------------------------------------------------------------------------------------------------


def _bytes_change(metric: str, a: EngineRow, b: EngineRow, held: _Held) -> Iterator[FigureChange]:
    before, after = getattr(a, metric), getattr(b, metric)
    if before == after:
        return
    if before is None or after is None:
        effect = Effect.NEUTRAL if before is None else Effect.UNKNOWN
        yield _figure(metric, "bytes", before, after, effect, f"run {'A' if before is None else 'B'} does not say")
        return
    # The same graph under the same builder gives the same plan, byte for byte, unless the gate file says that this one does not.
    is_same_build = a.onnx_sha256 is not None and (a.onnx_sha256, a.backend_version) == (b.onnx_sha256, b.backend_version)
    margin = held.margin(metric)
    if margin is None:
        yield _figure(metric, "bytes", before, after, Effect.NEUTRAL, "no margin in the gate file: shown, not judged")
        return
    allowed = held.same_graph_margin(metric) if is_same_build else margin
    words = f"margin {allowed:.2%}" if allowed else "no margin"
    reason = f"same graph, same builder: {words}" if is_same_build else words
    yield _figure(metric, "bytes", before, after, _below(before, after, allowed), reason)


def _below(before: float, after: float, margin: float) -> Effect:
    if after > before * (1 + margin):
        return Effect.WORSE
    return Effect.BETTER if before > after * (1 + margin) else Effect.NEUTRAL


# -- figures of gates ------------------------------------------------------------------------------------------------------------


def _gate_change(before: Verdict, after: Verdict, a: EngineSeen, b: EngineSeen, held: _Held) -> Iterator[FigureChange]:
    first, second = before.observed, after.observed
    if first is None or second is None or first == second:
        return
    judge = _JUDGES.get(before.metric)
    if before.suite is Suite.ACCURACY and (unlike := _unlike_inputs(before, after, a, b)):
        effect, reason = Effect.UNKNOWN, unlike
    elif judge is not None:
        effect, reason = judge(before.metric, first, second, held)
    elif before.metric in BOUNDED:
        effect, reason = _absolute(before.metric, first, second, held)
    else:
        effect, reason = Effect.NEUTRAL, "judged by its gate"
    if before.metric in MAY_BE_LEFT_OUT and effect is Effect.WORSE and a.cpu_model != b.cpu_model:
        effect, reason = Effect.UNKNOWN, f"{reason}, but measured on another make of processor"
    yield _figure(before.metric, before.unit, first, second, effect, reason)


def _unlike_inputs(before: Verdict, after: Verdict, a: EngineSeen, b: EngineSeen) -> str | None:
    if before.n != after.n:
        return f"seen on {before.n} inputs in A and {after.n} in B: not compared"
    if a.inputs is not None and b.inputs is not None and a.inputs != b.inputs:
        return "seen on other inputs: not compared"
    return None


def _at_most(metric: str, before: float, after: float, held: _Held) -> tuple[Effect, str]:
    margin = held.margin(metric)
    if margin is None:
        return Effect.NEUTRAL, "no margin in the gate file: shown, not judged"
    return _below(before, after, margin), f"margin {margin:.0%}"


def _no_more(metric: str, before: float, after: float, held: _Held) -> tuple[Effect, str]:
    return _below(before, after, 0.0), "no more than in A"


def _snr(metric: str, before: float, after: float, held: _Held) -> tuple[Effect, str]:
    """Worse by more than the margin, or below the absolute floor."""
    below_floor, words = _absolute(metric, before, after, held)
    margin_db = held.margin(metric)
    if below_floor is not Effect.NEUTRAL or margin_db is None:
        return below_floor, words
    if abs(after - before) <= margin_db:
        return Effect.NEUTRAL, f"margin {margin_db:g} dB"
    return (Effect.WORSE if after < before else Effect.BETTER), f"margin {margin_db:g} dB"


def _absolute(metric: str, before: float, after: float, held: _Held) -> tuple[Effect, str]:
    """Worse beyond the bound and further beyond it than before."""
    if held.engine is None:
        return Effect.NEUTRAL, "judged by its gate"
    try:
        limit = held.policy.limit(metric, held.engine)
    except BadGateFile:
        return Effect.NEUTRAL, "no bound in the gate file: shown, not judged"
    words, sign = f"{BOUNDED[metric]} {limit:g}", 1 if BOUNDED[metric] is Direction.FLOOR else -1
    if sign * after < min(sign * limit, sign * before):
        return Effect.WORSE, words
    return (Effect.BETTER if sign * before < sign * limit <= sign * after else Effect.NEUTRAL), words


_JUDGES: Mapping[str, Callable[[str, float, float, _Held], tuple[Effect, str]]] = {
    "centred_snr_db": _snr,
    "check_E7": _no_more,
    "device_peak_bytes": _at_most,
    "host_bytes": _at_most,
    "latency_ratio": _at_most,
    "reformat_bytes": _at_most,
}


def _figure(metric: str, unit: str, a: float | None, b: float | None, effect: Effect, reason: str) -> FigureChange:
    return FigureChange(metric=metric, unit=unit, a=a, b=b, effect=effect, reason=reason)
