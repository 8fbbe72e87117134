"""Whether a backend can do something here, or the event that says why not. One door, so that all who ask are told the same."""

from __future__ import annotations

from harness.contracts import Action, Backend, NamesRefusals
from harness.errors import MissingLibrary
from harness.records.spec import EngineSpec

_DONE = {Action.BUILD: "built", Action.RUN: "run"}


def require_possible(backend: Backend, action: Action, engine: EngineSpec) -> None:
    """Nothing where this machine can; else what `why_not` says, as what it is about.

    Raises:
        MissingLibrary, MissingDevice, UnsupportedTarget: as backends name it that tell them apart; the first where one does not.
    """
    if isinstance(backend, NamesRefusals):
        backend.require_possible(action, engine)
    if why_not := backend.why_not(action, engine):
        raise MissingLibrary(f"{engine.id} cannot be {_DONE[action]} here: {why_not}")
