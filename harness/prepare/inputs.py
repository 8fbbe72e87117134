"""The built-in data to calibrate with and to judge by: emoji as two studios drew them, and their names."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any

from harness.errors import UnusableInputs
from harness.prepare.dataset import encoder_inputs
from harness.records.observations import EncoderInputs
from harness.records.spec import EncoderSpec
from harness.records.task import Pairing

if TYPE_CHECKING:
    from PIL.Image import Image

DATASET = "emoji-datasource-16.0.0"
SHA256 = {
    "captions.json": "82e311cccc9e6b59089e0f471408a4b979666bf2075330abbd45907853c61fcc",
    "noto.zip": "8c7a9e7abae686142043e87b8c0e0010579acc85bff27ac871b828dd1016a26e",
    "twemoji.zip": "0a57e43b1b65c9eb6fe79f6a7ded81a732dc742bf80414eccbc0f1b9fd845837",
}
CALIBRATION_ROWS = 128  # enough for max calibration: ViT-B-32 under `linear` keeps 18.4 dB (image) and 14.4 dB (text) of centred signal
EVALUATION_ROWS = 1382  # the other names of the 1510


class Split(StrEnum):
    """Which rows. No name is in both, and each has its own studio's drawings."""

    CALIBRATION = "calibration"
    EVALUATION = "evaluation"


_PICTURES = {Split.CALIBRATION: "noto.zip", Split.EVALUATION: "twemoji.zip"}
_HELD = {Split.CALIBRATION: CALIBRATION_ROWS, Split.EVALUATION: EVALUATION_ROWS}


@dataclass(frozen=True, kw_only=True)
class EmojiSet:
    """The first `rows` rows of a split; each emoji is one picture and one caption.

    Raises:
        UnusableInputs: the split does not hold so many rows; or, when they are read, a data file is not the pinned one.
    """

    split: Split
    rows: int

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= _HELD[self.split]:
            raise UnusableInputs(
                f"{self.rows} {self.split} rows were asked for; expected 1 to {_HELD[self.split]}, which is what the emoji set holds"
            )

    @property
    def pairing(self) -> Pairing:
        return Pairing.one_to_one(DATASET, self.rows)

    @property
    def picture_ids(self) -> tuple[str, ...]:
        return tuple(emoji["id"] for emoji in self._emoji)

    @property
    def caption_ids(self) -> tuple[str, ...]:
        return self.picture_ids

    @property
    def captions(self) -> tuple[str, ...]:
        return tuple(emoji["caption"] for emoji in self._emoji)

    def source(self) -> dict[str, str]:
        pictures = _PICTURES[self.split]
        return {
            "dataset": DATASET,
            "split": str(self.split),
            "rows": str(self.rows),
            "rule": f"ids by sha256, first {CALIBRATION_ROWS} calibrate",
            "captions": SHA256["captions.json"],
            pictures: SHA256[pictures],
        }

    def pictures(self) -> Iterator[Image]:
        from PIL import Image

        with zipfile.ZipFile(io.BytesIO(_pinned(_PICTURES[self.split]))) as archive:
            for name in self.picture_ids:
                yield Image.open(io.BytesIO(archive.read(f"{name}.png"))).convert("RGB")

    @cached_property
    def _emoji(self) -> list[dict[str, Any]]:
        return _pairs(self.split)[: self.rows]


CALIBRATION = EmojiSet(split=Split.CALIBRATION, rows=CALIBRATION_ROWS)  # what every quantized encoder is calibrated on


def split_source(split: Split, rows: int) -> dict[str, str]:
    """What the first `rows` rows of a split are made of, for a cache key. Decodes nothing."""
    return EmojiSet(split=split, rows=rows).source()


def make_inputs(spec: EncoderSpec, split: Split, rows: int) -> EncoderInputs:
    """The first `rows` rows of a split, as the encoder's engine takes them; row i of one tower belongs to row i of the other."""
    return encoder_inputs(spec, EmojiSet(split=split, rows=rows))


def _pairs(split: Split) -> list[dict[str, Any]]:
    captions = json.loads(_pinned("captions.json"))
    captions.sort(key=lambda pair: hashlib.sha256(pair["id"].encode()).digest())
    return captions[:CALIBRATION_ROWS] if split is Split.CALIBRATION else captions[CALIBRATION_ROWS:]


def _pinned(name: str) -> bytes:
    content = (resources.files("harness") / "data" / "emoji" / name).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise UnusableInputs(
            f"data file emoji/{name} has sha256 {found}; expected {SHA256[name]}, or scales and embeddings cannot be compared with "
            "those of other machines; install enginegate again"
        )
    return content
