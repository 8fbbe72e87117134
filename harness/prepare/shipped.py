"""Weights that come with the project, under the names that stand for them beside open_clip's pretrained tags.

`noto` are those that training/emoji_clip/train.py made of `emoji-clip`. `noto-outliers` are the same function with a few channels of
large activations, as trained CLIP has them: so that one FP8 scale for a whole tensor has something to lose.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.prepare.configurations import MODELS

if TYPE_CHECKING:
    from torch import Tensor

_FILES = {("emoji-clip", "noto"): "emoji-clip.safetensors", ("emoji-clip", "noto-outliers"): "emoji-clip.safetensors"}
_WITH_OUTLIERS = "noto-outliers"

OUTLIER_GAIN = 8192.0  # a power of two: multiplying and dividing by it rounds nothing
OUTLIER_CHANNELS = 2  # of each normalisation, those with the largest gains already

# What each normalisation of one of open_clip's blocks feeds, by the endings of their names.
_READERS = {"ln_1": "attn.in_proj_weight", "ln_2": "mlp.c_fc.weight"}


def shipped_file(arch: str, weights: str) -> Path | None:
    """The file behind shipped weights; None for any other name."""
    name = _FILES.get((arch, weights))
    return MODELS / name if name else None


def shipped_names(arch: str) -> tuple[str, ...]:
    """The weights that ship for a configuration."""
    return tuple(weights for named, weights in _FILES if named == arch)


def has_outliers(weights: str) -> bool:
    """Whether weights of this name are to be given outlier channels after loading."""
    return weights == _WITH_OUTLIERS


def with_outliers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same function: of every normalisation in a block the largest channels grow by `OUTLIER_GAIN`, and what reads them shrinks by it.

    Args:
        state: FP32 tensors of an open_clip CLIP with plain transformers, by name.
    """
    changed = dict(state)
    for name in state:
        stem, _, ending = name.removesuffix(".weight").rpartition(".")
        if name.endswith(".weight") and ending in _READERS and ".resblocks." in name:
            _grow(changed, f"{stem}.{ending}", f"{stem}.{_READERS[ending]}")
    return changed


def _grow(state: dict[str, Tensor], norm: str, reader: str) -> None:
    channels = state[f"{norm}.weight"].abs().topk(OUTLIER_CHANNELS).indices
    for name in (f"{norm}.weight", f"{norm}.bias"):
        state[name] = state[name].clone()
        state[name][channels] *= OUTLIER_GAIN
    state[reader] = state[reader].clone()
    state[reader][:, channels] /= OUTLIER_GAIN
