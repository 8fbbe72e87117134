"""Batches to try an engine with: rows of the evaluation inputs in other places, between guests that are hard to have beside one.

What stands where is a small value that can be drawn, printed and shrunk; the arrays are built from it and from a seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.generic]

HALF_MAX = 65504.0  # largest finite float16
HALF_TINY = 6e-8  # rounds to the smallest float16 above zero, which is denormal


@dataclass(frozen=True, slots=True)
class Filled:
    """A row that holds one value everywhere: a colour that may lie far outside of every picture, or one token."""

    value: float

    @property
    def is_ordinary(self) -> bool:
        """Whether FP16 can sum it up: from a picture of 65504 everywhere a patch embedding overflows by the format's own arithmetic."""
        return abs(self.value) <= 8

    def __str__(self) -> str:
        return f"filled with {self.value:g}"


@dataclass(frozen=True, slots=True)
class HotPixel:
    """The picture that is at home in this place, with one value of it replaced.

    Attributes:
        place: which of its values, counted through the flat picture and around its end.
    """

    place: int
    value: float

    def __str__(self) -> str:
        return f"own picture with {self.value:g} at value {self.place}"


@dataclass(frozen=True, slots=True)
class NewTail:
    """One of the batch's captions, with other tokens after its end."""

    row: int
    seed: int

    def __str__(self) -> str:
        return f"row {self.row} with other tokens after its end (seed {self.seed})"


@dataclass(frozen=True, slots=True)
class Caption:
    """The made-up caption of so many tokens between its start and its end; there is one of each length."""

    tokens: int

    def __str__(self) -> str:
        return f"caption of {self.tokens} tokens"


Guest = Filled | HotPixel | NewTail | Caption


@dataclass(frozen=True, slots=True)
class Crowd:
    """A batch of evaluation rows, rearranged.

    Attributes:
        batch: which of the evaluation batches its own rows are from.
        places: what stands in each place: a row of that batch by its number, or a guest.
    """

    batch: int
    places: tuple[int | Guest, ...]

    def where(self, *kinds: type[Guest]) -> tuple[int, ...]:
        """Places of guests of these kinds."""
        return tuple(place for place, one in enumerate(self.places) if isinstance(one, kinds))

    def row_in(self, place: int) -> int:
        """Which evaluation row stands in a place, or was changed to stand there: the place's own where a guest is of no row."""
        one = self.places[place]
        return one if isinstance(one, int) else one.row if isinstance(one, NewTail) else place

    @property
    def moved(self) -> tuple[int, ...]:
        """Places of own rows that are at home elsewhere."""
        return tuple(place for place, one in enumerate(self.places) if isinstance(one, int) and one != place)

    @property
    def stayed(self) -> tuple[int, ...]:
        """Places of own rows that are at home there; none when nothing around them is new."""
        at_home = tuple(place for place, one in enumerate(self.places) if one == place)
        return at_home if len(at_home) < len(self.places) else ()

    @property
    def twins(self) -> tuple[tuple[int, int], ...]:
        """Pairs of places in which the same row stands."""
        first: dict[int, int] = {}
        pairs = [(first.setdefault(one, place), place) for place, one in enumerate(self.places) if isinstance(one, int)]
        return tuple((one, other) for one, other in pairs if one != other)

    def __str__(self) -> str:
        own = ", ".join(f"{place}: {f'row {one}' if isinstance(one, int) else one}" for place, one in enumerate(self.places))
        return f"evaluation batch {self.batch} as [{own}]"


@dataclass(frozen=True, slots=True)
class Size:
    """The first rows of the evaluation inputs from one of them on, in one batch of this length."""

    rows: int
    first: int = 0

    def __str__(self) -> str:
        return f"{self.rows} rows from row {self.first} on"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenShape:
    """How captions are laid out, read from tokenized ones.

    Attributes:
        start: the token every caption begins with; None when they begin differently.
        end: the largest token, which ends each caption once.
        padding: what follows the end.
        vocabulary: int64 [k], the tokens that stand between start and end.
        context: tokens in a row.
    """

    start: int | None
    end: int
    padding: int
    vocabulary: NDArray[np.int64]
    context: int

    @property
    def longest(self) -> int:
        """Most tokens between start and end."""
        return self.context - 1 - (self.start is not None)


def token_shape(rows: Rows) -> TokenShape | None:
    """The layout of int64 [n, context]; None when the captions share no token that is their largest and ends them."""
    largest = rows.max(axis=1)
    if (largest != largest[0]).any():
        return None
    end, ends = int(largest[0]), rows.argmax(axis=1)
    start = int(rows[0, 0]) if (rows[:, 0] == rows[0, 0]).all() and rows[0, 0] != end else None
    places = np.arange(rows.shape[1])
    inside = rows[(places < ends[:, None]) & (places >= (start is not None))]
    after = rows[places > ends[:, None]]
    if not len(inside):
        return None
    return TokenShape(
        start=start,
        end=end,
        padding=int(after[-1]) if len(after) else 0,
        vocabulary=np.unique(inside).astype(np.int64),
        context=rows.shape[1],
    )


def crowd_rows(base: Rows, crowd: Crowd, tokens: TokenShape | None) -> Rows:
    """The batch itself.

    Args:
        base: the evaluation batch, as long as the crowd.
        tokens: layout of captions; None for pictures.

    Returns:
        of the base's shape and dtype.
    """
    return np.stack([_placed(base, place, one, tokens) for place, one in enumerate(crowd.places)])


def _placed(base: Rows, place: int, one: int | Guest, tokens: TokenShape | None) -> Rows:
    match one:
        case int():
            return base[one]
        case Filled(value):
            return np.full_like(base[0], value)
        case HotPixel(at, value):
            row = base[place].copy()
            row.flat[at % row.size] = value
            return row
    assert tokens is not None  # for the type checker: only crowds of captions hold the guests below
    if isinstance(one, Caption):
        return caption_rows(tokens)[one.tokens]
    return with_new_tail(base[one.row], one.seed, tokens)


def caption_rows(tokens: TokenShape) -> NDArray[np.int64]:
    """int64 [longest + 1, context]: made-up captions of 0, 1, ... tokens between start and end; the last one's end is its last place."""
    start = [] if tokens.start is None else [tokens.start]
    rows = np.full((tokens.longest + 1, tokens.context), tokens.padding, np.int64)
    for count, row in enumerate(rows):
        words = [*start, *_drawn(tokens, count, seed=count), tokens.end]
        row[: len(words)] = words
    return rows


def with_new_tail(row: Rows, seed: int, tokens: TokenShape) -> Rows:
    """The caption with other tokens after its end, none of them an end."""
    changed = row.copy()
    tail = int(row.argmax()) + 1
    changed[tail:] = _drawn(tokens, len(row) - tail, seed)
    return changed


def _drawn(tokens: TokenShape, count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).choice(tokens.vocabulary, count)
