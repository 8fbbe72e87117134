from __future__ import annotations

import os
import sys
import venv
from pathlib import Path

import pytest


def _site(name: str) -> Path:
    module = sys.modules.get(name) or __import__(name)
    return Path(module.__file__).parent.parent


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory):
    """A Python of its own that has the named libraries and nothing else: neither this project nor what it depends on."""

    def make(*libraries: str) -> Path:
        home = tmp_path_factory.mktemp("environment")
        venv.create(home, with_pip=False, symlinks=os.name != "nt")
        site = next(home.glob("lib/python*/site-packages"))
        for library in libraries:
            for entry in _site(library).glob(f"{library}*"):
                (site / entry.name).symlink_to(entry)
        return home / "bin" / "python"

    return make


@pytest.fixture(autouse=True)
def _no_path_from_outside(monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
