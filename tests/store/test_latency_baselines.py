"""Latency records: one exact key, one unbroken chain, out of the way of the other baselines."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness.errors import UnreadableBaseline, UnusablePending
from harness.records.baseline import Baseline, BaselineKey
from harness.records.latency_baseline import PendingLatency, anchor_of
from harness.records.spec import BatchProfile, BuildOptions, Recipe
from harness.store.baselines import BaselineStore
from harness.store.codec import to_json
from harness.store.latency_baselines import LatencyBaselines, digest_of, pending_below, read_pending, settle_pending
from tests.helpers.latency_records import KEY, approved, other_key, timed


@pytest.fixture
def records(tmp_path):
    return LatencyBaselines(tmp_path)


def chain_of_two(records):
    first = approved(timed("a" * 64), release="1.0")
    second = approved(timed("b" * 64), digest_of(first))
    for record in (first, second):
        path = records.append(record)
    return first, second, path


def test_what_is_appended_reads_back_in_order(records, tmp_path):
    first, second, path = chain_of_two(records)
    assert records.chain(KEY) == (first, second)
    assert path == tmp_path / "cpu-x86_64" / "tiny" / "image" / "linear" / "fake-1.latency.json"


@pytest.mark.parametrize(
    "change",
    [
        {"machine": "another GPU"},
        {"driver": "580.1"},
        {"weights": "seeded:1"},
        {"batch": "1/8/64"},
        {"rows": 8},
        {"protocol": "protocol-2"},
    ],
)
def test_an_engine_of_any_other_key_is_not_found_and_the_difference_is_named(records, change):
    chain_of_two(records)
    other = other_key(**change)
    assert records.chain(other) == ()
    (near,) = records.nearest(other)
    (name, value), *_ = change.items()
    assert other.differences(near) == (f"{name} {getattr(KEY, name)} (here {value})",)


def test_it_is_known_whether_any_engine_was_approved_whatever_its_weights_release_and_batch(records):
    chain_of_two(records)
    other = replace(KEY.engine, encoder=replace(KEY.engine.encoder, weights="seeded:1"), batch=BatchProfile.parse("1/8/64"))

    assert records.has_any(KEY.machine_class, KEY.engine)
    assert records.has_any(KEY.machine_class, other)
    assert not records.has_any("aot-SM89", KEY.engine)
    assert not records.has_any(KEY.machine_class, replace(KEY.engine, recipe=Recipe.FP16))
    assert not records.has_any(KEY.machine_class, replace(KEY.engine, backend="onnxruntime"))


def test_an_engine_that_was_built_with_other_options_is_another_key(records):
    chain_of_two(records)
    other = other_key(options=BuildOptions(optimization_level=5))
    assert records.chain(other) == ()
    assert other.differences(KEY) == ("options none (here optimization_level=5)",)


def test_a_backend_of_another_version_has_another_file(records):
    chain_of_two(records)
    other = other_key(backend_version="2")
    assert records.chain(other) == ()
    assert records.nearest(other) == (KEY,)


def test_a_record_that_was_changed_breaks_the_chain(records):
    *_, path = chain_of_two(records)
    content = json.loads(path.read_text())
    content["records"][0]["approval"]["reason"] = "another reason"
    path.write_text(json.dumps(content))
    with pytest.raises(UnreadableBaseline, match=r"the chain is broken: records\[1\] follows .* was changed or taken out"):
        records.chain(KEY)


def test_a_record_that_was_taken_out_breaks_the_chain(records):
    *_, path = chain_of_two(records)
    content = json.loads(path.read_text())
    del content["records"][0]
    path.write_text(json.dumps(content))
    with pytest.raises(UnreadableBaseline, match="the chain is broken"):
        records.chain(KEY)


def test_a_chain_that_was_written_before_there_were_lost_engines_is_whole(records):
    *both, path = chain_of_two(records)
    content = json.loads(path.read_text())
    for record in content["records"]:
        assert record["approval"].pop("lost") == {}
    path.write_text(json.dumps(content))
    assert records.chain(KEY) == tuple(both)


def test_the_reason_for_which_a_lost_engine_was_passed_over_cannot_be_changed_unseen(records):
    first = approved(timed("a" * 64))
    second = approved(timed("b" * 64), digest_of(first))
    second = replace(second, approval=replace(second.approval, lost={"previous": "the share was wiped"}))
    for record in (first, second, approved(timed("c" * 64), digest_of(second))):
        path = records.append(record)
    path.write_text(path.read_text().replace("the share was wiped", "it was slower"))
    with pytest.raises(UnreadableBaseline, match="the chain is broken"):
        records.chain(KEY)


def test_a_record_that_follows_another_than_the_last_is_refused_and_the_file_left_alone(records):
    first, _, path = chain_of_two(records)
    before = path.read_bytes()
    with pytest.raises(UnreadableBaseline, match="another record was approved meanwhile"):
        records.append(approved(timed("c" * 64), digest_of(first)))
    assert path.read_bytes() == before


def test_an_engine_whose_digest_is_a_path_is_refused(records):
    *_, path = chain_of_two(records)
    path.write_text(path.read_text().replace("b" * 64, "../" * 10))
    with pytest.raises(UnreadableBaseline, match="expected 64 hexadecimal digits"):
        records.chain(KEY)


def test_keys_that_share_a_file_keep_chains_of_their_own_and_go_one_by_one(records):
    *_, path = chain_of_two(records)
    other = other_key(driver="580.1")
    records.append(approved(timed("d" * 64, key=other)))
    assert {key: len(chain) for key, chain in records.chains().items()} == {KEY: 2, other: 1}
    records.remove([KEY])
    assert list(records.chains()) == [other]
    records.remove([other])
    assert not path.exists()
    assert records.chains() == {}


def test_the_other_baselines_do_not_see_them(records, tmp_path):
    chain_of_two(records)
    store = BaselineStore(tmp_path)
    key = BaselineKey(
        machine_class="cpu-x86_64",
        arch="tiny",
        tower="image",
        recipe="linear",
        backend="fake",
        backend_version="1",
        weights="w",
        batch="1/1/1",
    )
    assert store.find(key) is None
    assert store.nearest(key) == ()
    store.write(Baseline(key=key, figures={"plan_bytes": 1}, onnx_sha256="0" * 64))
    assert len(records.chain(KEY)) == 2


def test_slow_downs_are_counted_from_the_last_release_and_before_one_from_the_first(records):
    first, second = approved(timed("a" * 64)), approved(timed("b" * 64))
    assert anchor_of(()) is None
    assert anchor_of((first, second)) is first
    released, newer = approved(timed("c" * 64), release="1.0"), approved(timed("d" * 64), release="2.0")
    assert anchor_of((first, released, second)) is released
    assert anchor_of((first, released, newer, second)) is newer


def test_a_pending_record_is_found_and_taken_away_once_it_is_decided(tmp_path):
    path = tmp_path / "runs" / "one" / "pending" / "tiny.pending.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(to_json(PendingLatency(timed=timed())))
    assert list(pending_below(tmp_path)) == [path]
    assert read_pending(path).timed == timed()
    assert settle_pending(path) is None
    assert list(pending_below(tmp_path)) == []


@pytest.mark.parametrize("content", [b"", b"{}", b'{"schema": "enginegate/run/1"}', b"no JSON"])
def test_what_is_no_pending_record_is_refused_in_words(tmp_path, content):
    path = tmp_path / "x.pending.json"
    path.write_bytes(content)
    with pytest.raises(UnusablePending, match=r"x\.pending\.json"):
        read_pending(path)


@pytest.mark.parametrize(
    ("part", "other", "words"),
    [
        ("blocks", [], "no timed block"),
        ("recipe", "nothing", "recipe 'nothing' is unknown"),
        ("machine_class", "../..", "expected plain names"),
    ],
)
def test_a_pending_record_of_nothing_or_of_another_place_is_refused_in_words(tmp_path, part, other, words):
    path = tmp_path / "x.pending.json"
    plain = json.loads(to_json(PendingLatency(timed=timed())))
    (plain["timed"] if part == "blocks" else plain["timed"]["key"])[part] = other
    path.write_text(json.dumps(plain))
    with pytest.raises(UnusablePending, match=words):
        read_pending(path)
