"""One picture file: whether it may be read, what it holds, and its digest."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from harness.errors import UnusableInputs

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Whatever a file is called, Pillow is to try these readers only: others start programs, such as Ghostscript for EPS.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 89_478_485  # where Pillow warns of a decompression bomb: 256 MiB of RGB
# Preprocessing makes the shorter side as long as the model's, so a strip of 10 by 100,000 would grow to half a thousand million pixels.
MOST_ASPECT = 100


def why_unusable(root: Path, name: str) -> str | None:
    """None for a picture below `root` whose head can be read; else the reason. Decodes nothing."""
    path = root / name
    try:
        if not path.exists():
            return "is not there"
        if not path.is_file():
            return "is no plain file"
        if not path.resolve().is_relative_to(root):
            return f"is a link that leaves {root}; put the picture below it"
        with path.open("rb") as stream, _opened(stream):
            return None
    except UnusableInputs as error:
        return str(error)
    except OSError as error:
        return f"cannot be opened ({error.strerror or error})"


def read_rgb(path: Path, name: str, sha256: str) -> Image:
    """The picture, decoded.

    Raises:
        UnusableInputs: it is damaged or too large, or is no longer the one with that sha256.
    """
    try:
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                raise UnusableInputs("has changed since the run began; expected data that stay as they are; run again")
            stream.seek(0)
            with _opened(stream) as picture:
                return picture.convert("RGB")
    except UnusableInputs as error:
        raise UnusableInputs(f"picture {name!r} {error}") from error
    except OSError as error:
        raise UnusableInputs(f"picture {name!r} cannot be opened ({error.strerror or error}); look at its path") from error


def sha256_of(path: Path, name: str) -> str:
    """sha256 of the file.

    Raises:
        UnusableInputs: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UnusableInputs(f"picture {name!r} cannot be opened ({error.strerror or error}); look at its path") from error


@contextmanager
def _opened(stream: BinaryIO) -> Generator[Image]:
    """The picture in `stream`, its size looked at. What Pillow thinks of it, here or while it decodes, is one error of ours."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        # Such as of a palette with transparency or damaged EXIF; a host that turns warnings into errors means its own code.
        warnings.simplefilter("ignore")
        try:
            with Image.open(stream, formats=_FORMATS) as picture:
                _require_sane_size(*picture.size)
                yield picture
        except UnusableInputs:
            raise
        except Image.DecompressionBombError as error:
            raise UnusableInputs(f"is too large to decode ({error}); {_EXPECTED_SIZE}") from error
        except Exception as error:  # Pillow's readers leave damage to whatever it makes them raise
            size = stream.seek(0, 2)
            words = "" if isinstance(error, UnidentifiedImageError) else f", {type(error).__name__}: {str(error)[:200]}"
            raise UnusableInputs(
                f"of {size:,} bytes is damaged or no picture{words}; expected {', '.join(_FORMATS)}; replace it"
            ) from error


_EXPECTED_SIZE = f"expected at most {MOST_PIXELS:,} pixels and sides of at most {MOST_ASPECT} to 1; scale or crop it"


def _require_sane_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise UnusableInputs(f"has {width} x {height} = {width * height:,} pixels; {_EXPECTED_SIZE}")
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise UnusableInputs(f"has sides of {width} x {height} pixels; {_EXPECTED_SIZE}")
