"""The real libraries on a machine without a driver: they load, and each way in which they fail there is an event with a name.

Everything of the vendor's runs in another process: TensorRT 10.6 aborts its own without a driver, and the runtime of all three releases is
a null pointer there, whose first use is a segmentation fault.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.backends import _tensorrt_library as library
from harness.backends._cuda import find_gpu
from harness.backends.tensorrt import TensorRtBackend
from harness.contracts import Action
from harness.errors import BuildFailed, MissingDevice, MissingLibrary, MixedVersions
from harness.records.artifacts import EngineArtifact
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, Recipe
from harness.workers.serving import engine_to_plain
from tests.helpers.fake_tensorrt import RELEASES, symbols
from tests.helpers.misled import MisledWorker

HOUSE = Path(__file__).parents[2]
SPEC = EngineSpec(
    encoder=EncoderSpec.parse("ViT-B-32/image"), recipe=Recipe.FP16, backend="tensorrt", batch=BatchProfile(minimum=1, optimum=1, maximum=1)
)
ABORTS = ("10.6",)  # the releases whose builder ends the process

pytestmark = pytest.mark.skipif(find_gpu().gpu is not None, reason="these tests are about machines without a GPU, and this one has one")


def _python(code: str, home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, library.HOME: str(home), "LD_LIBRARY_PATH": str(home / "libs"), "PYTHONPATH": str(HOUSE), **environ}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, errors="replace", env=env, check=False, timeout=120)


LOAD = """
from harness.backends import _tensorrt_library as library
from harness.errors import EnginegateError
try:
    print(library.load().__version__)
except EnginegateError as error:
    print(error.code, error)
"""


def test_the_module_loads_with_its_libraries(home: Path, release: str) -> None:
    assert _python(LOAD, home).stdout.strip() == library.version()


def test_the_module_loads_where_the_loader_was_told_nothing(home: Path, release: str) -> None:
    assert _python(LOAD, home, LD_LIBRARY_PATH="").stdout.strip() == library.version()


def test_the_stand_ins_of_other_tests_have_what_the_real_module_has(home: Path, release: str, tmp_path: Path) -> None:
    assert release in RELEASES
    out = tmp_path / "symbols.json"
    folders = os.pathsep.join([str(home / "python"), str(HOUSE)])
    script = str(HOUSE / "benchmarks" / "tensorrt_symbols.py")
    code = f"import runpy, sys; sys.argv = ['', {str(out)!r}]; runpy.run_path({script!r}, run_name='__main__')"
    ran = _python(code, home, PYTHONPATH=folders)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(out.read_text()) == symbols(release)


def test_without_a_driver_the_backend_says_so_and_loads_nothing(home: Path, tmp_path: Path) -> None:
    backend = TensorRtBackend()
    assert "no NVIDIA driver answers" in (backend.why_not(Action.BUILD, SPEC) or "")
    with pytest.raises(MissingDevice) as caught:
        backend.build(tmp_path / "encoder.onnx", SPEC, tmp_path)
    assert (caught.value.code, caught.value.exit_code) == ("missing_device", 4)
    assert not any(name.startswith("tensorrt") for name in sys.modules)


# -- libraries that do not belong together ------------------------------------------------------------------------------------------


@pytest.fixture
def other_home(home: Path, tmp_path: Path) -> Path:
    """The same files in a folder of its own, to be spoilt."""
    for part in ("libs", "python"):
        (tmp_path / part).mkdir()
        for entry in (home / part).iterdir():
            (tmp_path / part / entry.name).symlink_to(entry)
    return tmp_path


def test_a_module_of_another_release_than_its_libraries_is_named(other_home: Path) -> None:
    (facts,) = (other_home / "python").glob("*.dist-info")
    metadata = (facts / "METADATA").read_text()
    facts.unlink()
    facts.mkdir()
    (facts / "METADATA").write_text(metadata.replace(f"Version: {library.version()}", "Version: 99.1.0"))
    said = _python(LOAD, other_home).stdout
    assert said.startswith(MixedVersions.code)
    assert "99.1.0" in said
    assert ".".join(library.version().split(".")[:3]) in said


def test_a_file_that_is_no_library_is_named(other_home: Path) -> None:
    path = next((other_home / "libs").glob("libnvinfer.so.*"))
    path.unlink()
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    said = _python(LOAD, other_home, LD_LIBRARY_PATH="").stdout
    assert said.startswith(MissingLibrary.code)
    assert "does not load" in said


def test_a_folder_without_the_parser_is_named(other_home: Path) -> None:
    next((other_home / "libs").glob("libnvonnxparser.so.*")).unlink()
    assert _python(LOAD, other_home, LD_LIBRARY_PATH="").stdout.startswith(MissingLibrary.code)


# -- a driver that is gone once everything was looked at ----------------------------------------------------------------------------


def _asked(home: Path, verb: str, **arguments: Any) -> Any:
    with MisledWorker("candidate", library_path=home / "libs") as worker:
        return worker.ask(verb, timeout_s=120, **arguments)


def _engine(path: Path | None) -> dict[str, Any]:
    return engine_to_plain(
        EngineArtifact(
            spec=SPEC, source=None, backend_version=library.version(), path=path, sha256=None, plan_bytes=None, build_seconds=0.0
        )
    )


def test_a_build_whose_driver_is_gone_loses_its_engine_with_the_vendors_words(
    home: Path, release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.pipeline.isolating import built_apart

    monkeypatch.setattr("harness.workers.worker.Worker", MisledWorker)
    source = tmp_path / "encoder.onnx"
    source.write_bytes(b"")
    with pytest.raises(BuildFailed) as caught:
        built_apart(TensorRtBackend(), source, SPEC, tmp_path)
    assert ("SIGABRT" in str(caught.value)) is (release in ABORTS)
    assert "CUDA initialization failure with error: 35" in str(caught.value)
    assert caught.value.exit_code == 4


def test_an_engine_whose_driver_is_gone_is_not_opened_and_ends_no_process(home: Path, release: str, tmp_path: Path) -> None:
    plan = tmp_path / "engine.engine"
    plan.write_bytes(b"\0" * 4096)
    with pytest.raises(MissingDevice, match="CUDA initialization failure with error: 35"):
        _asked(home, "begin", engine=_engine(plan), threads=None)
