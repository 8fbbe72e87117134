"""The command `bench`: one verdict with how it came about, samples that give it again, and words for what cannot be compared."""

from __future__ import annotations

import json
import shlex

import pytest

from harness.cli import main
from harness.records.bench import BenchRecord
from harness.store.blobs import FolderBlobs
from harness.store.codec import from_plain
from tests.helpers.left_engines import leave

QUICK = ("--processes", "3", "--quartets", "1", "--same-process", "--delta", "1000000")


@pytest.fixture
def engines(tmp_path):
    return leave(tmp_path / "a"), leave(tmp_path / "b", content=b"another engine")


def test_two_engines_are_measured_and_the_samples_give_the_verdict_again(engines, tmp_path, capsys):
    save = tmp_path / "samples.json"
    assert main(["bench", *map(str, engines), *QUICK, "--save", str(save), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    record = from_plain(BenchRecord, document, origin="stdout")
    assert record.judgement.processes == 3
    assert not record.is_self_comparison
    assert main(["judge-latency", str(save), "--delta", "1000000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document["judgement"]


def test_the_text_says_the_ratio_how_it_was_measured_and_how_to_repeat_it(engines, capsys):
    assert main(["bench", *map(str, engines), *QUICK, "--seed", "5"]) == 0
    text = capsys.readouterr().out
    for words in ("PASS", "ratio", "minimum detectable effect", "p50", "guard", "clocks", "warm-up", "start"):
        assert words in text
    repeat = shlex.split(text.splitlines()[-1].removeprefix("repeat: "))
    assert repeat[:2] == ["enginegate", "bench"]
    assert repeat[repeat.index("--seed") + 1] == "5"
    assert main([*repeat[1:], "--json"]) == 0


def test_one_engine_beside_itself_says_what_could_be_seen_here(engines, capsys):
    assert main(["bench", str(engines[0]), *QUICK]) == 0
    assert "the engine beside itself: here and now a slow-down of" in capsys.readouterr().out


def test_an_engine_of_the_blob_store_is_named_by_its_digest(engines, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").mkdir()
    sha256 = FolderBlobs(tmp_path / "store").keep(engines[0])
    assert main(["bench", f"sha256:{sha256}", str(engines[1]), *QUICK, "--blobs", "store"]) == 0
    text = capsys.readouterr().out
    assert f"sha256 {sha256[:16]}" in text
    assert f"enginegate bench sha256:{sha256} {engines[1]}" in text.splitlines()[-1]
    assert text.splitlines()[-1].endswith("--blobs store")


def test_the_blob_store_of_a_named_gate_file_is_used(engines, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENGINEGATE_BLOBS", raising=False)
    (tmp_path / "strict.toml").write_text('schema = "enginegate/gate/1"\n[blobs]\nfolder = "store"\n')
    (tmp_path / "store").mkdir()
    sha256 = FolderBlobs(tmp_path / "store").keep(engines[0])
    assert main(["bench", f"sha256:{sha256}", str(engines[1]), *QUICK, "--gate-file", "strict.toml"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("--gate-file strict.toml")


@pytest.mark.parametrize(
    ("named", "code", "words"),
    [
        (["sha256:" + "0" * 64, "{engine}"], 2, "lies in a blob store, and none is named"),
        (["sha256:" + "0" * 64], 2, "names no more than a digest"),
        (["sha256:" + "0" * 64, "{engine}", "--blobs", "store"], 4, "has no 0000000000000000…"),
        (
            ["sha256:../../x", "{engine}", "--blobs", "store"],
            2,
            "sha256:../../x is no digest; expected sha256: and its 64 hexadecimal digits",
        ),
        (["sha256:nonsense", "{engine}", "--blobs", "store"], 2, "sha256:nonsense is no digest"),
        (["sha256:nonsense", "{engine}"], 2, "sha256:nonsense is no digest"),
        (["sha256:nonsense"], 2, "sha256:nonsense is no digest"),
        (["sha256:" + "0" * 64, "{engine}", "--blobs", "away"], 4, "cannot be reached"),
    ],
)
def test_a_digest_that_leads_nowhere_is_told(engines, tmp_path, monkeypatch, capsys, named, code, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENGINEGATE_BLOBS", raising=False)
    (tmp_path / "store").mkdir()
    assert main(["bench", *(name.format(engine=engines[0]) for name in named), *QUICK]) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("backend", "homes", "words"),
    [
        ("fake", ["old"], "--tensorrt-home has no use for backend fake"),
        ("tensorrt", ["old", "new"], "--tensorrt-home names new, which has no libs/libnvinfer.so.*"),
        ("tensorrt", ["old", "old", "old"], "--tensorrt-home was given 3 times"),
    ],
)
def test_a_folder_that_is_no_tensorrt_is_refused_before_anything_starts(tmp_path, monkeypatch, capsys, backend, homes, words):
    monkeypatch.chdir(tmp_path)
    for name in ("old/libs/libnvinfer.so.10", "old/python/tensorrt/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    engine = leave(tmp_path / "a", backend=backend)
    named = [word for home in homes for word in ("--tensorrt-home", home)]
    assert main(["bench", str(engine), *named, *QUICK]) == 2
    assert words in capsys.readouterr().err


def test_two_processes_are_too_few_for_a_verdict(engines, capsys):
    assert main(["bench", str(engines[0]), "--processes", "2", "--quartets", "1", "--same-process"]) == 4
    assert capsys.readouterr().out.startswith("INVALID")


def _refused(capsys, *arguments):
    assert main(["bench", *map(str, arguments), "--json"]) == 2
    return json.loads(capsys.readouterr().out)["error"]


def test_an_altered_engine_is_refused_before_it_is_run(engines, capsys):
    engines[1].write_bytes(b"altered")
    assert _refused(capsys, *engines)["code"] == "unusable_engine"


def test_an_engine_without_its_record_is_refused(engines, capsys):
    engines[0].with_suffix(".json").unlink()
    assert "has no record beside it" in _refused(capsys, engines[0])["message"]


def test_engines_of_two_encoders_are_not_compared(engines, tmp_path, capsys):
    other = leave(tmp_path / "c", encoder="tiny/text")
    assert "expected two engines of one encoder" in _refused(capsys, engines[0], other)["message"]


def test_a_batch_that_one_engine_does_not_take_is_refused(engines, tmp_path, capsys):
    narrow = leave(tmp_path / "c", batch="1/1/1")
    assert "a batch of 2 lies outside the profile 1/1/1" in _refused(capsys, engines[0], narrow)["message"]


def test_a_python_that_is_not_there_is_refused(engines, tmp_path, capsys):
    error = _refused(capsys, engines[0], "--python", tmp_path / "no-python")
    assert error["code"] == "unknown_environment"


def test_three_engines_are_too_many(engines, capsys):
    assert "expected one or two" in _refused(capsys, *engines, engines[0])["message"]


def test_samples_are_not_saved_over_a_folder(engines, tmp_path, capsys):
    assert "is a folder" in _refused(capsys, engines[0], "--save", tmp_path)["message"]


@pytest.mark.parametrize("arguments", [["--processes", "0"], ["--delta", "-1"], ["--batch", "many"], ["--alpha", "2"], ["--rest-ms", "-1"]])
def test_a_figure_that_no_measurement_can_have_is_refused(engines, arguments, capsys):
    _refused(capsys, engines[0], *arguments)
