"""Which encoder configurations exist: open_clip's own, this project's, and those in a folder that `ENGINEGATE_MODEL_CONFIGS` names.

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

from harness.errors import MissingLibrary, UnknownName, UnusableInputs
from harness.prepare.vendor_log import import_quietly

VARIABLE = "ENGINEGATE_MODEL_CONFIGS"
MODELS = Path(__file__).parents[1] / "data" / "models"  # configurations and weights that ship with the project

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
    """sha256 of a configuration and its merges, so that an artifact made from another content under the same name is not taken for it."""
    merges = tokenizer_settings(arch).get("bpe_path")
    return hashlib.sha256(_content(arch) + (Path(merges).read_bytes() if merges else b"")).hexdigest()


def read_config(arch: str) -> dict[str, Any]:
    """A configuration as its file has it, without open_clip's defaults."""
    return json.loads(_content(arch))


def tokenizer_settings(arch: str) -> dict[str, Any]:
    """What a configuration says of its tokenizer beside its kind.

    open_clip looks for a file of merges from the current folder on; here it lies beside the configuration that names it.

    Raises:
        UnusableInputs: there is no such file.
    """
    file = _file_of(arch)
    if file is None:
        return {}
    settings = dict(json.loads(file.read_text(encoding="utf-8")).get("text_cfg", {}).get("tokenizer_kwargs", {}))
    if "bpe_path" in settings:
        merges = file.parent / settings["bpe_path"]
        if not merges.is_file():
            raise UnusableInputs(f"{file} names the merges {settings['bpe_path']!r}; expected such a file beside it; copy it there")
        settings["bpe_path"] = str(merges)
    return settings


def open_clip_library(*, to: str) -> ModuleType:
    """open_clip, with the additional configurations registered.

    Raises:
        MissingLibrary: it is not installed, or does not load.
    """
    library = import_quietly("open_clip", to=to)
    for folder in reversed(_additional_folders()):  # of two with one name, open_clip keeps the last
        if folder not in _registered:
            library.add_model_config(folder)
            _registered.add(folder)
    return library


def near(name: str, names: Iterable[str]) -> str:
    """Names that come close, as the middle of an error."""
    close = difflib.get_close_matches(name, list(names), n=4, cutoff=0.5)
    return f"expected one such as {', '.join(close)}" if close else "nothing known comes near it"


def _files() -> list[Path]:
    """All configuration files, additional ones first, since open_clip lets them replace its own."""
    return [path for folder in (*_additional_folders(), _open_clips_folder()) for path in sorted(folder.glob("*.json"))]


def _file_of(arch: str) -> Path | None:
    return next((path for path in _files() if path.stem == arch), None)


def _content(arch: str) -> bytes:
    file = _file_of(arch)
    return file.read_bytes() if file else json.dumps(open_clip_library(to="read a configuration").get_model_config(arch)).encode()


def _open_clips_folder() -> Path:
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise MissingLibrary("open_clip is not installed and is needed to know its configurations; run: pip install open-clip-torch")
    return Path(package.submodule_search_locations[0], "model_configs")


def _additional_folders() -> list[Path]:
    """The caller's, and this project's own."""
    named = os.environ.get(VARIABLE)
    return [*([_callers_folder(named)] if named else []), MODELS]


def _callers_folder(named: str) -> Path:
    folder = Path(named).expanduser().absolute()
    if not folder.is_dir():
        raise UnknownName(f"{VARIABLE} names {folder}, which is no folder; expected one with open_clip configurations as JSON files")
    return folder
