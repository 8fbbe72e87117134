"""What a property suite is given: a bench to try an engine on, and `for_all` to look for an example that breaks the property."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest

from harness.errors import UnknownName
from harness.records.spec import EngineSpec
from harness.records.verdict import Judgement

if TYPE_CHECKING:
    from hypothesis import settings

    from harness.pipeline.bench import Bench
    from harness.pipeline.observer import Observer
    from harness.pipeline.searching import Drawn

Structure = TypeVar("Structure", bound=Hashable)

_OURS = "enginegate-"


@pytest.fixture
def bench(engine: EngineSpec, observe: Observer) -> Bench:
    """The engine, ready to be tried with rearranged evaluation rows; skipped, in words, where `property_rows` allows none."""
    if not observe.limit("property_rows", engine):
        pytest.skip("gate.toml allows properties no row of this engine (property_rows)")
    return observe.bench(engine)


class ForAll(Protocol):
    """Judges drawn examples, and gives the property over all of them as one judgement."""

    def __call__(self, drawn: Drawn[Structure], judged: Callable[[Structure], Judgement | None]) -> Judgement: ...


@pytest.fixture
def for_all(pytestconfig: pytest.Config, engine: EngineSpec, observe: Observer) -> ForAll:
    """Say what must hold of every example. A FAIL names the smallest one found that breaks it."""
    from harness.pipeline.searching import search

    profile, rows_allowed = _profile(pytestconfig), observe.limit("property_rows", engine)

    def trying(drawn: Drawn[Any], judged: Callable[[Any], Judgement | None]) -> Judgement:
        return search(drawn, judged, profile=profile, rows_allowed=rows_allowed)

    return trying


def register_named_profile(config: pytest.Config) -> None:
    """Make our profiles known before hypothesis's own plugin loads the one that was named. Who names none of ours imports nothing."""
    if (_named(config) or "").startswith(_OURS):
        from harness.pipeline.searching import register_profiles

        register_profiles()


def _named(config: pytest.Config) -> str | None:
    return config.getoption("--hypothesis-profile", default=None)


def _profile(config: pytest.Config) -> settings:
    from hypothesis.errors import InvalidArgument

    from harness.pipeline.searching import profile_settings

    name = _named(config)
    try:
        return profile_settings(name)
    except InvalidArgument as error:
        raise UnknownName(
            f"there is no hypothesis profile {name!r}; expected enginegate-ci, enginegate-nightly, or one of your own"
        ) from error
