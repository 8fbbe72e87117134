"""Backends and recipes by the names people give them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from harness.errors import UnknownName
from harness.records.spec import Recipe

if TYPE_CHECKING:
    from harness.contracts import Backend


def backend_of(name: str) -> Backend:
    """The backend of that name, with the loader that only this room may hand to it.

    Raises:
        UnknownName: there is none.
    """
    from harness.backends.registry import get_backend
    from harness.prepare.checkpoint import load_encoder

    return get_backend(name, load=load_encoder)


def recipe_of(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UnknownName: there is none.
    """
    if name not in set(Recipe):
        close = difflib.get_close_matches(name, list(Recipe), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UnknownName(f"recipe {name!r} is unknown; expected one of {', '.join(Recipe)}{hint}")
    return Recipe(name)
