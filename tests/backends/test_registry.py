from __future__ import annotations

import subprocess
import sys

import pytest

from harness.backends.registry import backend_names, get_backend
from harness.errors import UnknownName


@pytest.mark.parametrize("name", backend_names())
def test_every_backend_is_made_under_its_own_name(name: str) -> None:
    assert get_backend(name).name == name


def test_an_unknown_backend_is_refused_with_names_that_come_close() -> None:
    with pytest.raises(UnknownName, match="did you mean tensorrt_rtx"):
        get_backend("tensorrt-rtx")


def test_making_every_backend_loads_no_vendor_library() -> None:
    heavy = {"torch", "onnx", "onnxruntime", "tensorrt_rtx_bindings", "tensorrt"}
    code = (
        "import sys; from harness.backends.registry import backend_names, get_backend\n"
        "for name in backend_names(): get_backend(name).version\n"
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
