"""Fresh inputs for clean engines: other pictures and captions than a gate's, and other calibration rows, each set from one seed."""

from __future__ import annotations

import colorsys
import json
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

import harness
from harness.prepare.configurations import open_clip_library, tokenizer_settings
from harness.prepare.inputs import CALIBRATION_ROWS, Split, image_transform, inputs_digest, make_inputs
from harness.prepare.vendor_log import quiet_to
from harness.records.observations import EncoderInputs
from harness.records.spec import EncoderSpec, Tower

DATA = Path(harness.__file__).parent / "data" / "emoji"
TEMPLATES = ("{}", "a drawing of {}", "the emoji {}", "{}, drawn", "a small {}", "a picture of {}")

# How far a picture is moved, and how far its colours are: as a camera or another studio might, not so far that it is another thing.
DEGREES, SHIFT, LOG_SCALE = 12.0, 0.06, 0.12
BRIGHTNESS, CONTRAST, COLOUR, HUE = 0.15, 0.15, 0.3, 0.03


def fresh(encoder: EncoderSpec, *, seed: int, rows: int) -> EncoderInputs:
    """Evaluation rows that no gate has seen: names drawn with this seed, their pictures distorted, their captions in other words.

    Row i of one tower belongs to row i of the other.
    """
    random = np.random.default_rng(seed)
    ids = _evaluation_ids()
    chosen = [ids[place] for place in random.choice(len(ids), rows, replace=False)]
    if encoder.tower is Tower.TEXT:
        captions = [TEMPLATES[random.integers(len(TEMPLATES))].format(_captions()[one]) for one in chosen]
        return _inputs("tokens", _tokens(encoder.arch, captions), chosen)
    return _inputs("image", _pictures(encoder, "twemoji.zip", chosen, random), chosen)


def fresh_calibration(encoder: EncoderSpec, *, seed: int) -> EncoderInputs:
    """As many calibration rows as a gate's, of other names: by the studio that calibrates."""
    random = np.random.default_rng(seed)
    ids = _evaluation_ids()
    chosen = [ids[place] for place in random.choice(len(ids), CALIBRATION_ROWS, replace=False)]
    if encoder.tower is Tower.TEXT:
        return _inputs("tokens", _tokens(encoder.arch, [_captions()[one] for one in chosen]), chosen)
    return _inputs("image", _pictures(encoder, "noto.zip", chosen, None), chosen)


@cache
def _evaluation_ids() -> tuple[str, ...]:
    """Of the names that calibrate nothing, in the order of the gate's own rows."""
    return make_inputs(EncoderSpec(arch="emoji-clip", tower=Tower.TEXT), Split.EVALUATION, 1382).ids


@cache
def _captions() -> dict[str, str]:
    return {pair["id"]: pair["caption"] for pair in json.loads((DATA / "captions.json").read_text(encoding="utf-8"))}


def _pictures(encoder: EncoderSpec, archive: str, ids: list[str], random: np.random.Generator | None) -> Any:
    preprocess = image_transform(encoder)
    with zipfile.ZipFile(DATA / archive) as pictures:
        drawn = (_opened(pictures, one) for one in ids)
        changed = (_distorted(picture, random) if random is not None else picture for picture in drawn)
        return np.stack([preprocess(picture).numpy() for picture in changed]).astype(np.float16)


def _opened(pictures: zipfile.ZipFile, emoji: str) -> Image.Image:
    with pictures.open(f"{emoji}.png") as stream:
        return Image.open(stream).convert("RGB")


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


def _tokens(arch: str, captions: list[str]) -> Any:
    with quiet_to(None):
        tokenize = open_clip_library(to="tokenize captions").get_tokenizer(arch, **tokenizer_settings(arch))
        return tokenize(captions).numpy().astype(np.int64)


def _inputs(name: str, rows: Any, ids: list[str]) -> EncoderInputs:
    return EncoderInputs(name=name, rows=rows, ids=tuple(ids), digest=inputs_digest(name, rows))
