"""A build that aborts and an engine that ends its process cost their own verdicts, and the run goes on."""

from __future__ import annotations

import os

import pytest

from tests.helpers.gates import REPOSITORY, Gate

WORDS = "corrupted double-linked list"  # what the stand-in leaves in its log; to import it would put it into this process

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

SUITE = """
import pytest
from harness.records.verdict import Direction, Judgement, Status

@pytest.mark.accuracy
@pytest.mark.gates("rows", needs="run")
def test_rows(engine, observe, expect):
    rows = len(observe.embeddings(engine).rows)
    expect(Judgement(metric="rows", status=Status.PASS, observed=rows, bound=rows, unit="", direction=Direction.EQUAL, n=rows))
"""


@pytest.fixture(scope="module")
def result(warm_cache, tmp_path_factory):
    gate = Gate(tmp_path_factory.mktemp("isolation"), warm_cache)
    (gate.folder / "test_rows.py").write_text(SUITE)
    (gate.folder / "sitecustomize.py").write_text("import tests.helpers.ends_its_process\n")
    towers = ["--encoders", "small-clip/text", "--encoders", "small-clip/image"]
    paths = os.pathsep.join([str(gate.folder), str(REPOSITORY)])
    return gate("--backends", "fake", *towers, "--recipes", "fp16", "--recipes", "linear", "test_rows.py", PYTHONPATH=paths)


def _row(result, encoder, recipe):
    (found,) = [row for row in result.verdicts if (row["encoder"], row["recipe"]) == (encoder, recipe)]
    return found


def test_a_build_that_aborts_is_invalid_with_the_last_lines_of_its_log(result):
    for encoder in ("small-clip/image", "small-clip/text"):
        row = _row(result, encoder, "linear")
        assert row["status"] == "INVALID"
        assert "SIGABRT" in row["reason"]
        assert WORDS in row["reason"]


def test_an_engine_that_ends_its_process_is_invalid(result):
    row = _row(result, "small-clip/text", "fp16")
    assert row["status"] == "INVALID"
    assert "SIGSEGV" in row["reason"]


def test_the_run_goes_on_and_the_others_pass(result):
    assert _row(result, "small-clip/image", "fp16")["status"] == "PASS"
    assert len(result.verdicts) == 4
    assert result.code == 4
