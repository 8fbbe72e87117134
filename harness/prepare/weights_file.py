"""Reads checkpoint files: tensors by name, and nothing that could run."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UnusableCheckpoint

if TYPE_CHECKING:
    import torch

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_EXPECTED = ", ".join(SUFFIXES)

State = dict[str, "torch.Tensor"]


def read_state(path: Path) -> State:
    """Tensors of a checkpoint file, by name; nothing in it is executed.

    Raises:
        UnusableCheckpoint: it is truncated, of an unknown kind, or holds more than tensors.
    """
    if path.suffix not in SUFFIXES:
        raise UnusableCheckpoint(f"checkpoint {path} has the suffix {path.suffix!r}; expected {_EXPECTED}; convert it")
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
            f"checkpoint {path} of {path.stat().st_size} bytes is truncated or no safetensors file ({last_line(error)}); copy it again"
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
        f"of {path.stat().st_size} bytes is truncated or no checkpoint ({type(error).__name__}: {last_line(error)}); "
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


def require_same_shapes(found: State, expected: State, path: Path, arch: str) -> None:
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


def last_line(error: BaseException) -> str:
    """What vendors' errors come down to."""
    lines = str(error).strip().splitlines()
    return lines[-1][:200] if lines else type(error).__name__
