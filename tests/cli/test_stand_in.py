"""A gate whose builder has FP8 kernels for a fixed batch only goes on with one, and everything that it leaves says so."""

from __future__ import annotations

import pytest

from tests.helpers.gates import Gate

NOTE = "built for batch 8/8/8 in place of 1/8/64"


@pytest.fixture(scope="module")
def result(warm_cache, tmp_path_factory):
    gate = Gate(tmp_path_factory.mktemp("fixed-batch"), warm_cache)
    (gate.folder / "test_bytes.py").write_text(
        "import pytest\n"
        "pytestmark = [pytest.mark.benchmark]\n"
        "@pytest.mark.gates('rows', needs='build')\n"
        "def test_rows(engine, observe, expect):\n"
        "    from harness.records.verdict import Direction, Judgement, Status\n"
        "    twin = observe.fp16_of(engine)\n"
        "    observe.embeddings(engine), observe.embeddings(twin)\n"
        "    assert engine.batch == twin.batch\n"
        "    rows = engine.batch.maximum\n"
        "    expect(Judgement(metric='rows', status=Status.PASS, observed=rows, bound=rows, unit='', direction=Direction.EQUAL, n=1))\n"
    )
    return gate("-p", "tests.helpers.fixed_batch_only", "--backends", "fake", "--recipes", "fp16", "--recipes", "linear", "test_bytes.py")


def test_the_verdict_is_of_the_engine_that_stands_in_and_says_so(result):
    assert result.code == 0, result.stdout + result.stderr
    linear = result.of("rows", "linear", "fake")
    assert linear["observed"] == 8
    assert NOTE in linear["reason"]
    assert "no FP8 kernels here for a batch that changes (1/8/64)" in linear["reason"]


def test_fp16_that_it_is_compared_with_has_the_same_batch(result):
    fp16 = result.of("rows", "fp16", "fake")
    assert fp16["observed"] == 8
    assert NOTE in fp16["reason"]


def test_the_run_record_has_one_engine_of_each_name_with_a_note(result):
    rows = {(row["recipe"], row["batch"]): row["notes"] for row in result.document["engines"]}
    assert set(rows) == {("fp16", "8/8/8"), ("linear", "8/8/8")}
    assert all(NOTE in notes[0] for notes in rows.values())


def test_it_is_said_on_the_terminal(result):
    assert NOTE in result.stdout + result.stderr
