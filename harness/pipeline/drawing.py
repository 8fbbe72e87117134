"""What is drawn of batches for an engine: where its rows stand, who stands beside them, and how many they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.measure.crowds import HALF_MAX, HALF_TINY, Caption, Crowd, Filled, Guest, HotPixel, NewTail, Size, TokenShape
from harness.pipeline.searching import Drawn

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from harness.records.spec import BatchProfile

# Neighbours first, since an engine that lets one of these reach another row does so most visibly.
_PICTURES = (Filled(math.nan), Filled(HALF_MAX), HotPixel(0, HALF_MAX), Filled(HALF_TINY), Filled(0.0))
_MORE_PICTURES = (Filled(-HALF_MAX), Filled(math.inf), Filled(-HALF_TINY), Filled(2.5), Filled(-2.5))
_OWN_ROWS = 3  # of the most telling crowd: one that stayed, one that moved, and its twin at home
_SEEDS = 2**16


def crowds(rows: int, batches: int, tokens: TokenShape | None) -> Drawn[Crowd]:
    """Evaluation batches rearranged, with guests.

    Args:
        rows: length of an evaluation batch.
        batches: how many there are.
        tokens: layout of captions; None for pictures.
    """
    from hypothesis import strategies as st

    place = st.one_of(st.integers(0, rows - 1), st.integers(0, rows - 1), _guests(rows, tokens))
    places = st.lists(place, min_size=rows, max_size=rows).map(tuple)
    strategy = st.builds(Crowd, batch=st.integers(0, batches - 1), places=places)
    return Drawn(shown=telling_crowds(rows, _telling_guests(rows, tokens)), strategy=strategy, rows=rows)


def sizes(profile: BatchProfile, rows: int) -> Drawn[Size]:
    """Lengths of batches that the engine takes, from its smallest to twice its optimum, of `rows` evaluation rows."""
    from hypothesis import strategies as st

    largest = max(profile.minimum, min(2 * profile.optimum, profile.maximum, rows))
    lengths = st.integers(profile.minimum, largest)
    strategy = lengths.flatmap(lambda length: st.builds(Size, rows=st.just(length), first=st.integers(0, max(0, rows - length))))
    return Drawn(shown=(Size(profile.minimum),), strategy=strategy, rows=(profile.minimum + largest + 1) // 2)


def telling_crowds(rows: int, guests: Sequence[Guest]) -> tuple[Crowd, ...]:
    """The fewest crowds in which rows move, stay, stand twice and meet every guest: one, where the batch is long enough."""
    if rows >= len(guests) + _OWN_ROWS:
        own: list[int | Guest] = list(range(rows))
        own[-2] = rows - 1  # the last row stands twice, on an even and an odd place; the third last stays
        own[: len(guests)] = guests
        return (Crowd(0, tuple(own)),)
    if rows == 1:
        return tuple(Crowd(0, (guest,)) for guest in guests)
    turned = Crowd(0, tuple(min(place + 1, rows - 1) for place in range(rows)))  # each row moves up; the last stands twice
    chunks = (guests[start : start + rows - 1] for start in range(0, len(guests), rows - 1))
    return (turned, *(Crowd(0, (*chunk, *range(len(chunk), rows))) for chunk in chunks))


def _telling_guests(rows: int, tokens: TokenShape | None) -> tuple[Guest, ...]:
    if tokens is None:
        return _PICTURES
    return (Caption(0), NewTail(0, 0), Caption(tokens.longest), NewTail(rows // 2, 1), Filled(float(tokens.end)))


def _guests(rows: int, tokens: TokenShape | None) -> SearchStrategy[Guest]:
    from hypothesis import strategies as st

    if tokens is None:
        hot = st.builds(HotPixel, place=st.integers(0, 3 * 2**20), value=st.sampled_from((HALF_MAX, -HALF_MAX)))
        return st.one_of(st.sampled_from(_PICTURES + _MORE_PICTURES), hot)
    captions = st.builds(Caption, tokens=st.integers(0, tokens.longest))
    tails = st.builds(NewTail, row=st.integers(0, rows - 1), seed=st.integers(0, _SEEDS))
    return st.one_of(captions, tails, st.sampled_from((Filled(float(tokens.end)), Filled(float(tokens.padding)))))
