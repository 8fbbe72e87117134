"""From a name to an encoder with weights: FP32, in evaluation, on the CPU."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UnusableCheckpoint
from harness.prepare.configurations import near, open_clip_library, require_arch
from harness.prepare.vendor_log import quiet_to
from harness.records.spec import EncoderSpec, Tower

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_PICKLED = (".pt", ".pth", ".bin")
_SUFFIXES = (".safetensors", *_PICKLED)

State = dict[str, "torch.Tensor"]


def weights_origin(spec: EncoderSpec) -> str:
    """Where the weights come from, free of paths: `seeded:N`, `sha256:HEX` of a file, or a pretrained tag. Loads no torch.

    Raises:
        UnusableCheckpoint: what looks like a file is not there, or is no file.
    """
    path = Path(spec.weights)
    if spec.seed is None and path.is_file():
        with path.open("rb") as stream:
            return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    if spec.seed is None and _looks_like_a_path(spec.weights):
        found = "is a folder" if path.is_dir() else "does not exist"
        raise UnusableCheckpoint(f"checkpoint {spec.weights} {found}; expected a file ending in {_said(_SUFFIXES)}; look at its path")
    return spec.weights


def load_encoder(spec: EncoderSpec, *, log: Path | None = None) -> nn.Module:
    """One tower with its own, unchanged modules, whose forward(image) or forward(tokens) gives [batch, dim], not normalised.

    The result has `row_shape`, the shape of one input row, and `dim`. The attribute that holds the tower is `tower`, since
    Model Optimizer's preset switches off whatever is below a module called `visual`.

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
        encoder = _one_tower(model, spec.tower).float().eval().requires_grad_(False)
        encoder.dim = _config(spec.arch)["embed_dim"]
        return encoder


def _config(arch: str) -> dict[str, Any]:
    return open_clip_library(to="read its configurations").get_model_config(arch)


def _model(spec: EncoderSpec, *, from_file: bool) -> Any:
    if spec.seed is not None:
        return _with_seed(spec.arch, spec.seed)
    return _with_file(spec.arch, Path(spec.weights)) if from_file else _with_tag(spec.arch, spec.weights)


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
            f"open_clip cannot make {arch} ({_last_line(error)}); expected a configuration that needs neither the hub nor "
            "another library; install what it names, or choose another configuration"
        ) from error


def _with_file(arch: str, path: Path) -> Any:
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    model = _with_seed(arch, 0)
    state = convert_state_dict(model, _read_state(path))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    _require_same_shapes(state, model.state_dict(), path, arch)
    model.load_state_dict(state, strict=False)  # the shapes were compared above; what may be missing does not reach an embedding
    return model


def _with_tag(arch: str, tag: str) -> Any:
    open_clip = open_clip_library(to="load pretrained weights")
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if not open_clip.get_pretrained_cfg(arch, tag):
        raise UnusableCheckpoint(
            f"{tag!r} is neither a file nor a pretrained tag of {arch}; {near(tag, tags)}; or give seeded:N or a checkpoint file"
        )
    try:
        return open_clip.create_model(arch, pretrained=tag)
    except RuntimeError as error:
        if "Failed to download" not in str(error):
            raise UnusableCheckpoint(f"the weights {tag!r} do not fit {arch}: {_last_line(error)}; choose another tag") from error
        raise UnusableCheckpoint(
            f"the weights {tag!r} of {arch} are not in the local cache and the hub could not be reached ({_last_line(error)}); "
            "connect this machine, or download the file elsewhere and give its path as weights"
        ) from error


def _read_state(path: Path) -> State:
    """Tensors of a checkpoint file, by name; nothing in it is executed."""
    if path.suffix not in _SUFFIXES:
        raise UnusableCheckpoint(f"checkpoint {path} has the suffix {path.suffix!r}; expected {_said(_SUFFIXES)}; convert it")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
    nested = content.get("state_dict", content) if isinstance(content, Mapping) else content
    return _plain_tensors(nested, path)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UnusableCheckpoint(
            f"checkpoint {path} of {path.stat().st_size} bytes is truncated or no safetensors file ({_last_line(error)}); copy it again"
        ) from error


def _read_pickled(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything while it is read, and all of it means the same
        raise UnusableCheckpoint(f"checkpoint {path} {_why_unpickling_stopped(error, path)}") from error


def _why_unpickling_stopped(error: Exception, path: Path) -> str:
    text = str(error)
    if "TorchScript" in text:
        return "is a TorchScript archive, which holds code; expected plain tensors; save its state_dict() with safetensors"
    refused = re.search(r"GLOBAL ([\w.]+)", text)
    if isinstance(error, pickle.UnpicklingError) and refused:
        return (
            f"holds more than plain tensors ({refused.group(1)}), which could run code; "
            "expected a state_dict; save its tensors with safetensors"
        )
    return (
        f"of {path.stat().st_size} bytes is truncated or no checkpoint ({type(error).__name__}: {_last_line(error)}); "
        "expected what torch.save writes of a state_dict; copy it again"
    )


def _plain_tensors(content: Any, path: Path) -> State:
    import torch

    if not isinstance(content, Mapping) or not content:
        raise UnusableCheckpoint(f"checkpoint {path} holds {type(content).__name__}; expected a state_dict, tensors by name")
    stray = [name for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if stray:
        raise UnusableCheckpoint(
            f"checkpoint {path} holds {len(stray)} values that are no tensors, first {stray[0]!r}; "
            "expected a state_dict, or a training checkpoint with one under 'state_dict'"
        )
    unnamed = [name for name in content if not isinstance(name, str)]
    if unnamed:
        raise UnusableCheckpoint(f"checkpoint {path} names a tensor {unnamed[0]!r}; expected a state_dict, whose names are texts")
    # Checkpoints of distributed training carry the wrapper's name.
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _require_same_shapes(found: State, expected: State, path: Path, arch: str) -> None:
    names = [name for name in (*expected, *(name for name in found if name not in expected)) if not name.startswith("logit_")]
    wrong = [name for name in names if _shape(found, name) != _shape(expected, name)]
    if wrong:
        first = "; ".join(f"{name}: found {_shape(found, name)}, expected {_shape(expected, name)}" for name in wrong[:2])
        raise UnusableCheckpoint(
            f"checkpoint {path} is not of {arch}: {len(wrong)} of {len(names)} weights differ, first {first}; "
            "name the configuration it was trained with"
        )


def _shape(state: State, name: str) -> str:
    return str(list(state[name].shape)) if name in state else "nothing"


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


def _said(names: Iterable[str]) -> str:
    return ", ".join(names)


def _looks_like_a_path(weights: str) -> bool:
    return "/" in weights or "\\" in weights or Path(weights).suffix in _SUFFIXES


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1][:200] if lines else type(error).__name__
