"""The engine to time a new one beside: found by exact key and digest, and told in words where it is not to be had."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.errors import AlteredBlob, MissingBlob, UnreachableBlobs, UnreadableBaseline
from harness.pipeline.pacing import gate_protocol
from harness.pipeline.stored_engines import StoredEngines, in_medians
from harness.records.baseline import BaselineKey
from harness.records.latency import Arm, Block, LatencySamples, ProcessBlocks
from harness.records.spec import Recipe
from harness.records.verdict import Status
from harness.store.blobs import FolderBlobs
from harness.store.latency_baselines import LatencyBaselines, read_pending
from harness.store.run_directory import RunDirectory
from tests.helpers.latency_records import approved, samples, timed
from tests.helpers.left_engines import fake_engine

PROTOCOL = gate_protocol(2)
CONTENT = b"the approved engine"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Looks:
    """A pipeline that knows keys alone."""

    def baseline_key(self, spec):
        return BaselineKey(
            machine_class="cpu-x86_64",
            arch=spec.encoder.arch,
            tower=spec.encoder.tower,
            recipe=spec.recipe,
            backend=spec.backend,
            backend_version="1",
            weights=spec.encoder.weights,
            batch=str(spec.batch),
        )


@pytest.fixture
def place(tmp_path):
    """A candidate, the engine that was approved before it, and where both are kept."""
    (tmp_path / "blobs").mkdir()
    engine = tmp_path / "candidate.onnx"
    engine.write_bytes(b"a new engine")
    records, blobs = LatencyBaselines(tmp_path / "baselines"), FolderBlobs(tmp_path / "blobs")
    stored = StoredEngines(Looks(), records, blobs)
    candidate = replace(fake_engine(recipe=Recipe.LINEAR), path=engine, sha256=hashlib.sha256(b"a new engine").hexdigest())
    key = stored.key(candidate.spec, PROTOCOL)
    old = tmp_path / "old.onnx"
    old.write_bytes(CONTENT)
    return SimpleNamespace(folder=tmp_path, records=records, blobs=blobs, stored=stored, candidate=candidate, key=key, old=old)


def approve(place, **changes):
    place.blobs.keep(place.old)
    place.records.append(approved(timed(SHA256, key=replace(place.key, **changes))))


def test_the_approved_engine_is_found_by_key_and_digest(place):
    approve(place)
    found = place.stored.beside(place.candidate, PROTOCOL)
    assert found.why_none == ""
    assert (found.engine.path.read_bytes(), found.engine.sha256, found.engine.spec) == (CONTENT, SHA256, place.candidate.spec)


def test_nothing_approved_is_told(place):
    found = place.stored.beside(place.candidate, PROTOCOL)
    assert (found.engine, found.why_none) == (None, "no engine is approved under this key")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"machine": "NVIDIA H100 (SM90)"}, "machine NVIDIA H100 (SM90) (here "),
        ({"driver": "570.1"}, "driver 570.1 (here None)"),
        ({"backend_version": "0"}, "backend_version 0 (here 1)"),
        ({"batch": "1/8/64"}, "batch 1/8/64 (here 1/2/4)"),
        ({"rows": 8}, "rows 8 (here 1)"),
        ({"protocol": "another"}, "protocol another (here block10ms"),
        ({"machine_class": "NVIDIA-H100-SM90"}, "machine_class NVIDIA-H100-SM90 (here cpu-x86_64)"),
    ],
)
def test_an_engine_of_another_gpu_driver_version_batch_or_protocol_is_named_and_not_used(place, change, words):
    approve(place, **change)
    found = place.stored.beside(place.candidate, PROTOCOL)
    assert found.engine is None
    assert f"no engine is approved under this key (there is one for {words}" in found.why_none


def test_a_blob_with_a_wrong_digest_is_never_timed(place):
    approve(place)
    place.blobs.fetch(SHA256).write_bytes(b"altered")
    with pytest.raises(AlteredBlob, match="altered or cut short"):
        place.stored.beside(place.candidate, PROTOCOL)


def test_a_store_that_cannot_be_reached_is_no_missing_baseline(place):
    approve(place)
    (place.folder / "blobs").rename(place.folder / "away")
    with pytest.raises(UnreachableBlobs, match="cannot be reached"):
        place.stored.beside(place.candidate, PROTOCOL)


def test_a_missing_blob_says_who_approved_what_is_gone(place):
    approve(place)
    place.blobs.fetch(SHA256).unlink()
    found = place.stored.beside(place.candidate, PROTOCOL)
    assert found.engine is None
    assert found.is_lost
    assert found.why_none.startswith("the engine that Ada approved on 2026-11-28 is gone: the blob store ")
    assert found.why_none.endswith("; it was built by: enginegate build tiny/image")


def test_a_missing_blob_is_put_back_by_a_build_that_gives_the_very_same_engine(place):
    approve(place)
    place.blobs.fetch(SHA256).unlink()
    again = replace(place.candidate, path=place.old, sha256=SHA256)
    found = place.stored.beside(again, PROTOCOL)
    assert (found.engine.path, found.is_lost) == (place.blobs.fetch(SHA256), False)


def test_without_a_store_an_approved_engine_cannot_be_had_and_is_not_called_lost(place):
    approve(place)
    found = StoredEngines(Looks(), place.records, None).beside(place.candidate, PROTOCOL)
    assert (found.engine, found.is_lost) == (None, False)
    assert found.why_none.startswith("the engine that Ada approved on 2026-11-28 cannot be had: no blob store is named")


def test_a_record_that_cannot_be_read_is_no_missing_baseline(place):
    approve(place)
    (place.folder / "baselines" / place.key.path).write_text("<<<<<<< HEAD\n")
    with pytest.raises(UnreadableBaseline, match="merge-conflict"):
        place.stored.beside(place.candidate, PROTOCOL)


def test_a_proposed_engine_is_kept_and_its_pending_record_names_it(place):
    run = RunDirectory.shared(place.folder / "run")
    path = place.stored.propose(place.candidate, samples(), PROTOCOL, 0.3, run)
    assert path == place.folder / "run" / "pending" / "tiny-image-linear-fake.pending.json"
    pending = read_pending(path).timed
    assert (pending.key, pending.engine.sha256, pending.itself.status) == (place.key, place.candidate.sha256, Status.PASS)
    assert pending.engine.build.startswith("enginegate build tiny/image --weights seeded:0 --recipe linear")
    assert place.blobs.fetch(pending.engine.sha256).read_bytes() == b"a new engine"


def test_nothing_is_proposed_without_a_store(place):
    stored = StoredEngines(Looks(), place.records, None)
    run = RunDirectory.shared(place.folder / "run")
    with pytest.raises(MissingBlob, match="no blob store is named"):
        stored.propose(place.candidate, samples(), PROTOCOL, 0.3, run)
    assert not (place.folder / "run" / "pending").exists()


def test_a_record_keeps_the_median_of_each_block_with_what_the_guard_saw():
    block = Block(arm=Arm.BASELINE, ms=(3.0, 1.0, 2.0), sm_clock_mhz=1980.0, throttle=("sw_power_cap",))
    (process,) = in_medians(LatencySamples(processes=(ProcessBlocks(blocks=(block,)),))).processes
    assert process.blocks == (replace(block, ms=(2.0,)),)
