"""An engine that is timed beside the approved one: what the line says, and when a pending record asks for approval."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.errors import AlteredBlob, UnreachableBlobs
from harness.pipeline import pacing
from harness.pipeline.commands import AS_USUAL
from harness.pipeline.latencies import Latencies
from harness.pipeline.pairing import Measured
from harness.pipeline.stored_engines import StoredEngines
from harness.records.baseline import BaselineMode
from harness.records.gate_lines import LATENCY_MS, Margin
from harness.records.latency import LatencySamples
from harness.records.spec import BuildOptions, Recipe
from harness.records.verdict import Status
from harness.store.blobs import FolderBlobs
from harness.store.latency_baselines import LatencyBaselines, pending_below
from harness.store.run_directory import RunDirectory
from tests.helpers.latency_records import approved, samples, timed
from tests.helpers.left_engines import fake_engine
from tests.pipeline.test_pacing import Maker
from tests.pipeline.test_stored_engines import PROTOCOL, Looks

LINE = Margin(metric=LATENCY_MS, relative=0.3, reason="for tests", processes=4, quartets=2)


class Place:
    """A folder with a store, a run, and one engine that is built there."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        (folder / "blobs").mkdir()
        content = folder / "engine.onnx"
        content.write_bytes(b"an engine")
        sha256 = hashlib.sha256(b"an engine").hexdigest()
        self.engine = replace(fake_engine(recipe=Recipe.LINEAR), path=content, sha256=sha256)
        self.records = LatencyBaselines(folder / "baselines")
        self.blobs = FolderBlobs(folder / "blobs")
        self.session = {}  # of the engine beside the approved one, and beside itself
        self.mode = BaselineMode.COMPARE
        monkeypatch.setattr(pacing, "measure", self._measure)

    def _measure(self, plan):
        def taken(gate):
            found = self.session.get("itself" if gate.endswith("beside-itself") else "beside", samples(processes=4))
            return replace(found, about={"clock": "host"})

        return Measured(samples={gate: taken(gate) for gate in plan.arms})

    def approve_another(self):
        """An engine of the same key that was approved before, and is lost."""
        stored = StoredEngines(Looks(), self.records, self.blobs)
        self.records.append(approved(timed("5" * 64, key=stored.key(self.engine.spec, PROTOCOL))))

    def line(self, engine=None):
        """The judgement of the gate."""
        engine = engine or self.engine
        maker = Maker()
        maker.engine = lambda _: engine
        looks = Looks()
        looks.maker = maker
        latencies = Latencies(
            looks,
            SimpleNamespace(margin_line=lambda *_: LINE),
            SimpleNamespace(mode=self.mode, is_approving=self.mode is not BaselineMode.COMPARE),
            StoredEngines(looks, self.records, self.blobs),
            RunDirectory.shared(self.folder / "run"),
            planned=[],
            processes=1,
            places=AS_USUAL,
        )
        return latencies.beside_approved(engine.spec).judgement

    @property
    def pending(self):
        return list(pending_below(self.folder / "run"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, monkeypatch)


def test_an_engine_that_nobody_approved_asks_for_approval_with_the_command(place):
    judged = place.line()
    assert judged.status is Status.NO_BASELINE
    assert "approve this one: enginegate baseline accept run/pending/tiny-image-linear-fake.pending.json --reason ..." in judged.reason
    assert len(place.pending) == 1


def test_an_engine_whose_predecessor_is_lost_asks_for_approval_without_it(place):
    place.approve_another()
    judged = place.line()
    assert judged.status is Status.NO_BASELINE
    assert "is gone: the blob store" in judged.reason
    shown = shlex.split(judged.reason.partition("approve this one: ")[2])
    assert shown[4:] == ["--without-lost-engine", "...", "--reason", "..."]


BROKEN = {
    "too few processes": (samples(processes=2), "2 processes; expected at least 3"),
    "no processes": (LatencySamples(processes=()), "0 processes; expected at least 3"),
    "negative times": (samples(processes=4, ms=-1.0), "a launch of -1.0 ms"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_invalid_session_asks_for_no_approval(place, name):
    place.session["beside"], words = BROKEN[name]
    judged = place.line()
    assert judged.status is Status.INVALID
    assert words in judged.reason
    assert "approve" not in judged.reason
    assert place.pending == []


def test_an_engine_that_its_own_session_cannot_tell_from_a_slower_one_asks_for_no_approval(place):
    place.session["beside"] = samples(processes=4, spread=0.5)
    judged = place.line()
    assert judged.status is Status.NO_BASELINE
    assert "no pending record is left: beside itself the engine is INCONCLUSIVE in this session" in judged.reason
    assert "approve this one" not in judged.reason
    assert place.pending == []


def test_a_run_that_updates_asks_for_no_approval_of_an_engine_that_was_not_itself_in_its_session(place):
    stored = StoredEngines(Looks(), place.records, place.blobs)
    place.records.append(approved(timed(place.blobs.keep(place.engine.path), key=stored.key(place.engine.spec, PROTOCOL))))
    place.mode = BaselineMode.UPDATE
    place.session["itself"] = samples(processes=2)
    judged = place.line()
    assert judged.status is Status.PASS
    assert "no pending record is left: beside itself the engine is INVALID in this session (2 processes" in judged.reason
    place.session["itself"] = samples(processes=4)
    assert "approve this one" in place.line().reason


def test_an_engine_of_a_timing_cache_asks_for_no_approval_and_says_why(place):
    spec = replace(place.engine.spec, options=BuildOptions(timing_cache="/tmp/times"))
    judged = place.line(replace(place.engine, spec=spec))
    assert judged.status is Status.NO_BASELINE
    assert "no pending record is left: it was built with --timing-cache" in judged.reason
    assert judged.reason.endswith("run again without it")
    assert place.pending == []


@pytest.mark.parametrize(
    "other",
    [
        {"machine_class": "NVIDIA-H100-80GB-HBM3-SM90"},
        {"machine": "another processor"},
        {"driver": "570.1"},
        {"backend_version": "0"},
        {"batch": "1/8/64"},
        {"rows": 8},
        {"protocol": "another"},
        {"weights": "seeded:1"},
        {"options": BuildOptions(optimization_level=5)},
    ],
)
def test_an_engine_of_another_gpu_driver_version_batch_or_protocol_is_no_baseline_and_never_green(place, other):
    stored = StoredEngines(Looks(), place.records, place.blobs)
    key = replace(stored.key(place.engine.spec, PROTOCOL), **other)
    place.records.append(approved(timed(place.blobs.keep(place.engine.path), key=key)))
    judged = place.line()
    (name,) = other
    assert judged.status is Status.NO_BASELINE
    assert f"no engine is approved under this key (there is one for {name} " in judged.reason


def test_an_altered_engine_or_a_store_that_is_away_is_raised_for_the_gate_to_be_invalid(place):
    stored = StoredEngines(Looks(), place.records, place.blobs)
    sha256 = place.blobs.keep(place.engine.path)
    place.records.append(approved(timed(sha256, key=stored.key(place.engine.spec, PROTOCOL))))
    place.blobs.fetch(sha256).write_bytes(b"altered")
    with pytest.raises(AlteredBlob, match="altered or cut short"):
        place.line()
    (place.folder / "blobs").rename(place.folder / "away")
    with pytest.raises(UnreachableBlobs, match="cannot be reached"):
        place.line()
