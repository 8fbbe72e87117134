"""Evaluation data of the caller: an image folder whose folder names are classes, or image-caption pairs as CSV.

Reading it looks at names and at the head of every picture, so that what cannot be used is told before anything is built. Pictures are
decoded one at a time and only when their rows are made.
"""

from __future__ import annotations

from pathlib import Path

from harness.errors import UnusableInputs
from harness.prepare.evaluation.files import PictureFiles
from harness.prepare.evaluation.folder import read_folder
from harness.prepare.evaluation.table import read_table

__all__ = ["PictureFiles", "read_evaluation"]


def read_evaluation(path: Path) -> PictureFiles:
    """The data at `path`: a folder of class folders, or a file ending in `.csv`.

    Raises:
        UnusableInputs: there is nothing at `path`, or something else than these two, or it cannot be used; see the two readers.
    """
    found = path.resolve()
    if found.is_dir():
        return read_folder(found)
    if found.is_file() and found.suffix.lower() == ".csv":
        return read_table(found)
    what = "is neither" if found.exists() else "does not exist"
    raise UnusableInputs(
        f"evaluation data {path} {what}; expected a folder whose folders are classes, or a .csv file with the columns image,caption; "
        "look at its path"
    )
