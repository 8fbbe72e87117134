"""From a name to an encoder with weights: FP32, in evaluation, on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UnusableCheckpoint
from harness.prepare.configurations import near, open_clip_library, require_arch
from harness.prepare.shipped import has_outliers, shipped_file, shipped_names, with_outliers
from harness.prepare.vendor_log import quiet_to
from harness.prepare.weights_file import SUFFIXES, State, last_line, read_state, require_same_shapes
from harness.records.spec import EncoderSpec, Tower

if TYPE_CHECKING:
    from torch import Tensor, nn


def weights_origin(spec: EncoderSpec) -> str:
    """Where the weights come from, free of paths: `seeded:N`, `sha256:HEX` of a file, or a pretrained tag. Loads no torch.

    Weights that ship with this project are a file too; those derived from one carry their name behind it.

    Raises:
        UnusableCheckpoint: what looks like a file is not there, or is no file.
    """
    path = _file_of(spec)
    if spec.seed is None and path.is_file():
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return f"sha256:{digest}+{spec.weights}" if has_outliers(spec.weights) else f"sha256:{digest}"
    if spec.seed is None and _looks_like_a_path(spec.weights):
        found = "is a folder" if path.is_dir() else "does not exist"
        raise UnusableCheckpoint(f"checkpoint {spec.weights} {found}; expected a file ending in {', '.join(SUFFIXES)}; look at its path")
    return spec.weights


def load_encoder(spec: EncoderSpec, *, log: Path | None = None) -> nn.Module:
    """One tower with its own, unchanged modules, whose forward(image) or forward(tokens) gives [batch, dim], not normalised.

    The result has `row_shape`, the shape of one input row, `dim`, and `logit_scale`, what the model multiplies cosines with. The
    attribute that holds the tower is `tower`, since Model Optimizer's preset switches off whatever is below a module called `visual`.

    Args:
        spec: `seeded:N` weights are open_clip's initialisation under seed N, with branches that it starts at zero made live; the
            process' random state is left alone.
        log: file for what open_clip prints; None discards it.
    Raises:
        UnknownName: open_clip has no such configuration.
        UnusableCheckpoint: the weights are missing, truncated, of another architecture, not finite, or more than tensors.
    """
    require_arch(spec.arch)
    origin = weights_origin(spec)
    with quiet_to(log):
        model = _model(spec, from_file=origin.startswith("sha256:"))
        _require_finite(model.state_dict(), spec.weights)
        logit_scale = float(model.logit_scale.exp())
        encoder: Any = _one_tower(model, spec.tower).float().eval().requires_grad_(False)
        encoder.logit_scale = logit_scale
        encoder.dim = _config(spec.arch)["embed_dim"]
        return encoder


def _file_of(spec: EncoderSpec) -> Path:
    return shipped_file(spec.arch, spec.weights) or Path(spec.weights)


def _config(arch: str) -> dict[str, Any]:
    return open_clip_library(to="read its configurations").get_model_config(arch)


def _model(spec: EncoderSpec, *, from_file: bool) -> Any:
    if spec.seed is not None:
        return _with_seed(spec.arch, spec.seed)
    return _with_file(spec) if from_file else _with_tag(spec.arch, spec.weights)


def _with_seed(arch: str, seed: int) -> Any:
    import torch

    # The towers are initialised on the CPU alone, so that is the only generator to put back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _with_live_branches(_without_weights(arch))


def _with_live_branches(model: nn.Module) -> nn.Module:
    """Normalisations that start at zero, at one: open_clip ends each branch of a ResNet in such a one, and training wakes it.

    As it starts, no branch reaches the embedding, so that whatever happens to it would pass.
    """
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.any():
            nn.init.ones_(module.weight)
    return model


def _without_weights(arch: str) -> Any:
    open_clip = open_clip_library(to="make the encoder")
    try:
        # Without pretrained_text=False a configuration with a Hugging Face text tower would download that tower.
        return open_clip.create_model(arch, pretrained_text=False)
    except (RuntimeError, OSError, ImportError) as error:
        raise UnusableCheckpoint(
            f"open_clip cannot make {arch} ({last_line(error)}); expected a configuration that needs neither the hub nor "
            "another library; install what it names, or choose another configuration"
        ) from error


def _with_file(spec: EncoderSpec) -> Any:
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    path = _file_of(spec)
    model = _with_seed(spec.arch, 0)
    state = convert_state_dict(model, read_state(path))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    require_same_shapes(state, model.state_dict(), path, spec.arch)
    if has_outliers(spec.weights):
        state = with_outliers({name: tensor.float() for name, tensor in state.items()})
    model.load_state_dict(state, strict=False)  # the shapes were compared above; what may be missing does not reach an embedding
    return model


def _with_tag(arch: str, tag: str) -> Any:
    open_clip = open_clip_library(to="load pretrained weights")
    tags = [*open_clip.list_pretrained_tags_by_model(arch), *shipped_names(arch)]
    if not open_clip.get_pretrained_cfg(arch, tag):
        raise UnusableCheckpoint(
            f"{tag!r} is neither a file nor a pretrained tag of {arch}; {near(tag, tags)}; or give seeded:N or a checkpoint file"
        )
    try:
        return open_clip.create_model(arch, pretrained=tag)
    except RuntimeError as error:
        if "Failed to download" not in str(error):
            raise UnusableCheckpoint(f"the weights {tag!r} do not fit {arch}: {last_line(error)}; choose another tag") from error
        raise UnusableCheckpoint(
            f"the weights {tag!r} of {arch} are not in the local cache and the hub could not be reached ({last_line(error)}); "
            "connect this machine, or download the file elsewhere and give its path as weights"
        ) from error


def _require_finite(state: State, weights: str) -> None:
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not _is_finite(tensor)]
    if broken:
        raise UnusableCheckpoint(
            f"weights {weights} are not finite in {len(broken)} tensors, first {broken[0]}; "
            "expected finite numbers, since one NaN reaches every embedding; use an earlier checkpoint"
        )


def _is_finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())


def _one_tower(model: Any, tower: Tower) -> nn.Module:
    """Only the tower asked for, so that the other one's memory is freed."""
    if tower is Tower.IMAGE:
        visual = model.visual
        return _image_class()(visual, row_shape=(3, *_pair(visual.image_size)))
    context = (int(model.context_length),)
    if hasattr(model, "text"):
        return _text_class()(model.text, row_shape=context)
    del model.visual
    model.forward = model.encode_text  # CLIP keeps its text tower in its own attributes
    return _text_class()(model, row_shape=context)


def _pair(size: int | Iterable[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


@cache
def _image_class() -> type[Any]:
    from torch import nn

    class ImageEncoder(nn.Module):
        tower: nn.Module
        __init__ = _hold_tower

        def forward(self, image: Tensor) -> Tensor:
            return _pooled(self.tower(image))

    return ImageEncoder


@cache
def _text_class() -> type[Any]:
    from torch import nn

    class TextEncoder(nn.Module):
        tower: nn.Module
        __init__ = _hold_tower

        def forward(self, tokens: Tensor) -> Tensor:
            return _pooled(self.tower(tokens))

    return TextEncoder


def _hold_tower(self: Any, tower: nn.Module, *, row_shape: tuple[int, ...]) -> None:
    from torch import nn

    nn.Module.__init__(self)
    self.tower = tower
    self.row_shape = row_shape


def _pooled(features: Any) -> Tensor:
    # Towers made for captioning return their tokens beside the embedding.
    return features[0] if isinstance(features, tuple) else features


def _looks_like_a_path(weights: str) -> bool:
    return "/" in weights or "\\" in weights or Path(weights).suffix in SUFFIXES
