"""Finds TensorRT in the environment: the wheel, a system install, or a folder that `ENGINEGATE_TENSORRT_HOME` names."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from harness.backends.tensorrt_home import HOME, lacking_in, libraries_in
from harness.errors import MissingLibrary, MixedVersions
from harness.need import is_installed, need, version_of

_MODULES = ("tensorrt", "tensorrt_bindings")
_DISTRIBUTIONS = ("tensorrt", *(f"tensorrt-cu{major}" for major in (13, 12)), *(f"tensorrt-cu{major}-bindings" for major in (13, 12)))
# The plugins and the parser link to the first.
_ORDER = ("libnvinfer.so.*", "libnvinfer_plugin.so.*", "libnvonnxparser.so.*")


def home() -> Path | None:
    """The folder that the environment names, with `libs/` and `python/`; None where it names none."""
    named = os.environ.get(HOME)
    return Path(named).expanduser().absolute() if named else None


def version() -> str:
    """Version of the bindings, without importing them; `absent` where there are none."""
    if (folder := home()) is not None:
        found = _distribution(folder)
        return found.version if found else "absent"
    return next(filter(None, map(version_of, _DISTRIBUTIONS)), "absent")


def cuda_major() -> int | None:
    """The CUDA release that the bindings were made for, by their distribution's name; None where it does not say."""
    folder = home()
    names = [found.name] if folder and (found := _distribution(folder)) else [name for name in _DISTRIBUTIONS if version_of(name)]
    match = next(filter(None, (re.search(r"cu(\d+)", name) for name in names)), None)
    return int(match[1]) if match and folder else None


def why_no_library() -> str | None:
    """Why TensorRT cannot be imported here; None when it is there. Imports nothing."""
    folder = home()
    if folder is None:
        if any(map(is_installed, _MODULES)):
            return None
        return f"TensorRT is not installed; run: pip install 'enginegate[tensorrt]', or name a folder with libs/ and python/ in {HOME}"
    if lacking := lacking_in(folder):
        return f"{HOME} names {folder}, {lacking}"
    return _why_not_this_python(folder)


@lru_cache
def load() -> ModuleType:
    """TensorRT's module, once a process.

    Raises:
        MissingLibrary: there is none, or it does not load.
        MixedVersions: the module and the libraries are of two versions.
    """
    if why_not := why_no_library():
        raise MissingLibrary(why_not)
    folder = home()
    if folder is not None:
        _require_one_version(version(), _preloaded(libraries_in(folder)), str(folder))
        if str(folder / "python") not in sys.path:
            sys.path.insert(0, str(folder / "python"))
    module = need(next(filter(is_installed, _MODULES)), extra="tensorrt", to="build and run engines")
    _require_one_version(str(module.__version__), _loaded_version(module), str(module.__file__))
    return module


def same_release(one: str, other: str) -> bool:
    """Whether two versions are of one release: their first three numbers."""
    return _release(one) == _release(other)


def _release(text: str) -> list[str]:
    return re.findall(r"\d+", text)[:3]


def _preloaded(libs: Path) -> str | None:
    """Load the libraries in the order in which they need each other; the version that they say they are."""
    loaded = [_load(path) for pattern in _ORDER for path in sorted(libs.glob(pattern))[:1]]
    return _says(loaded[0])


def _load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise MissingLibrary(f"{path} does not load ({error}); expected TensorRT's own library; lay the folder out again") from error


def _loaded_version(module: ModuleType) -> str | None:
    """What the library behind the module says it is; None where this system does not tell which one that is."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    try:
        library = ctypes.CDLL(f"libnvinfer.so.{_release(str(module.__version__))[0]}", mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return None
    return _says(library)


def _says(library: ctypes.CDLL) -> str | None:
    """Since TensorRT 10 the number is major * 10000 + minor * 100 + patch."""
    if not hasattr(library, "getInferLibVersion"):
        return None
    number = int(library.getInferLibVersion())
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def _require_one_version(bindings: str, library: str | None, where: str) -> None:
    if library is not None and bindings != "absent" and not same_release(bindings, library):
        raise MixedVersions(
            f"the Python module of TensorRT is {bindings} and its library is {library} ({where}); expected one version; install both anew"
        )


def _why_not_this_python(folder: Path) -> str | None:
    found = _distribution(folder)
    tags = re.findall(r"^Tag: (\w+)-", (found.read_text("WHEEL") or "") if found else "", re.MULTILINE)
    here = f"cp{sys.version_info.major}{sys.version_info.minor}"
    if not tags or {here, "py3", "py2.py3"} & set(tags):
        return None
    return f"the TensorRT module in {folder} is for {', '.join(tags)} and this Python is {here}; run that Python"


def _distribution(folder: Path) -> importlib.metadata.Distribution | None:
    return next(_distributions(folder), None)


def _distributions(folder: Path) -> Iterator[importlib.metadata.Distribution]:
    for found in importlib.metadata.distributions(path=[str(folder / "python")]):
        if found.name.startswith("tensorrt"):
            yield found
