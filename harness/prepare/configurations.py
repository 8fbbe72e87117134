"""Which encoder configurations exist: open_clip's own, and those in a folder that `ENGINEGATE_MODEL_CONFIGS` names.

They are JSON files, so knowing and digesting them needs no import of open_clip.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.errors import MissingLibrary, UnknownName
from harness.prepare.vendor_log import import_quietly

VARIABLE = "ENGINEGATE_MODEL_CONFIGS"

_registered: set[Path] = set()


def known_archs() -> tuple[str, ...]:
    """Configuration names; if open_clip is loaded already, those registered with it too.

    Raises:
        MissingLibrary: open_clip is not installed.
        UnknownName: `ENGINEGATE_MODEL_CONFIGS` names no folder.
    """
    loaded = sys.modules.get("open_clip")
    registered: Iterable[str] = loaded.list_models() if loaded is not None else ()
    return tuple(sorted({path.stem for path in _files()}.union(registered)))


def require_arch(arch: str) -> None:
    """Refuse a configuration that does not exist.

    Raises:
        UnknownName: with the nearest names.
    """
    names = known_archs()
    if arch not in names:
        raise UnknownName(
            f"there is no configuration {arch!r}; {near(arch, names)}; open_clip.list_models() names its {len(names)}, "
            f"and {VARIABLE} may name a folder with more"
        )


def config_digest(arch: str) -> str:
    """sha256 of a configuration, so that an artifact made from another content under the same name is not taken for it."""
    return hashlib.sha256(_content(arch)).hexdigest()


def read_config(arch: str) -> dict[str, Any]:
    """A configuration as its file has it, without open_clip's defaults."""
    return json.loads(_content(arch))


def _content(arch: str) -> bytes:
    file = next((path for path in _files() if path.stem == arch), None)
    return file.read_bytes() if file else json.dumps(open_clip_library(to="read a configuration").get_model_config(arch)).encode()


def open_clip_library(*, to: str) -> ModuleType:
    """open_clip, with the additional configurations registered.

    Raises:
        MissingLibrary: it is not installed, or does not load.
    """
    library = import_quietly("open_clip", to=to)
    folder = _additional_folder()
    if folder is not None and folder not in _registered:
        library.add_model_config(folder)
        _registered.add(folder)
    return library


def near(name: str, names: Iterable[str]) -> str:
    """Names that come close, as the middle of an error."""
    close = difflib.get_close_matches(name, list(names), n=4, cutoff=0.5)
    return f"expected one such as {', '.join(close)}" if close else "nothing known comes near it"


def _files() -> list[Path]:
    """All configuration files, additional ones first, since open_clip lets them replace its own."""
    additional = _additional_folder()
    folders = [folder for folder in (additional, _shipped_folder()) if folder is not None]
    return [path for folder in folders for path in sorted(folder.glob("*.json"))]


def _shipped_folder() -> Path:
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise MissingLibrary("open_clip is not installed and is needed to know its configurations; run: pip install open-clip-torch")
    return Path(package.submodule_search_locations[0], "model_configs")


def _additional_folder() -> Path | None:
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    folder = Path(named).expanduser().absolute()
    if not folder.is_dir():
        raise UnknownName(f"{VARIABLE} names {folder}, which is no folder; expected one with open_clip configurations as JSON files")
    return folder
