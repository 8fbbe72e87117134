"""Backends by name. Naming one imports its module, which imports no vendor library before it is used."""

from __future__ import annotations

import difflib
import importlib

from harness.backends.pytorch import ModuleLoader, PyTorchBackend
from harness.contracts import Backend
from harness.errors import UnknownName

_CLASSES = {
    "fake": "FakeBackend",
    "onnxruntime": "OnnxRuntimeBackend",
    "pytorch": "PyTorchBackend",
    "tensorrt": "TensorRtBackend",
    "tensorrt_rtx": "TensorRtRtxBackend",
}


def backend_names() -> tuple[str, ...]:
    """Names that `get_backend` knows, in alphabetical order."""
    return tuple(_CLASSES)


def get_backend(name: str, *, load: ModuleLoader | None = None) -> Backend:
    """The backend of that name.

    Args:
        name: one of `backend_names`.
        load: how `pytorch` gets an encoder's module; no other backend uses it.

    Raises:
        UnknownName: with the names that come close.
    """
    if name not in _CLASSES:
        near = difflib.get_close_matches(name, _CLASSES, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UnknownName(f"backend {name!r} is unknown; {hint}expected one of {', '.join(backend_names())}")
    if name == PyTorchBackend.name:
        return PyTorchBackend(load)
    module = importlib.import_module(f"harness.backends.{name}")
    return getattr(module, _CLASSES[name])()
