"""Each process of a run has a GPU of its own, or the run is refused before it starts."""

from __future__ import annotations

import re
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import UnknownName, UsageError
from harness.measure import gpu_choice
from harness.plugin.gpus import PLACE, settle_gpu
from harness.store.gpu_lock import gpu_held

A, B = "GPU-aaaa", "GPU-bbbb"


def _config(*, gpu: list[str] | None = None, workers: int | None = None, place: int | None = None) -> Any:
    given = {"workerinput": {PLACE: place}} if place is not None else {}
    return SimpleNamespace(option=SimpleNamespace(gpu=gpu, numprocesses=workers), **given)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The GPUs that processes were given, on a machine with two."""
    found: list[str] = []
    monkeypatch.setattr(gpu_choice, "gpus_here", lambda: (A, B))
    monkeypatch.setattr(gpu_choice, "use_gpu", found.append)
    return found


def test_a_named_gpu_is_used(used: list[str]) -> None:
    settle_gpu(_config(gpu=["1"]), ["tensorrt"])
    assert used == [B]


def test_without_a_name_cudas_own_first_is_left(used: list[str]) -> None:
    settle_gpu(_config(), ["tensorrt"])
    assert used == []


def test_workers_of_a_run_have_one_each(used: list[str]) -> None:
    for place in (0, 1):
        settle_gpu(_config(place=place), ["onnxruntime", "tensorrt"])
    assert used == [A, B]


def test_workers_share_those_that_are_named(used: list[str]) -> None:
    settle_gpu(_config(gpu=[B], place=0), ["tensorrt"])
    assert used == [B]
    with pytest.raises(UsageError, match="run with -n 1"):
        settle_gpu(_config(gpu=[B], place=1), ["tensorrt"])


def test_a_worker_that_replaces_a_crashed_one_has_its_place_and_so_its_gpu(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        conftest=f"""
        def pytest_configure(config):
            given = getattr(config, "workerinput", None)
            if given:
                with open({str(pytester.path / "told")!r}, "a") as file:
                    file.write(f"{{given['workerid']}} {{given['{PLACE}']}}\\n")
        """,
        test_it="""
        import os, pytest

        @pytest.mark.parametrize("number", range(4))
        def test_it(number):
            if number == 1:
                os._exit(1)
        """,
    )
    said = pytester.runpytest_subprocess("-n", "2").stdout.str()
    (crashed,) = re.findall(r"replacing crashed worker (gw\d)", said)
    places = dict(line.split() for line in (pytester.path / "told").read_text().splitlines())
    assert (places["gw0"], places["gw1"]) == ("0", "1")
    assert places["gw2"] == places[crashed]


def test_more_workers_than_gpus_are_refused_before_they_start(used: list[str]) -> None:
    with pytest.raises(UsageError, match="3 processes want a GPU each and 2 are here"):
        settle_gpu(_config(workers=3), ["tensorrt"])
    settle_gpu(_config(workers=2), ["tensorrt"])
    assert used == []  # the process that starts them uses none


def test_backends_that_use_no_gpu_ask_for_none(used: list[str]) -> None:
    settle_gpu(_config(workers=9), ["onnxruntime"])
    settle_gpu(_config(place=8), ["onnxruntime", "tensorrt_rtx"])
    assert used == []


def test_a_gpu_that_is_not_here_is_refused(used: list[str]) -> None:
    with pytest.raises(UnknownName, match="--gpu 7"):
        settle_gpu(_config(gpu=["7"]), ["tensorrt"])


def test_a_machine_without_a_gpu_leaves_the_words_to_its_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_choice, "gpus_here", lambda: ())
    settle_gpu(_config(workers=4), ["tensorrt"])
    settle_gpu(_config(place=3), ["tensorrt"])


def test_the_command_refuses_a_gpu_that_is_not_here(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing_of_ours(): pass")
    result = pytester.runpytest_subprocess("--backends", "tensorrt", "--gpu", "GPU-dead")
    result.stderr.fnmatch_lines(["*--gpu GPU-dead is none of the GPUs here*"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_a_second_run_waits_for_the_gpu_and_says_so(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.store.gpu_lock._PATIENCE_S", 0.05)
    notes: list[str] = []
    waits, done = threading.Event(), threading.Event()

    def note(text: str) -> None:
        notes.append(text)
        waits.set()

    def second_run() -> None:
        with gpu_held(A, tmp_path, note):
            done.set()

    with gpu_held(A, tmp_path, notes.append), gpu_held(B, tmp_path, notes.append):
        assert notes == []
        other = threading.Thread(target=second_run)
        other.start()
        assert waits.wait(10)
        assert not done.is_set()
    other.join(10)
    assert done.is_set()
    assert notes == [f"another run holds GPU {A}; waiting until it ends"]
