"""The folder with a real TensorRT that these tests are about: the one that ENGINEGATE_TENSORRT_HOME names. Without it they say so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.backends import _tensorrt_library as library


@pytest.fixture(scope="session")
def home() -> Path:
    """Libraries in libs/, the Python module in python/."""
    if not os.environ.get(library.HOME):
        pytest.skip(f"{library.HOME} names no folder with TensorRT; tox -e trt106, trt1015 and trt112 run these tests where one is")
    if why_not := library.why_no_library():
        pytest.fail(why_not)
    found = library.home()
    assert found is not None
    return found


@pytest.fixture(scope="session")
def release(home: Path) -> str:
    """`10.6`, of the folder; what the environment expects must be there."""
    found = ".".join(library.version().split(".")[:2])
    expected = os.environ.get("ENGINEGATE_TENSORRT_RELEASE", found)
    assert found == expected, f"{home} holds TensorRT {library.version()} and this environment is for {expected}; name another folder"
    return found
