"""Evaluation data on disk, small and of every kind that can go wrong."""

from __future__ import annotations

import csv
import io
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image


def draw(path: Path, colour: str = "red", size: tuple[int, int] = (8, 8)) -> Path:
    """A picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def class_folders(root: Path, classes: Mapping[str, Iterable[str]]) -> Path:
    """An image folder: names of pictures by class."""
    for name, pictures in classes.items():
        (root / name).mkdir(parents=True)
        for picture in pictures:
            draw(root / name / picture)
    return root


def table(folder: Path, rows: Iterable[Iterable[str]], *, header: Iterable[str] = ("image", "caption"), encoding: str = "utf-8") -> Path:
    """A CSV file of image-caption pairs; draws the pictures `a.png` to `d.png` beside it."""
    for index, name in enumerate("abcd"):
        draw(folder / f"{name}.png", f"#{index * 50:02x}8040")
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    file = folder / "pairs.csv"
    file.write_bytes(text.getvalue().encode(encoding))
    return file


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose head promises so many pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(b"\0" * 64)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
