"""Looks for an example that breaks a property: first the examples that show most, then drawn ones, by hypothesis.

What is drawn is a small structure with seeds, never an array. A judged structure is remembered, so an engine that answers otherwise
each time cannot confuse the search, and once an example broke, only so many more are tried to find a smaller one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from harness.judge.accuracy.properties import merged
from harness.records.verdict import Judgement, Status

if TYPE_CHECKING:
    from hypothesis import settings
    from hypothesis.strategies import SearchStrategy

Structure = TypeVar("Structure", bound=Hashable)

CI_PROFILE, NIGHTLY_PROFILE = "enginegate-ci", "enginegate-nightly"
CI_EXAMPLES, NIGHTLY_EXAMPLES = 3, 200
SMALLER_TRIES = 12  # at least so many further examples are judged once one broke; the rest of the search runs on what is known
SMALLER_ROWS = 4  # or as many as this times the rows allowed hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn(Generic[Structure]):
    """Examples of one property.

    Attributes:
        shown: tried first and always: between them they show all there is to see.
        strategy: draws more of them.
        rows: what one example costs, in rows of the engine, about.
    """

    shown: tuple[Structure, ...] = ()
    strategy: SearchStrategy[Structure]
    rows: int = 1


def register_profiles() -> None:
    """Make our profiles known to hypothesis. None is loaded: a project that has us installed keeps its own.

    Both are children of hypothesis's `ci`: no deadline, no database, and the same examples every time. Nightly draws others each time.
    """
    from hypothesis import settings

    phases = [phase for phase in settings.get_profile("ci").phases if phase.name != "explain"]
    ours = settings(settings.get_profile("ci"), phases=phases, report_multiple_bugs=False)
    settings.register_profile(CI_PROFILE, ours, max_examples=CI_EXAMPLES)
    settings.register_profile(NIGHTLY_PROFILE, ours, max_examples=NIGHTLY_EXAMPLES, derandomize=False)


def profile_settings(name: str | None) -> settings:
    """The settings of a registered profile; without a name, ours for CI.

    Raises:
        hypothesis.errors.InvalidArgument: there is no such profile.
    """
    from hypothesis import settings

    register_profiles()
    return settings.get_profile(name or CI_PROFILE)


def search(
    drawn: Drawn[Structure], judged: Callable[[Structure], Judgement | None], *, profile: settings, rows_allowed: float
) -> Judgement:
    """The property over all examples as one judgement: n is all rows judged, a FAIL names the smallest example found that breaks it.

    Args:
        judged: one example; None when it does not show the property.
        profile: hypothesis's settings. A profile that draws the same examples every time also keeps to `rows_allowed`.
        rows_allowed: about how many rows the engine may be run on.

    Raises:
        EnginegateError: what `judged` raised, at its first time.
        InvalidMeasurement: no example shows the property.
    """
    trials = _Trials(judged, tries_left=max(SMALLER_TRIES, int(SMALLER_ROWS * rows_allowed // drawn.rows)))
    for structure in drawn.shown:
        trials.judge(structure)
    examples = profile.max_examples
    if profile.derandomize:
        examples = min(examples, int(rows_allowed // drawn.rows) - len(drawn.shown))
    if trials.falsified:
        examples = profile.max_examples  # a smaller example is worth the time; `_Trials` says how much
    if examples > 0:
        _draw(drawn.strategy, trials, profile, examples)
    return trials.judgement()


@dataclass(slots=True)
class _Trials(Generic[Structure]):
    """What was tried so far."""

    judged: Callable[[Structure], Judgement | None]
    tries_left: int
    known: dict[Structure, Judgement | None] = field(default_factory=dict)
    falsified: tuple[Structure, Judgement] | None = None
    error: Exception | None = None

    def judge(self, structure: Structure) -> bool:
        """Whether the property holds, as far as is known: once the engine broke, or no try is left, what is new is not tried."""
        if structure not in self.known:
            if self.error is not None or not self._may_try():
                return True
            self.known[structure] = self.judged(structure)
        judgement = self.known[structure]
        if judgement is None or judgement.status is Status.PASS:
            return True
        self.falsified = (structure, judgement)
        return False

    def _may_try(self) -> bool:
        if self.falsified is not None:
            self.tries_left -= 1
        return self.tries_left >= 0

    def judgement(self) -> Judgement:
        everything = merged([judgement for judgement in self.known.values() if judgement is not None])
        if self.falsified is None:
            return everything
        structure, judgement = self.falsified
        return replace(judgement, n=everything.n, reason=f"{judgement.reason}; falsified by {structure}")


class _Falsified(AssertionError):
    """What hypothesis is told of an example that breaks the property."""


def _draw(strategy: SearchStrategy[Any], trials: _Trials[Any], profile: settings, examples: int) -> None:
    """Let hypothesis draw examples, and shrink the first that breaks the property.

    Every property is searched by this one inner function: hypothesis seeds a derandomized search with it, so properties that draw
    from like strategies meet the same examples, and share their launches.
    """
    from hypothesis import given
    from hypothesis import settings as settings_of_hypothesis

    @settings_of_hypothesis(profile, max_examples=examples)
    @given(strategy)
    def holds(structure: Any) -> None:
        try:
            is_held = trials.judge(structure)
        except Exception as error:  # noqa: BLE001 - whatever broke is told once, by us: hypothesis would try to shrink it
            trials.error = error
            return
        if not is_held:
            raise _Falsified(str(structure))

    try:
        holds()
    except _Falsified:
        pass
    if trials.error is not None:
        raise trials.error
