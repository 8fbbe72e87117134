"""Engines by digest: what is kept is found, and what is not what it says is never used."""

from __future__ import annotations

import hashlib

import pytest

from harness.errors import AlteredBlob, MissingBlob, UnreachableBlobs
from harness.store.blobs import FolderBlobs, blob_store

CONTENT = b"an engine"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / "engine.onnx"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def blobs(tmp_path):
    (tmp_path / "blobs").mkdir()
    return FolderBlobs(tmp_path / "blobs")


def test_what_is_kept_is_found_by_its_digest(blobs, engine):
    assert not blobs.has(SHA256)
    assert blobs.keep(engine) == SHA256
    engine.unlink()
    assert blobs.has(SHA256)
    assert blobs.fetch(SHA256).read_bytes() == CONTENT


def test_keeping_it_again_copies_nothing(blobs, engine):
    blobs.keep(engine)
    before = blobs.fetch(SHA256).stat().st_mtime_ns
    blobs.keep(engine)
    assert blobs.fetch(SHA256).stat().st_mtime_ns == before


def test_an_altered_blob_is_refused_and_keeping_the_engine_again_mends_it(blobs, engine):
    blobs.keep(engine)
    blobs.fetch(SHA256).write_bytes(CONTENT + b"!")
    with pytest.raises(AlteredBlob, match="altered or cut short"):
        blobs.fetch(SHA256)
    blobs.keep(engine)
    assert blobs.fetch(SHA256).read_bytes() == CONTENT


def test_a_blob_that_is_not_there_is_said_in_words(blobs):
    with pytest.raises(MissingBlob, match=f"has no {SHA256[:16]}…; put it back as {SHA256[:2]}/{SHA256}, or build"):
        blobs.fetch(SHA256)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", SHA256[:-1], SHA256.upper()])
def test_what_is_no_digest_is_never_a_path(blobs, name):
    with pytest.raises(MissingBlob, match="is no sha256"):
        blobs.fetch(name)


def test_a_store_that_is_not_mounted_is_unreachable_and_never_made(tmp_path, engine):
    away = FolderBlobs(tmp_path / "share")
    for verb in (lambda: away.has(SHA256), lambda: away.fetch(SHA256), lambda: away.keep(engine)):
        with pytest.raises(UnreachableBlobs, match="cannot be reached: there is no such folder"):
            verb()
    assert not (tmp_path / "share").exists()


def test_a_store_that_takes_nothing_is_said_in_words(tmp_path, engine):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / SHA256[:2]).write_text("a file where a folder should be")
    with pytest.raises(UnreachableBlobs, match=r"takes no engine\.onnx"):
        FolderBlobs(tmp_path / "blobs").keep(engine)


def test_the_option_is_asked_first_then_the_environment_then_the_gate_file(tmp_path, monkeypatch):
    monkeypatch.delenv("ENGINEGATE_BLOBS", raising=False)
    assert blob_store(None, None) is None
    assert str(tmp_path / "c") in str(blob_store(None, tmp_path / "c"))
    monkeypatch.setenv("ENGINEGATE_BLOBS", str(tmp_path / "b"))
    assert str(tmp_path / "b") in str(blob_store(None, tmp_path / "c"))
    assert str(tmp_path / "a") in str(blob_store(str(tmp_path / "a"), tmp_path / "c"))
