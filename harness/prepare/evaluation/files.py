"""Picture files with captions, as a dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import UnusableInputs
from harness.prepare.dataset import counted, shown
from harness.prepare.evaluation.pictures import read_rgb, sha256_of, why_unusable
from harness.records.task import Pairing

if TYPE_CHECKING:
    from PIL.Image import Image

_LONGEST_ID = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A picture and one caption of it.

    Attributes:
        picture: its path below the data's folder, with `/` between parts.
        where: what else helps to find it, such as `line 7`; may be empty.
    """

    picture: str
    caption: str
    where: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureFiles:
    """Different picture files below `root`, and different captions.

    Attributes:
        root: the folder that all pictures lie below, links resolved.
        notes: what was taken as something else than it is, for people.
    """

    root: Path
    picture_ids: tuple[str, ...]
    captions: tuple[str, ...]
    pairing: Pairing
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[Labelled], *, root: Path, name: str, notes: tuple[str, ...] = ()) -> PictureFiles:
        """What labelled pictures hold: each picture once, each caption once, and which belong together.

        Args:
            name: of the data, for people.
        Raises:
            UnusableInputs: pictures cannot be used, or there are fewer than two pictures or captions.
        """
        pictures = _numbered(row.picture for row in rows)
        captions = _numbered(row.caption for row in rows)
        _require_two(pictures, "picture", name)
        _require_two(captions, "caption", name)
        _require_usable(rows, root, name)
        pairs = dict.fromkeys((pictures[row.picture], captions[row.caption]) for row in rows)
        return cls(
            root=root,
            picture_ids=tuple(pictures),
            captions=tuple(captions),
            pairing=Pairing(source=name, pictures=len(pictures), captions=len(captions), pairs=np.array(list(pairs), np.int64)),
            notes=notes,
        )

    @property
    def in_words(self) -> str:
        """How much there is, and what was taken as something else."""
        counted = f"{self.pairing.source} with {self.pairing.pictures:,} pictures, {self.pairing.captions:,} captions"
        return "; ".join((counted, *self.notes))

    @property
    def caption_ids(self) -> tuple[str, ...]:
        return tuple(caption[:_LONGEST_ID] for caption in self.captions)

    def source(self) -> dict[str, str]:
        """Digest of captions, relative names, sha256 of every picture, and pairs. The files are read the first time."""
        content = [self.captions, list(zip(self.picture_ids, self._sha256, strict=True)), self.pairing.pairs.tolist()]
        return {"dataset": "picture files", "content": hashlib.sha256(json.dumps(content).encode()).hexdigest()}

    def pictures(self) -> Iterator[Image]:
        for name, sha256 in zip(self.picture_ids, self._sha256, strict=True):
            yield read_rgb(self.root / name, name, sha256)

    @cached_property
    def _sha256(self) -> tuple[str, ...]:
        return tuple(sha256_of(self.root / name, name) for name in self.picture_ids)


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: index for index, name in enumerate(dict.fromkeys(names))}


def _require_two(found: dict[str, int], what: str, name: str) -> None:
    if len(found) < 2:
        only = "".join(f", {shown(one)}" for one in found)
        raise UnusableInputs(
            f"evaluation data {name} hold {counted(len(found), what)}{only}; expected at least two different ones, or there is nothing to "
            "tell apart; add some"
        )


def _require_usable(rows: Sequence[Labelled], root: Path, name: str) -> None:
    different: dict[str, Labelled] = {}
    for row in rows:
        different.setdefault(row.picture, row)
    problems = [(row, why) for row in different.values() if (why := why_unusable(root, row.picture))]
    if problems:
        row, why = problems[0]
        where = f" ({row.where})" if row.where else ""
        share = f"{len(problems):,} of {counted(len(different), 'picture')}"
        raise UnusableInputs(f"evaluation data {name}: {share} cannot be used, first {row.picture!r}{where}, which {why}")
