"""An engine in a worker answers as one in this process does, and what breaks it breaks no other."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from harness.backends.fake import FakeBackend
from harness.contracts import Capability, SelfDescribed
from harness.errors import InvalidMeasurement, OutsideProfile, UnusableInputs, WorkerDied, WorkerHung
from harness.pipeline import isolating
from harness.pipeline.isolating import opened
from harness.workers.serving import array_from_plain, array_to_plain
from harness.workers.sessions import WorkerSession
from harness.workers.worker import Worker
from tests.helpers.left_engines import fake_engine

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

PICTURES = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float16)


@pytest.fixture
def worker():
    with Worker("candidate") as started:
        yield started


@pytest.fixture
def session(worker):
    return WorkerSession(worker, fake_engine(), timeout_s=30)


def test_it_gives_what_a_session_in_this_process_gives(session):
    feed = session.upload({"image": PICTURES})
    session.launch(feed)
    engine = fake_engine()
    with FakeBackend().open(engine) as here:
        own = here.upload({"image": PICTURES})
        here.launch(own)
        assert session.download(feed)["embedding"].tobytes() == here.download(own)["embedding"].tobytes()
    assert isinstance(session, SelfDescribed)
    assert [str(port) for port in session.ports] == ["image float16 [any, 3, 8, 8]"]


def test_feeds_share_nothing_and_are_forgotten_there(session, worker):
    feeds = [session.upload({"image": PICTURES * scale}) for scale in (1, 2)]
    for feed in feeds:
        session.launch(feed)
    first, second = (session.download(feed)["embedding"] for feed in feeds)
    assert not np.array_equal(first, second)
    number = feeds[0].number
    del feed, feeds
    session.upload({"image": PICTURES})
    with pytest.raises(Exception, match="KeyError"):
        worker.ask("launch", timeout_s=30, feed=number)


@pytest.mark.parametrize(
    ("rows", "kind"),
    [(np.zeros((99, 3, 8, 8), np.float16), OutsideProfile), (PICTURES.astype(np.float32), UnusableInputs)],
    ids=["too many", "another type"],
)
def test_what_it_refuses_keeps_its_name(session, rows, kind):
    with pytest.raises(kind):
        session.upload({"image": rows})


def test_what_was_never_launched_is_not_read(session):
    with pytest.raises(InvalidMeasurement, match="nothing was launched"):
        session.download(session.upload({"image": PICTURES}))


@pytest.mark.parametrize(
    "array",
    [
        PICTURES,
        PICTURES[..., ::2],
        PICTURES.transpose(0, 2, 3, 1),
        PICTURES[:0],
        np.broadcast_to(PICTURES[:1], (2, 3, 8, 8)),
        PICTURES[::-1],
    ],
    ids=["plain", "gaps", "transposed", "empty", "repeated", "backwards"],
)
def test_values_cross_with_the_gaps_between_them_where_they_have_some(array):
    crossed = array_from_plain(array_to_plain(array))
    assert np.array_equal(crossed, array)
    assert crossed.dtype == array.dtype
    assert crossed.strides == array.strides or min(array.strides) <= 0 or not array.size
    assert crossed.flags.writeable


# -- through the pipeline ----------------------------------------------------------------------------------------------------------


class Isolated:
    """The fake backend, said to poison its process."""

    def __init__(self, backend):
        self._backend = backend

    def __getattr__(self, name):
        return getattr(self._backend, name)

    @property
    def capabilities(self):
        return self._backend.capabilities | {Capability.NEEDS_ISOLATION}


@pytest.fixture
def isolated(monkeypatch):
    backend = Isolated(FakeBackend())
    monkeypatch.setattr(isolating, "backend_of", lambda name: backend)
    return backend


def test_a_backend_that_poisons_its_process_runs_in_another(isolated):
    with opened(fake_engine()) as session:
        assert isinstance(session, WorkerSession)
        session.launch(session.upload({"image": PICTURES}))


def test_a_backend_that_does_not_runs_here():
    with opened(fake_engine()) as session:
        assert not isinstance(session, WorkerSession)


def test_a_worker_that_dies_costs_its_engine_and_no_other(isolated):
    with opened(fake_engine()) as lost, opened(fake_engine()) as kept:
        pid = lost._worker.about["pid"]
        os.kill(pid, signal.SIGSEGV)
        with pytest.raises(WorkerDied, match="SIGSEGV"):
            lost.upload({"image": PICTURES})
        kept.launch(kept.upload({"image": PICTURES}))


def test_a_worker_that_hangs_is_ended_and_costs_its_engine_and_no_other(isolated):
    with opened(fake_engine()) as lost, opened(fake_engine()) as kept:
        os.kill(lost._worker.about["pid"], signal.SIGSTOP)
        lost._timeout_s = 0.5
        with pytest.raises(WorkerHung):
            lost.upload({"image": PICTURES})
        kept.launch(kept.upload({"image": PICTURES}))


# -- builds that say how far they are ----------------------------------------------------------------------------------------------


def _serve_a_build(channel, house, stderr):
    """A worker whose build says how far it is; execnet sends its source."""
    import os
    import time

    channel.send(["ready"])
    for number, verb, _ in channel:
        if verb == "hello":
            channel.send([number, "ok", {"pid": os.getpid()}])
        elif verb == "build":
            for percent in (0, 50, 100):
                channel.send([number, "so far", f"Building {percent} %"])
            channel.send([number, "ok", "built"])
        elif verb == "build_for_ever":
            while True:
                channel.send([number, "so far", "Building 1 %"])
                time.sleep(0.01)


class BuildingWorker(Worker):
    _begin = staticmethod(_serve_a_build)


def test_what_a_worker_says_before_it_answers_is_passed_on():
    said: list[str] = []
    with BuildingWorker("candidate") as worker:
        assert worker.ask("build", timeout_s=30, say=said.append) == "built"
        assert said == ["Building 0 %", "Building 50 %", "Building 100 %"]
        assert worker.ask("build", timeout_s=30) == "built"


def test_talking_does_not_keep_a_hung_worker_alive():
    with BuildingWorker("candidate") as worker, pytest.raises(WorkerHung, match=r"within 0\.5 s"):
        worker.ask("build_for_ever", timeout_s=0.5)
