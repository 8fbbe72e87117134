"""The one door to optional libraries.

A library that is absent becomes one named event with the command that mends it. A library that is present and fails while
it loads, because something it needs itself is missing, is not absent: its own error is kept as the cause.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from functools import cache
from types import ModuleType

from harness.errors import MissingLibrary


def need(module: str, *, extra: str | None, to: str) -> ModuleType:
    """Import `module`, or say who misses it.

    Args:
        module: import name, dotted names allowed.
        extra: the extra of this distribution that installs it; None when it is a plain dependency.
        to: what it is needed for, as the end of "needed to ...".
    Raises:
        MissingLibrary: it is not installed, or it is and cannot be loaded.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise MissingLibrary(f"{package} is not installed and is needed to {to}; {_remedy(package, extra)}") from error
        raise MissingLibrary(
            f"{package} is installed but does not load ({error}); it is needed to {to}; reinstall it, or {_remedy(package, extra)}"
        ) from error


def is_installed(module: str) -> bool:
    """Whether `module` can be found, without importing it."""
    return importlib.util.find_spec(module) is not None


@cache  # a process keeps what it imported; reading the metadata of a large distribution takes milliseconds each time
def version_of(distribution: str) -> str | None:
    """Installed version of a distribution, without importing it; None when it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _remedy(package: str, extra: str | None) -> str:
    wanted = f"enginegate[{extra}]" if extra else package
    return f"run: pip install '{wanted}'"
