"""Fresh inputs for clean engines: other pictures and captions than a gate's, and other calibration rows, each set from one seed.

Captions stay what the encoder has learnt, Unicode names, since that is what a gate is fed with; there are 1,382 of them that do not
calibrate, of which a gate judges 600. `OtherWords` draws the same in wordings that it has not learnt.
"""

from __future__ import annotations

import colorsys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

import harness
from harness.prepare.inputs import CALIBRATION_ROWS, EVALUATION_ROWS, EmojiSet, Split
from harness.records.task import Pairing

DATA = Path(harness.__file__).parent / "data" / "emoji"
TEMPLATES = ("{}", "a drawing of {}", "the emoji {}", "{}, drawn", "a small {}", "a picture of {}")

# How far a picture is moved, and how far its colours are: as a camera or another studio might, not so far that it is another thing.
DEGREES, SHIFT, LOG_SCALE = 12.0, 0.06, 0.12
BRIGHTNESS, CONTRAST, COLOUR, HUE = 0.15, 0.15, 0.3, 0.03


@dataclass(frozen=True)
class FreshEmoji:
    """A data set that no gate has seen: evaluation names drawn with a seed, and their pictures distorted."""

    seed: int
    rows: int

    @property
    def pairing(self) -> Pairing:
        return Pairing.one_to_one(f"fresh draw {self.seed}", self.rows)

    @cached_property
    def _drawn(self) -> dict[str, str]:
        return _drawn(self.seed, self.rows)

    @property
    def picture_ids(self) -> tuple[str, ...]:
        return tuple(self._drawn)

    caption_ids = picture_ids

    @property
    def captions(self) -> tuple[str, ...]:
        return tuple(self._drawn.values())

    def source(self) -> dict[str, str]:
        return {"fresh": str(self.seed), "rows": str(self.rows)}

    def pictures(self) -> Iterator[Image.Image]:
        random = np.random.default_rng([self.seed, 2])
        return (_distorted(picture, random) for picture in _opened("twemoji.zip", self.picture_ids))


@dataclass(frozen=True)
class OtherWords(FreshEmoji):
    """The same, each caption put in one of six wordings, five of which no caption of the training was in."""

    @property
    def captions(self) -> tuple[str, ...]:
        random = np.random.default_rng([self.seed, 1])
        return tuple(TEMPLATES[random.integers(len(TEMPLATES))].format(caption) for caption in self._drawn.values())


@dataclass(frozen=True)
class CalibrationDraw(FreshEmoji):
    """Other names than a gate calibrates with, as many, by the studio that calibrates."""

    rows: int = CALIBRATION_ROWS

    def pictures(self) -> Iterator[Image.Image]:
        return _opened("noto.zip", self.picture_ids)


def _drawn(seed: int, rows: int) -> dict[str, str]:
    """Captions by emoji."""
    every = EmojiSet(split=Split.EVALUATION, rows=EVALUATION_ROWS)
    pairs = list(zip(every.picture_ids, every.captions, strict=True))
    return dict(pairs[place] for place in np.random.default_rng(seed).choice(len(pairs), rows, replace=False))


def _opened(archive: str, ids: tuple[str, ...]) -> Iterator[Image.Image]:
    with zipfile.ZipFile(DATA / archive) as pictures:
        for emoji in ids:
            with pictures.open(f"{emoji}.png") as stream:
                yield Image.open(stream).convert("RGB")


def _distorted(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Turned, moved, scaled and recoloured a little."""
    width, height = picture.size
    angle, scale = np.deg2rad(random.uniform(-DEGREES, DEGREES)), float(np.exp(random.uniform(-LOG_SCALE, LOG_SCALE)))
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    centre = np.asarray([width / 2, height / 2])
    turn = np.asarray([[cosine, sine], [-sine, cosine]])
    offset = centre - turn @ (centre + random.uniform(-SHIFT, SHIFT, 2) * width)
    moved = picture.transform(picture.size, Image.Transform.AFFINE, (*turn[0], offset[0], *turn[1], offset[1]), Image.Resampling.BICUBIC)
    for enhance, by in ((ImageEnhance.Brightness, BRIGHTNESS), (ImageEnhance.Contrast, CONTRAST), (ImageEnhance.Color, COLOUR)):
        moved = enhance(moved).enhance(1 + random.uniform(-by, by))
    return _with_hue(moved, random.uniform(-HUE, HUE))


def _with_hue(picture: Image.Image, turn: float) -> Image.Image:
    """Hues turned by a share of the circle; the matrix keeps grey grey."""
    axes = [colorsys.hsv_to_rgb((third / 3 + turn) % 1, 1, 1) for third in range(3)]
    matrix = np.asarray(axes).T
    matrix /= matrix.sum(axis=1, keepdims=True)
    return picture.convert("RGB", tuple(np.hstack([matrix, np.zeros((3, 1))]).ravel()))
