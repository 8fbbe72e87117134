"""Latency samples in files: what is written reads back, and what is no such document is refused by name."""

from __future__ import annotations

import json

import pytest

from harness.errors import BadSamples, StoreFailed
from harness.records.latency import Arm, Block, LatencySamples, ProcessBlocks
from harness.store.latency_samples import latency_samples_json, read_latency_samples, write_latency_samples

BLOCKS = (Block(arm=Arm.BASELINE, ms=(2.0, 2.5), sm_clock_mhz=1980.0, throttle=("sw_power_cap",)), Block(arm=Arm.CANDIDATE, ms=(3.0,)))
SAMPLES = LatencySamples(processes=(ProcessBlocks(blocks=BLOCKS),), about={"clock": "host"})


def read(document):
    return read_latency_samples(json.dumps(document).encode(), origin="samples.json")


def document(**changes):
    return {"schema": "enginegate/latency-samples/1", "unit": "ms", "processes": [{"blocks": [{"arm": "baseline", "ms": [1]}]}], **changes}


def test_what_was_written_reads_back(tmp_path):
    path = tmp_path / "samples.json"
    write_latency_samples(path, SAMPLES)
    assert read_latency_samples(path.read_bytes(), origin="samples.json") == SAMPLES


def test_clock_and_reasons_may_be_missing_and_unknown_keys_are_left_alone():
    seen = read(document(made_by="another tool", about={"batch": 8}))
    assert seen.processes[0].blocks == (Block(arm=Arm.BASELINE, ms=(1.0,)),)
    assert seen.about == {"batch": "8"}


def test_times_that_json_does_not_know_are_the_judges_to_refuse():
    seen = read_latency_samples(
        b'{"schema": "enginegate/latency-samples/1", "unit": "ms", "processes": [{"blocks": [{"arm": "candidate", "ms": [NaN]}]}]}',
        origin="x",
    )
    assert seen.processes[0].blocks[0].ms[0] != seen.processes[0].blocks[0].ms[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "samples.json: is no JSON"),
        (b"\xff", "samples.json: is no JSON"),
        (b"[" * 100_000, "samples.json: is no JSON"),
        (b"[]", "has schema None"),
        (json.dumps(document(schema="enginegate/latency-samples/2")).encode(), "latency-samples/2"),
        (json.dumps(document(unit="us")).encode(), "$.unit"),
        (json.dumps(document(processes=[{}])).encode(), "blocks"),
        (json.dumps(document(processes=[{"blocks": [{"arm": "treatment", "ms": [1]}]}])).encode(), "treatment"),
    ],
)
def test_what_is_no_such_document_is_refused_by_name(data, words):
    with pytest.raises(BadSamples) as refused:
        read_latency_samples(data, origin="samples.json")
    assert words in str(refused.value)


def test_a_time_that_json_cannot_hold_is_not_written():
    broken = LatencySamples(processes=(ProcessBlocks(blocks=(Block(arm=Arm.BASELINE, ms=(float("nan"),)),)),))
    with pytest.raises(StoreFailed):
        latency_samples_json(broken)
