"""A worker answers, or what went wrong with it has a name; and no process is left behind."""

from __future__ import annotations

import os
import signal
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import (
    ContextLost,
    MissingLibrary,
    OutsideProfile,
    UnknownEnvironment,
    WorkerBabbled,
    WorkerDied,
    WorkerFailed,
    WorkerHung,
)
from harness.workers.serving import engine_to_plain
from harness.workers.worker import Worker
from tests.helpers.left_engines import fake_engine

SOON_S = 30.0

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and symbolic links of POSIX")


def _serve_badly(channel, house, stderr):
    """What a broken worker does; execnet sends its source, so that it imports what it needs."""
    import os
    import sys
    import time

    descriptor = os.open(stderr, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    channel.send(["ready"])
    for number, verb, _ in channel:
        if verb == "hello":
            channel.send([number, "ok", {"pid": os.getpid()}])
        elif verb == "abort":
            os.write(2, b"vendor: corrupted double-linked list\n")
            os.abort()
        elif verb == "leave":
            os._exit(0)
        elif verb == "hang":
            os.write(2, b"vendor: waiting for a device\n")
            time.sleep(600)
        elif verb == "hang_deaf":
            import signal

            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        elif verb == "chatter":
            os.write(1, b"\x07garbage that is no message\n" * 1000)
            sys.stdout.write("a vendor's banner")
            sys.stdout.flush()
            channel.send([number, "ok", "still here"])
        elif verb == "garble":
            # As a library does that writes to whatever descriptor it finds: straight into the pipe to the parent.
            for other in range(3, 20):
                try:
                    os.write(other, b"\xff" * 4096)
                except OSError:
                    pass
            time.sleep(600)
        elif verb == "lose":
            channel.send([number, "error", "ContextLost", "CUDA answered cudaMemcpyAsync with cudaErrorIllegalAddress"])
        elif verb == "stale":
            channel.send([number - 1, "ok", "an answer to another question"])
        elif verb == "nonsense":
            channel.send({"no": "answer"})
        elif verb == "crash":
            raise RuntimeError("a fault of the worker itself")


class BrokenWorker(Worker):
    _begin = staticmethod(_serve_badly)


@pytest.fixture
def broken():
    with BrokenWorker("candidate") as worker:
        yield worker


def _serve_its_gpu(channel, house, stderr):
    """What CUDA would be shown, as the worker's first code finds it."""
    import os

    channel.send(["ready"])
    for number, _, _ in channel:
        channel.send([number, "ok", {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "home": os.environ.get("ENGINEGATE_TENSORRT_HOME")}])


class SightedWorker(Worker):
    _begin = staticmethod(_serve_its_gpu)


@pytest.mark.parametrize("asked", ["GPU-6a1e0f53-0000-0000-0000-000000000001", None])
def test_a_worker_is_shown_the_gpu_that_was_named_before_any_of_our_code_runs(asked, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with SightedWorker("builder", gpu=asked) as worker:
        assert worker.about["gpu"] == (asked or "0,1")


def test_a_worker_has_variables_of_its_own(tmp_path):
    with SightedWorker("candidate", gpu="GPU-1", environ={"ENGINEGATE_TENSORRT_HOME": str(tmp_path)}) as worker:
        assert worker.about == {"gpu": "GPU-1", "home": str(tmp_path)}


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _open(worker: Worker, *, rows: int = 1, backend: str = "fake"):
    engine = engine_to_plain(fake_engine(backend=backend))
    return worker.ask("open", timeout_s=SOON_S, key="k", engine=engine, rows=rows, seed=0, threads=None, graph=True)


def _fails(worker: Worker, verb: str, kind: type[WorkerFailed], *, timeout_s: float = SOON_S) -> str:
    with pytest.raises(kind) as caught:
        worker.ask(verb, timeout_s=timeout_s)
    assert caught.value.exit_code == 4
    worker.close()
    assert not _is_alive(worker.about["pid"])
    return str(caught.value)


def test_a_worker_whose_context_broke_is_gone_and_tells_every_later_request_why(broken):
    for verb in ("lose", "hello"):
        with pytest.raises(ContextLost, match=r"candidate.*cudaErrorIllegalAddress"):
            broken.ask(verb, timeout_s=SOON_S)
    broken.close()
    assert not _is_alive(broken.about["pid"])


def test_an_abort_is_named_with_the_vendors_last_words(broken):
    words = _fails(broken, "abort", WorkerDied)
    assert "candidate" in words
    assert "SIGABRT" in words
    assert "corrupted double-linked list" in words


def test_a_silent_exit_is_no_success(broken):
    assert "exit status 0" in _fails(broken, "leave", WorkerDied)


def test_a_worker_killed_from_outside_is_named(broken):
    os.kill(broken.about["pid"], signal.SIGKILL)
    assert "SIGKILL" in _fails(broken, "hello", WorkerDied)


@pytest.mark.parametrize("verb", ["hang", "hang_deaf"])
def test_a_worker_that_hangs_is_killed_when_its_time_is_over(broken, verb):
    started = time.monotonic()
    words = _fails(broken, verb, WorkerHung, timeout_s=0.3)
    assert "0.3 s" in words
    assert time.monotonic() - started < 20


def test_what_it_said_before_it_hung_is_told(broken):
    assert "waiting for a device" in _fails(broken, "hang", WorkerHung, timeout_s=0.5)


def test_what_it_prints_is_not_taken_for_an_answer(broken):
    assert broken.ask("chatter", timeout_s=SOON_S) == "still here"


def test_bytes_that_are_no_message_are_named_and_end_the_worker(broken):
    _fails(broken, "garble", WorkerBabbled)


@pytest.mark.parametrize("verb", ["nonsense", "stale"])
def test_an_answer_that_is_none_is_named(broken, verb):
    assert "expected an answer" in _fails(broken, verb, WorkerBabbled)


def test_a_fault_of_the_worker_itself_is_told(broken):
    assert "a fault of the worker itself" in _fails(broken, "crash", WorkerFailed)


def test_an_interrupted_parent_leaves_no_process():
    def interrupted():
        with BrokenWorker("baseline") as worker:
            seen.append(worker.about["pid"])
            raise KeyboardInterrupt

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not _is_alive(seen[0])


def test_an_engine_is_opened_warmed_and_timed_in_the_worker():
    with Worker("baseline") as worker:
        answer = worker.ask(
            "open", timeout_s=SOON_S, key="k", engine=engine_to_plain(fake_engine()), rows=2, seed=0, threads=None, graph=True
        )
        times = worker.ask("time", timeout_s=SOON_S, key="k", launches=3, cache="hot")
        assert worker.about["pid"] != os.getpid()
    assert answer["ports"] == ["image float16 [any, 3, 8, 8]"]
    assert answer["device_uuid"] is None
    assert len(times) == 3
    assert min(times) > 0


def test_an_error_in_the_worker_keeps_its_name_and_the_worker():
    with Worker("baseline") as worker:
        with pytest.raises(OutsideProfile, match="batch of 99"):
            _open(worker, rows=99)
        assert worker.ask("hello", timeout_s=SOON_S)["pid"] == worker.about["pid"]


def test_an_unexpected_error_in_the_worker_is_told_with_its_trace():
    with Worker("baseline") as worker, pytest.raises(WorkerFailed, match="KeyError") as caught:
        worker.ask("time", timeout_s=SOON_S, key="never opened", launches=1, cache="hot")
    assert "Traceback" in str(caught.value)


def test_another_environment_needs_numpy_alone(make_environment):
    python = make_environment("numpy")
    with Worker("candidate", python=python) as worker:
        answer = worker.ask(
            "open", timeout_s=SOON_S, key="k", engine=engine_to_plain(fake_engine()), rows=1, seed=0, threads=None, graph=True
        )
    assert answer["clock"] == "host"


def test_an_environment_without_numpy_is_told_what_it_lacks(make_environment):
    with pytest.raises(MissingLibrary, match="lacks numpy"):
        Worker("candidate", python=make_environment())


def test_an_environment_without_the_backends_library_is_told_so(make_environment):
    with Worker("candidate", python=make_environment("numpy")) as worker, pytest.raises(Exception, match="onnxruntime is not installed"):
        _open(worker, backend="onnxruntime")


def _program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [("echo hello; exit 0", "no Python"), ("exit 3", "no Python"), ("echo 3 8", "Python 3.8")],
    ids=["prints", "exits", "old"],
)
def test_a_program_that_is_no_fit_python_is_refused(tmp_path, text, words):
    with pytest.raises(UnknownEnvironment, match=words) as caught:
        Worker("baseline", python=_program(tmp_path / "python", text))
    assert caught.value.exit_code == 2


def test_a_python_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UnknownEnvironment, match="cannot be started"):
        Worker("baseline", python=tmp_path / "no" / "python")


