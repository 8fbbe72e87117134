"""Real exports of ViT-B-32 without their weights: every node, shape and scale. `engines/README.md` says how they were made."""

from __future__ import annotations

import gzip
from pathlib import Path

ENGINES = Path(__file__).parent / "engines"


def real_export(name: str, folder: Path) -> Path:
    """Unpack one export, such as `image-linear`, into `folder`."""
    path = folder / f"{name}.onnx"
    path.write_bytes(gzip.decompress((ENGINES / f"ViT-B-32-{name}.onnx.gz").read_bytes()))
    return path
