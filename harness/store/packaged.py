"""Where the suites, the gate file and the baselines lie that come with the distribution."""

from __future__ import annotations

from pathlib import Path

from harness.errors import StoreFailed

_HOUSE = Path(__file__).parents[1]


def packaged(name: str) -> Path:
    """The file or folder `name` of the wheel, or of the checkout that an editable install points to.

    Raises:
        StoreFailed: neither has it.
    """
    places = (_HOUSE / "data" / name, _HOUSE.parent / name)
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise StoreFailed(f"{name} is neither at {places[0]} nor at {places[1]}; expected it to come with enginegate; install it again")
    return found