def test_a_folder_with_blanks_in_its_name_is_no_obstacle(tmp_path):
    import sys

    python = _program(tmp_path / "my python", f'exec "{sys.executable}" "$@"')
    with Worker("baseline", python=python) as worker:
        assert worker.about["pid"]


def test_what_a_worker_imports_is_light():
    with Worker("baseline") as worker:
        loaded = worker.ask("loaded", timeout_s=SOON_S)
    assert {"torch", "pytest", "onnx", "scipy", "msgspec"}.isdisjoint(loaded)


def test_another_environment_with_the_backends_library_runs_a_real_engine(make_environment, tmp_path):
    import onnx
    from onnx import TensorProto, helper

    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["batch", 8]) for name in ("image", "embedding")]
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["embedding"])], "small", ports[:1], ports[1:])
    path = tmp_path / "engine.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    engine = engine_to_plain(replace(fake_engine(backend="onnxruntime"), path=path))
    python = make_environment("numpy", "onnxruntime")
    with Worker("candidate", python=python) as worker:
        answer = worker.ask("open", timeout_s=SOON_S, key="k", engine=engine, rows=2, seed=0, threads=1, graph=True)
        times = worker.ask("time", timeout_s=SOON_S, key="k", launches=3, cache="hot")
        loaded = worker.ask("loaded", timeout_s=SOON_S)
    assert answer["ports"] == ["image float16 [any, 8]"]
    assert len(times) == 3
    assert {"torch", "msgspec", "onnx"}.isdisjoint(loaded)
