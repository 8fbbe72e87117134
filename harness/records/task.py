"""What embeddings are for: which picture belongs to which caption, and what the other tower makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import UnusableInputs
from harness.records.observations import Embeddings
from harness.records.spec import Tower


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairing:
    """Which pictures and captions of an evaluation set belong together.

    Attributes:
        source: the data's name, free of paths.
        pictures, captions: how many different ones there are; rows of the image tower's inputs, and of the text tower's. The
            captions are the classes of zero-shot classification.
        pairs: int64 [m, 2], a picture's row and a caption's row that belong together. Every row is in a pair at least once.
    Raises:
        UnusableInputs: a pair names a row that there is not, or a row is in no pair.
    """

    source: str
    pictures: int
    captions: int
    pairs: NDArray[np.int64]

    def __post_init__(self) -> None:
        for column, (rows, what) in enumerate(((self.pictures, "picture"), (self.captions, "caption"))):
            named = np.unique(self.pairs[:, column])
            if not np.array_equal(named, np.arange(rows)):
                raise UnusableInputs(
                    f"{self.source} pairs {len(named)} different {what} rows; expected each of 0 to {rows - 1} at least once, and no other"
                )

    @classmethod
    def one_to_one(cls, source: str, rows: int) -> Pairing:
        """Row i of one tower belongs to row i of the other, and to no other."""
        return cls(source=source, pictures=rows, captions=rows, pairs=np.stack([np.arange(rows)] * 2, axis=1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """What task metrics need beside the rows of the engine under test.

    Attributes:
        tower: of the engine under test.
        pairing: which rows belong together.
        other: rows of the tower that is not under test, of the same weights, in FP32 torch.
        logit_scale: what the model multiplies cosines with before its softmax, such as 100.
        same_weights: origin of the weights of both towers.
    """

    tower: Tower
    pairing: Pairing
    other: Embeddings
    logit_scale: float
    same_weights: str
