"""An image folder: one folder a class, its pictures directly in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.errors import UnusableInputs
from harness.prepare.dataset import counted, shown
from harness.prepare.evaluation.files import Labelled, PictureFiles
from harness.prepare.evaluation.pictures import SUFFIXES

TEMPLATE = "a photo of a {}"
_LEFT_BY_FILE_MANAGERS = ("desktop.ini", "thumbs.db")


def read_folder(root: Path) -> PictureFiles:
    """Captions are `a photo of a {}` with a folder's name, underscores as blanks.

    Raises:
        UnusableInputs: there are no classes or only one, a class without pictures, something between them that is neither, or two
            folders that name one class; a picture that cannot be used.
    """
    return PictureFiles.of(list(_labelled(root)), root=root, name=root.name)


def _labelled(root: Path) -> Iterator[Labelled]:
    folders = _class_folders(root)
    for caption, folder in _by_caption(root, folders).items():
        for picture in _pictures(root, folder):
            yield Labelled(picture=f"{folder.name}/{picture.name}", caption=caption)


def _class_folders(root: Path) -> list[Path]:
    entries = _visible(root)
    stray = [entry.name for entry in entries if entry.is_file() and _is_picture(entry)]
    folders = [entry for entry in entries if entry.is_dir()]
    if stray and folders:
        raise UnusableInputs(
            f"{root} holds {counted(len(stray), 'picture')} beside its folders, first {stray[0]!r}; expected each in the folder of its "
            "class; move them"
        )
    if not folders:
        found = f"{counted(len(stray), 'picture')} and no folders" if stray else "no folders"
        raise UnusableInputs(
            f"{root} holds {found}; expected one folder a class, with its pictures in it, such as cat/1.jpg; or name a .csv file with the "
            "columns image,caption"
        )
    return folders


def _by_caption(root: Path, folders: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    names: dict[str, str] = {}
    for folder in folders:
        name = " ".join(folder.name.replace("_", " ").split())
        if not name:
            raise UnusableInputs(f"{root} holds the folder {folder.name!r}, which names no class; expected a name; rename it")
        other = names.setdefault(name.casefold(), folder.name)
        if other != folder.name:
            raise UnusableInputs(f"{root} holds the folders {other!r} and {folder.name!r}, which are one class {shown(name)}; join them")
        found[TEMPLATE.format(name)] = folder
    return found


def _pictures(root: Path, folder: Path) -> list[Path]:
    if not folder.resolve().is_relative_to(root):
        raise UnusableInputs(f"{folder} is a link that leaves {root}; expected all pictures below one folder; put them there")
    entries = _visible(folder)
    nested = [entry.name for entry in entries if entry.is_dir()]
    if nested:
        raise UnusableInputs(
            f"{folder} holds {counted(len(nested), 'folder')}, first {nested[0]!r}; expected a class with its pictures; if its folders "
            f"are the classes, name {folder}"
        )
    others = [entry.name for entry in entries if not _is_picture(entry)]
    if others:
        raise UnusableInputs(
            f"{folder} holds {counted(len(others), 'file')} of another kind, first {others[0]!r}; expected only {', '.join(SUFFIXES)}; "
            "convert them, or move them away"
        )
    if not entries:
        raise UnusableInputs(f"{folder} holds no pictures; expected at least one of its class; add some, or remove the folder")
    return entries


def _visible(folder: Path) -> list[Path]:
    try:
        found = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise UnusableInputs(f"{folder} cannot be read ({error.strerror or error}); look at its permissions") from error
    for entry in found:
        _require_utf8(entry)
    return [entry for entry in found if entry.name.lower() not in _LEFT_BY_FILE_MANAGERS]


def _require_utf8(entry: Path) -> None:
    try:
        entry.name.encode()
    except UnicodeEncodeError as error:
        raise UnusableInputs(f"{entry.parent} holds {entry.name!r}, a name that is not UTF-8; rename it") from error


def _is_picture(entry: Path) -> bool:
    return entry.suffix.lower() in SUFFIXES
