"""One engine to try things on: batches drawn around the evaluation inputs, and what should come of them.

Baselines cost nothing: what an evaluation row gives in its own evaluation batch is known already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.errors import OutsideProfile, UnusableInputs
from harness.judge.accuracy.properties import Pairs, own_error
from harness.measure.crowds import (
    Caption,
    Crowd,
    Filled,
    HotPixel,
    NewTail,
    Size,
    TokenShape,
    caption_rows,
    crowd_rows,
    token_shape,
    with_new_tail,
)
from harness.measure.embeddings import batch_sizes, in_whole_batches
from harness.pipeline.drawing import crowds, sizes
from harness.pipeline.searching import Drawn

if TYPE_CHECKING:
    from harness.pipeline.running import Embedded, Rows, Runner
    from harness.records.observations import Embeddings, EncoderInputs
    from harness.records.spec import EngineSpec

Exact = Callable[["Rows"], NDArray[np.float32]]


class Bench:
    """Runs an engine on rearranged evaluation rows, and says beside each row what it should be.

    Args:
        runner: launches, each batch once.
        inputs: the evaluation inputs.
        embeddings, reference: what the engine and FP32 torch made of them.
        fake_quant: what quantization alone made of them; None for a recipe that has none.
        exact: FP32 torch on rows of one's own.
    """

    def __init__(
        self,
        engine: EngineSpec,
        runner: Runner,
        *,
        inputs: EncoderInputs,
        embeddings: Embeddings,
        reference: Embeddings,
        fake_quant: Embeddings | None,
        exact: Exact,
    ) -> None:
        self.engine = engine
        self._runner = runner
        self._inputs = inputs
        self._embeddings = embeddings
        self._reference = reference
        self._fake_quant = fake_quant
        self._exact = exact
        self._home_rows = in_whole_batches(inputs.rows, engine.batch)
        self._home_embeddings = in_whole_batches(embeddings.rows, engine.batch)
        cut = batch_sizes(len(self._home_rows), engine.batch)
        self.batch = cut[0]  # rows of an evaluation batch; those of the last ones may be fewer
        # Without the last batch of an engine of one length where others fill it: those rows' own embeddings are of another batch.
        self._batches = max(1, len(inputs) // self.batch) if engine.batch.is_fixed else cut.count(self.batch)

    # -- what to draw ------------------------------------------------------------------------------------------------------

    @cached_property
    def crowds(self) -> Drawn[Crowd]:
        """Evaluation batches rearranged, with guests."""
        return crowds(self.batch, self._batches, self._tokens)

    @cached_property
    def sizes(self) -> Drawn[Size]:
        """Lengths of batches around the profile's optimum; `calls` tries its ends."""
        return sizes(self.engine.batch, len(self._inputs))

    @property
    def repeats(self) -> Drawn[Size]:
        """The same lengths, for what launches each batch twice."""
        return replace(self.sizes, rows=2 * self.sizes.rows)

    # -- pairs of rows that should be alike --------------------------------------------------------------------------------

    def moved(self, crowd: Crowd) -> Pairs:
        """Rows that stand where another was at home, and what each gave there."""
        return self._beside_home(crowd, crowd.moved)

    def stayed(self, crowd: Crowd) -> Pairs:
        """Rows in their own places among others, and what each gave before."""
        return self._beside_home(crowd, crowd.stayed)

    def twins(self, crowd: Crowd) -> Pairs:
        """The same row twice in one batch."""
        pairs = crowd.twins
        if not pairs:
            return _NO_PAIRS
        seen = self._seen(crowd)
        ones, others = [one for one, _ in pairs], [other for _, other in pairs]
        names = tuple(f"row {crowd.places[one]} in places {one} and {other}" for one, other in pairs)
        return self._pairs(seen[others], seen[ones], names)

    def tails(self, crowd: Crowd) -> Pairs:
        """Captions with other tokens after their end, and what each gave without."""
        return self._beside_home(crowd, crowd.where(NewTail))

    def captions(self, crowd: Crowd) -> Pairs:
        """Captions of drawn lengths, and what FP32 torch makes of the same tokens."""
        found = [(place, one) for place, one in enumerate(crowd.places) if isinstance(one, Caption)]
        if not found:
            return _NO_PAIRS
        seen = self._seen(crowd)[[place for place, _ in found]]
        wanted = self._exact_captions[[one.tokens for _, one in found]]
        return self._pairs(seen, wanted, [str(one) for _, one in found])

    def sized(self, size: Size) -> Pairs:
        """Rows in a batch of another length, and what each gave in its evaluation batch."""
        seen = self._runner.run(self.engine, self._inputs.name, self._first(size))
        wanted = self._home_embeddings[size.first : size.first + size.rows]
        return self._pairs(seen, wanted, [f"row {size.first + row} in a batch of {size.rows}" for row in range(len(seen))])

    def repeated(self, size: Size) -> Pairs:
        """The same upload launched twice."""
        first, again = self._runner.relaunched(self.engine, self._inputs.name, self._first(size))
        return Pairs(seen=again, wanted=first, names=_numbered(again, size.first))

    def reloaded(self) -> Pairs:
        """The smallest batch by the engine as loaded, and by the same file loaded once more."""
        rows = self._first(Size(self.engine.batch.minimum))
        seen = self._runner.reloaded(self.engine, self._inputs.name, rows)
        return Pairs(seen=seen, wanted=self._runner.run(self.engine, self._inputs.name, rows), names=_numbered(seen, 0))

    def scattered(self) -> Pairs:
        """The smallest batch in one piece of memory, and with gaps between its values."""
        rows = self._first(Size(self.engine.batch.minimum))
        seen = self._runner.run(self.engine, self._inputs.name, np.repeat(rows, 2, axis=-1)[..., ::2])
        return Pairs(seen=seen, wanted=self._runner.run(self.engine, self._inputs.name, rows), names=_numbered(seen, 0))

    # -- rows and calls on their own ---------------------------------------------------------------------------------------

    def special(self, crowd: Crowd) -> tuple[Embedded, tuple[str, ...]]:
        """Rows made of finite, unusual pictures, and what each of them is."""
        places = [place for place in crowd.where(Filled, HotPixel) if _is_summable(crowd.places[place])]
        if not places:
            return _NO_PAIRS.seen, ()
        return self._seen(crowd)[places], tuple(str(crowd.places[place]) for place in places)

    def calls(self, *, rows_allowed: float) -> tuple[dict[str, str | None], str]:
        """Batches at and beyond the profile's ends, each with what went otherwise than it should, None for nothing; and what was left out.

        Args:
            rows_allowed: about how many rows may be run. The evaluation has shown that the batch it was cut into runs.
        """
        profile, one = self.engine.batch, self._first(Size(1))
        lengths = dict.fromkeys((profile.minimum, profile.optimum, profile.maximum))
        unseen = [rows for rows in lengths if rows != self.batch]
        tried = [rows for rows in unseen if rows <= max(rows_allowed, profile.minimum)]
        left_out = [str(rows) for rows in unseen if rows not in tried]
        outcomes = {
            **{f"{rows} rows": self._taken(_of_length(self._inputs.rows, rows)) for rows in tried},
            "no row": self._refused(one[:0]),
            f"{profile.maximum + 1} rows": self._refused(_of_length(self._inputs.rows, profile.maximum + 1)),
            f"values of type {_other_type(one)}": self._refused(self._smallest.astype(_other_type(one))),
            "rows one value longer": self._refused(np.concatenate([self._smallest, self._smallest[..., :1]], axis=-1)),
        }
        if profile.minimum > 1:
            outcomes[f"{profile.minimum - 1} rows"] = self._refused(_of_length(self._inputs.rows, profile.minimum - 1))
        note = f"{' and '.join(left_out)} rows were not tried: property_rows allows {rows_allowed:g}"
        return outcomes, note if left_out else ""

    def why_not_captions(self) -> str | None:
        """Why nothing can be said about the ends of captions; None when it can."""
        if self._tokens is None:
            return "its captions share no last token that is their largest, so that nothing marks where they end"
        if not np.allclose(self._exact_captions[-1], self._reference.rows[0], rtol=1e-4, atol=1e-5):
            return "FP32 torch itself reads what follows the end of a caption"
        return None

    # -- helpers -----------------------------------------------------------------------------------------------------------

    @cached_property
    def _tokens(self) -> TokenShape | None:
        return token_shape(self._inputs.rows) if self._inputs.rows.dtype.kind == "i" else None

    @cached_property
    def _exact_captions(self) -> NDArray[np.float32]:
        """What FP32 torch makes of the made-up captions, one of each length, and at last of row 0 with another tail: all in one go."""
        assert self._tokens is not None  # for the type checker: crowds of pictures have no captions, and `why_not_captions` looked
        tail = with_new_tail(self._inputs.rows[0], 0, self._tokens)
        return self._exact(np.concatenate([caption_rows(self._tokens), tail[None]]))

    @cached_property
    def _own_error(self) -> float:
        return own_error(self._embeddings, self._reference, self._fake_quant)

    @property
    def _smallest(self) -> Rows:
        return _of_length(self._inputs.rows, self.engine.batch.minimum)

    def _first(self, size: Size) -> Rows:
        return self._home_rows[size.first : size.first + size.rows]

    def _home(self, crowd: Crowd) -> slice:
        return slice(crowd.batch * self.batch, (crowd.batch + 1) * self.batch)

    def _rows(self, crowd: Crowd) -> Rows:
        return crowd_rows(self._home_rows[self._home(crowd)], crowd, self._tokens)

    def _seen(self, crowd: Crowd) -> Embedded:
        return self._runner.run(self.engine, self._inputs.name, self._rows(crowd))

    def _beside_home(self, crowd: Crowd, places: Sequence[int]) -> Pairs:
        """What the rows in these places gave, and what the evaluation rows that they are or were made of gave at home."""
        if not places:
            return _NO_PAIRS
        rows = [crowd.row_in(place) for place in places]
        wanted = self._home_embeddings[self._home(crowd)][rows]
        names = [f"place {place}, row {row}" for place, row in zip(places, rows, strict=True)]
        return self._pairs(self._seen(crowd)[list(places)], wanted, names)

    def _pairs(self, seen: Embedded, wanted: Embedded, names: Sequence[str]) -> Pairs:
        return Pairs(seen=seen, wanted=wanted, names=tuple(names), own_error=self._own_error)

    def _taken(self, rows: Rows) -> str | None:
        seen = self._runner.run(self.engine, self._inputs.name, rows)
        return None if np.isfinite(seen).all() else "gave rows that are not finite"

    def _refused(self, rows: Rows) -> str | None:
        try:
            seen = self._runner.run(self.engine, self._inputs.name, rows)
        except (OutsideProfile, UnusableInputs):
            return None
        except Exception as error:  # noqa: BLE001 - whatever else comes is the finding: a caller cannot tell it from a crash
            return f"raised {type(error).__name__} ({error}); expected OutsideProfile or UnusableInputs"
        return f"gave {len(seen)} rows; expected OutsideProfile or UnusableInputs"


_NO_PAIRS = Pairs(seen=np.zeros((0, 0), np.float32), wanted=np.zeros((0, 0), np.float32), names=())


def _is_summable(guest: object) -> bool:
    return isinstance(guest, HotPixel) or (isinstance(guest, Filled) and guest.is_ordinary)


def _of_length(rows: Rows, length: int) -> Rows:
    """So many rows, from the first on and round again."""
    return rows[np.arange(length) % len(rows)]


def _other_type(rows: Rows) -> str:
    return "int32" if rows.dtype.kind == "i" else "float32"


def _numbered(rows: Embedded, first: int) -> tuple[str, ...]:
    return tuple(f"row {first + row}" for row in range(len(rows)))
