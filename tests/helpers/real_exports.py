"""Real exports of ViT-B-32 without their weights: every node, shape and scale, and holes where the large constants were.

Each of `exports/*.onnx.gz` is an ONNX file of this project's own pipeline (seeded weights) whose constants of more than 1 KiB point
to one external file. Unpacked, that file is a hole as long as the largest of them, so a graph of 90 MB takes 10 kB here and none there.
Make one anew with `python -m tests.helpers.real_exports ENGINE.onnx tests/helpers/exports/NAME.onnx.gz`.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

EXPORTS = Path(__file__).parent / "exports"
_HOLE = "weights"
_KEPT_BYTES = 1024


def real_export(name: str, folder: Path) -> Path:
    """Unpack one export, such as `image-linear`, into `folder`."""
    import onnx

    path = folder / f"{name}.onnx"
    path.write_bytes(gzip.decompress((EXPORTS / f"vit-b-32-{name}.onnx.gz").read_bytes()))
    lengths = [
        int(entry.value)
        for tensor in onnx.load(str(path), load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "length"
    ]
    with (folder / _HOLE).open("ab") as hole:
        hole.truncate(max(hole.tell(), *lengths))
    return path


def _emptied(source: Path) -> bytes:
    import onnx

    model = onnx.load(str(source))
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > _KEPT_BYTES:
            length = len(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", _HOLE), ("offset", "0"), ("length", str(length))):
                tensor.external_data.add(key=key, value=value)
    return model.SerializeToString(deterministic=True)


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(gzip.compress(_emptied(Path(sys.argv[1])), compresslevel=9, mtime=0))
