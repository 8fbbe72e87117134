"""Image-caption pairs as CSV: columns `image,caption`, image paths relative to the file."""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from harness.errors import UnusableInputs
from harness.prepare.dataset import counted, shown
from harness.prepare.evaluation.files import Labelled, PictureFiles

COLUMNS = ("image", "caption")


def read_table(file: Path) -> PictureFiles:
    """Classes are the distinct captions, without a template; a repeated image has several captions.

    Captions that differ in case or blanks only are one caption, since most tokenizers cannot tell them apart; a repeated pair counts once.

    Raises:
        UnusableInputs: the file is no CSV in UTF-8 with a header of these two columns, a row lacks one of them, or names a picture outside
            the file's folder; fewer than two pictures or captions; a picture that cannot be used.
    """
    merged = _Merged()
    rows = [merged.one(row) for row in _rows(file)]
    return PictureFiles.of(rows, root=file.parent, name=file.name, notes=merged.notes(file.name))


@dataclass(slots=True)
class _Merged:
    """What was seen before, and what was taken for it."""

    spellings: dict[str, str] = field(default_factory=dict)
    seen: set[tuple[str, str]] = field(default_factory=set)
    other_spellings: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    def one(self, row: Labelled) -> Labelled:
        caption = self.spellings.setdefault(row.caption.casefold(), row.caption)
        if caption != row.caption:
            self.other_spellings.append(row.where)
        if (row.picture, caption) in self.seen:
            self.repeated.append(row.where)
        self.seen.add((row.picture, caption))
        return Labelled(picture=row.picture, caption=caption, where=row.where)

    def notes(self, name: str) -> tuple[str, ...]:
        said = (
            (self.other_spellings, "an earlier caption in another case, taken for it"),
            (self.repeated, "an earlier image and caption, left out"),
        )
        return tuple(f"{counted(len(lines), 'row')} of {name} with {words}, first {lines[0]}" for lines, words in said if lines)


def _rows(file: Path) -> Iterator[Labelled]:
    with _text_of(file) as stream:
        reader = csv.reader(stream, strict=True)
        try:
            columns = _columns(next(reader, []), file)
            for cells in reader:
                if cells:
                    yield _labelled(cells, columns, file, f"line {reader.line_num}")
        except csv.Error as error:
            raise UnusableInputs(
                f"{file}, line {reader.line_num}, is no CSV ({error}); expected cells between commas, with quotes around what holds a comma"
            ) from error


@contextmanager
def _text_of(file: Path) -> Generator[TextIO]:
    try:
        # utf-8-sig: a spreadsheet puts a byte order mark before the first column's name.
        with file.open(encoding="utf-8-sig", newline="") as stream:
            yield stream
    except UnicodeDecodeError as error:
        raise UnusableInputs(
            f"{file} is not UTF-8 (found the byte {error.object[error.start]:#04x}); expected CSV in UTF-8; save it so"
        ) from error
    except OSError as error:
        raise UnusableInputs(f"{file} cannot be read ({error.strerror or error}); look at its permissions") from error


def _columns(header: list[str], file: Path) -> dict[str, int]:
    found = [cell.strip() for cell in header]
    if sorted(found) != sorted(COLUMNS):
        what = f"the columns {shown(','.join(found))}" if found else "nothing"
        raise UnusableInputs(
            f"{file} begins with {what}; expected a first line with the two columns image,caption and no others, separated by a comma"
        )
    return {name: found.index(name) for name in COLUMNS}


def _labelled(cells: list[str], columns: dict[str, int], file: Path, where: str) -> Labelled:
    if len(cells) != len(columns):
        raise UnusableInputs(
            f"{file}, {where}, has {len(cells)} cells; expected two, image and caption; put quotes around a caption with commas"
        )
    picture, caption = (cells[columns[name]].strip() for name in COLUMNS)
    caption = " ".join(caption.split())
    for name, cell in (("image", picture), ("caption", caption)):
        if not cell:
            raise UnusableInputs(f"{file}, {where}, has no {name}; expected one in every row; fill it in or remove the row")
    inside = posixpath.normpath(picture)
    if inside.startswith(("/", "../")) or inside == ".." or "\0" in inside:
        raise UnusableInputs(
            f"{file}, {where}, names the picture {shown(picture)}, which is outside the file's folder; expected a path below it; "
            "put file and pictures into one folder"
        )
    return Labelled(picture=inside, caption=caption, where=where)
