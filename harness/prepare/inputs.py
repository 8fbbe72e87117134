"""Inputs to calibrate with and to judge by: emoji as two studios drew them, and their names."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from enum import StrEnum
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UnusableInputs
from harness.prepare.configurations import open_clip_library, require_arch, tokenizer_settings
from harness.prepare.vendor_log import import_quietly, quiet_to
from harness.records.observations import EncoderInputs
from harness.records.spec import EncoderSpec, Tower

if TYPE_CHECKING:
    from torch import Tensor

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


def split_source(split: Split, rows: int) -> dict[str, str]:
    """What the first `rows` rows of a split are made of, for a cache key. Decodes nothing.

    Raises:
        UnusableInputs: the split does not hold so many rows.
    """
    _require_held(split, rows)
    pictures = _PICTURES[split]
    return {
        "dataset": DATASET,
        "split": str(split),
        "rows": str(rows),
        "rule": f"ids by sha256, first {CALIBRATION_ROWS} calibrate",
        "captions": SHA256["captions.json"],
        pictures: SHA256[pictures],
    }


def make_inputs(spec: EncoderSpec, split: Split, rows: int) -> EncoderInputs:
    """The first `rows` rows of a split, as the encoder's engine takes them.

    Returns:
        `image`: float16 [rows, 3, H, W] through open_clip's inference preprocessing for these weights; or
        `tokens`: int64 [rows, context] of the plain captions, through open_clip's tokenizer. ids are emoji ids, and row i
        of one tower belongs to row i of the other.
    Raises:
        UnknownName: open_clip has no such configuration.
        UnusableInputs: the split does not hold so many rows, a data file is not the pinned one, or the tokenizer cannot be had.
    """
    require_arch(spec.arch)
    _require_held(split, rows)
    pairs = _pairs(split)[:rows]
    ids = tuple(pair["id"] for pair in pairs)
    if spec.tower is Tower.IMAGE:
        return _inputs("image", _images(spec, split, ids), ids)
    return _inputs("tokens", _tokens(spec.arch, [pair["caption"] for pair in pairs]), ids)


def inputs_digest(name: str, rows: NDArray[np.generic]) -> str:
    """sha256, in hexadecimal, of name, dtype, shape and bytes."""
    digest = hashlib.sha256(f"{name} {rows.dtype.str} {list(rows.shape)} ".encode())
    digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()


def image_transform(spec: EncoderSpec) -> Callable[[Any], Tensor]:
    """open_clip's inference preprocessing of a picture for these weights, without building the model."""
    transform = import_quietly("open_clip.transform", to="preprocess pictures")
    with quiet_to(None):
        return transform.image_transform_v2(_preprocessing(spec), is_train=False)


def _preprocessing(spec: EncoderSpec) -> Any:
    open_clip = open_clip_library(to="preprocess pictures")
    from open_clip.model import CLIPVisionCfg
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    # Pretrained tags carry their own mean, deviation and interpolation; the picture's size is always the model's.
    own = open_clip.get_pretrained_cfg(spec.arch, spec.weights) if spec.seed is None else {}
    config: Any = open_clip.get_model_config(spec.arch)
    settings: dict[str, Any] = merge_preprocess_dict(PreprocessCfg(), own or {})
    settings["size"] = CLIPVisionCfg(**config["vision_cfg"]).image_size
    return PreprocessCfg(**settings)


def _images(spec: EncoderSpec, split: Split, ids: Sequence[str]) -> NDArray[np.float16]:
    from PIL import Image

    preprocess = image_transform(spec)
    with zipfile.ZipFile(io.BytesIO(_pinned(_PICTURES[split]))) as archive:
        pictures = (Image.open(io.BytesIO(archive.read(f"{emoji}.png"))).convert("RGB") for emoji in ids)
        return np.stack([preprocess(picture).numpy() for picture in pictures]).astype(np.float16)


def _tokens(arch: str, captions: list[str]) -> NDArray[np.int64]:
    open_clip = open_clip_library(to="tokenize captions")
    try:
        with quiet_to(None):
            return open_clip.get_tokenizer(arch, **tokenizer_settings(arch))(captions).numpy().astype(np.int64)
    except Exception as error:  # tokenizers from the hub fail in the words of four different network libraries
        raise UnusableInputs(
            f"the tokenizer of {arch} cannot be had: {type(error).__name__}: {str(error)[:200]}; expected one that ships with "
            "open_clip, or one from the hub in the local cache; install what it names, fill the cache on a connected machine, "
            "or choose another text tower"
        ) from error


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


def _inputs(name: str, rows: NDArray[np.generic], ids: tuple[str, ...]) -> EncoderInputs:
    return EncoderInputs(name=name, rows=rows, ids=ids, digest=inputs_digest(name, rows))


def _require_held(split: Split, rows: int) -> None:
    if not 1 <= rows <= _HELD[split]:
        raise UnusableInputs(f"{rows} {split} rows were asked for; expected 1 to {_HELD[split]}, which is what the emoji set holds")
