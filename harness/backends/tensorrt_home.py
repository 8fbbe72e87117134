"""A folder with one release of TensorRT, and how a process is told of it."""

from __future__ import annotations

from pathlib import Path

HOME = "ENGINEGATE_TENSORRT_HOME"


def libraries_in(home: Path) -> Path:
    """Where its shared libraries lie."""
    return home.absolute() / "libs"


def lacking_in(home: Path) -> str | None:
    """What a folder lacks of a release of TensorRT, in words; None when it is one."""
    lacking = [name for name in ("libs/libnvinfer.so.*", "python/tensorrt*/__init__.py") if not any(home.glob(name))]
    if not lacking:
        return None
    return f"which has no {' and no '.join(lacking)}; expected TensorRT's libraries and its Python module there"
