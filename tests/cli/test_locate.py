"""Where accuracy is lost: in the words of a gate that fails, and on demand for a finished run."""

import json
import shutil
from dataclasses import replace

import pytest

from harness.records.localisation import Localisation
from harness.records.verdict import Status
from harness.store.codec import from_json, to_json
from harness.store.run_directory import read_run

ENGINE = "small-clip-image-linear-onnxruntime"
SENTENCE = "first suspect: block 0 (own SNR "
QUANTIZER = "(block 0: input of fc2), which alone recovers "


@pytest.fixture
def run(planted, tmp_path):
    """A run whose graph had an activation scale at a quarter, and the command in the folder where its cache is."""
    shutil.copytree(planted[2].folder / "scale", tmp_path / "scale")
    return tmp_path / "scale", planted[2]


def located(run, *, cache="scale-cache", as_json=False, weights=()):
    """What the command says, and its exit code."""
    folder, gate = run
    script = (
        "from pathlib import Path; from harness.cli.locating import locate\n"
        f"code = locate(Path({str(folder)!r}), weights={list(weights)!r}, cache_dir=Path({cache!r}), as_json={as_json})\n"
        "import sys; print(f'exit code {code}', file=sys.stdout)"
    )
    said, _, code = gate.python(script).rpartition("exit code ")
    return said, int(code)


class TestFailingGate:
    def test_its_verdict_names_the_block_and_the_quantizer(self, planted):
        red = [row for row in planted[0]["scale"].values() if row.suite == "accuracy" and row.status is Status.FAIL]

        assert any(SENTENCE in row.reason and QUANTIZER in row.reason for row in red), red
        assert all("first suspect: block 0" in row.reason for row in red)

    def test_the_message_of_the_failing_test_says_it(self, planted):
        assert SENTENCE in planted[1].replace("\n", " ").replace("    ", "")

    def test_a_record_and_a_picture_stay_with_the_run(self, planted):
        folder = planted[2].folder / "scale" / "locate"

        assert sorted(path.name for path in folder.iterdir()) == [f"{ENGINE}.json", f"{ENGINE}.svg"]
        assert from_json(Localisation, (folder / f"{ENGINE}.json").read_bytes(), origin="test").suspect == "block 0"

    def test_a_green_run_looks_for_nothing(self, approved):
        assert approved[1].code == 0
        assert not list(approved[0].folder.glob("runs/*/locate"))
        assert "localising" not in approved[1].stderr + approved[1].stdout


class TestFinishedRun:
    def test_it_is_told_in_a_table_and_left_in_the_run(self, run):
        shutil.rmtree(run[0] / "locate")

        said, code = located(run)

        assert code == 0
        assert SENTENCE in said
        assert QUANTIZER in said
        assert sorted(path.name for path in (run[0] / "locate").iterdir()) == [f"{ENGINE}.json", f"{ENGINE}.svg"]

    def test_json_holds_the_same(self, run):
        said, code = located(run, as_json=True)

        document = json.loads(said)
        assert (code, document["refused"]) == (0, {})
        assert [one["suspect"] for one in document["found"]] == ["block 0"]

    def test_another_graph_than_the_runs_is_not_looked_at(self, run, warm_cache):
        said, code = located(run, cache=str(warm_cache))

        assert code == 4
        assert f"INVALID {ENGINE.replace('small-clip-image', 'small-clip/image')}: the graph that can be had here has sha256" in said

    def test_weights_that_are_not_the_runs_are_not_looked_at(self, run):
        said, code = located(run, weights=["small-clip=seeded:1"])

        assert code == 4
        assert "weights seeded:1 are seeded:1; the run's were seeded:0" in said

    def test_a_file_of_weights_has_to_be_named(self, run):
        record = read_run(run[0])
        engines = tuple(replace(row, weights="sha256:00") for row in record.engines)
        (run[0] / "run.json").write_bytes(to_json(replace(record, engines=engines)))

        said, code = located(run)

        assert code == 4
        assert "add --weights small-clip=PATH" in said

    def test_without_a_failure_every_quantized_engine_is_looked_at(self, run):
        record = read_run(run[0])
        (run[0] / "run.json").write_bytes(to_json(replace(record, verdicts=())))

        document = json.loads(located(run, as_json=True)[0])

        assert len(document["found"]) == len([row for row in record.engines if row.recipe == "linear"])
