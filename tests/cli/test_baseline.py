"""The command `baseline`: people look at stored engines, and approve none that was not shown to be as fast."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import WorkerDied
from harness.measure.machine import this_machine
from harness.pipeline import deciding
from harness.pipeline.pacing import gate_protocol
from harness.pipeline.pairing import Measured
from harness.pipeline.stored_engines import machine_and_driver
from harness.records.latency_baseline import LatencyBaselineFile, PendingLatency
from harness.records.run import EngineRow, RunRecord
from harness.records.verdict import Direction, Status, Suite, Verdict
from harness.store.codec import from_json, to_json
from harness.store.latency_baselines import LatencyBaselines, digest_of
from tests.helpers.latency_records import other_key, samples, timed

GATE = """
schema = "enginegate/gate/1"
[defaults]
encoders = ["ViT-B-32/image"]
recipes = ["linear"]
backends = ["onnxruntime"]
targets = []
[[margin]]
metric = "latency_ms"
relative = 0.3
processes = 4
quartets = 2
reason = "for tests"
"""


class Place:
    """A folder with a gate file, a blob store, and runs that leave pending records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = other_key(machine=machine_and_driver("fake")[0], protocol=gate_protocol(1).id)
        self.records = LatencyBaselines(folder / "baselines")
        (folder / "gate.toml").write_text(GATE)
        (folder / "blobs").mkdir()

    def pending(self, name: str, *, key=None, **changes: float) -> Path:
        """An engine that a run proposed, whose content is its name."""
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        blob = self.folder / "blobs" / sha256[:2] / sha256
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(name.encode())
        path = self.folder / "runs" / name / "pending" / "tiny-image-linear-fake.pending.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_json(PendingLatency(timed=timed(sha256, key=key or self.key, **changes))))
        return path

    def accept(self, name: str, *options: str, reason: str = "a reason", **changes: float) -> int:
        return main(
            ["baseline", "accept", str(self.pending(name, **changes)), "--reason", reason, "--by", "Ada", "--blobs", "blobs", *options]
        )


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("ENGINEGATE_BLOBS", raising=False)
    return Place(tmp_path)


@pytest.fixture
def machine(monkeypatch):
    """What a machine would measure: the slow-down of each content beside the first one, 1 where nobody says."""
    levels: dict[str, float] = {}
    plans = []

    def measure(plan):
        plans.append(plan)
        level = {gate: [levels.get(engine.path.read_text(), 1.0) for engine in pair] for gate, pair in plan.arms.items()}
        return Measured(samples={gate: samples(new / old, processes=plan.processes) for gate, (old, new) in level.items()})

    monkeypatch.setattr(deciding, "measure", measure)
    measure.levels, measure.plans = levels, plans
    return measure


def test_the_first_engine_of_a_key_is_accepted_with_a_reason_and_without_timing(place, machine, capsys):
    assert place.accept("one", reason="the first release") == 0

    (record,) = place.records.chain(place.key)
    assert (record.approval.who, record.approval.reason, record.approval.previous) == ("Ada", "the first release", None)
    assert machine.plans == []
    assert "accepted: tiny/image linear fake 1: the first release" in capsys.readouterr().out
    assert list((place.folder / "runs").rglob("*.pending.json")) == []


def test_the_file_is_what_its_schema_says(place, machine):
    place.accept("one")
    path = place.folder / "baselines" / place.key.path
    assert from_json(LatencyBaselineFile, path.read_bytes(), origin="x").records == place.records.chain(place.key)
    schema = json.loads((Path(deciding.__file__).parents[1] / "data" / "schemas" / "latency-baselines.json").read_text())
    assert set(schema["$defs"]["LatencyBaseline"]["required"]) == {"timed", "approval"}


def test_an_engine_that_is_as_fast_follows_its_predecessor_in_the_chain(place, machine, capsys):
    place.accept("one")
    assert place.accept("two", reason="a new kernel") == 0

    first, second = place.records.chain(place.key)
    assert second.approval.previous == digest_of(first)
    assert set(second.approval.beside) == {"previous"}
    (plan,) = machine.plans
    assert (plan.processes, plan.rows, plan.threads) == (12, 1, 1)
    assert "PASS" in capsys.readouterr().out


def test_a_slower_engine_is_refused_with_its_ratio_and_nothing_is_written(place, machine, capsys):
    place.accept("one")
    machine.levels["slow"] = 1.5
    assert place.accept("slow") == 1

    out = capsys.readouterr().out
    assert "not accepted: tiny/image linear fake 1: FAIL beside the engine that was approved last: slower by 50" in out
    assert "ratio      1.5" in out
    assert len(place.records.chain(place.key)) == 1
    assert len(list((place.folder / "runs").rglob("*.pending.json"))) == 1


def test_slips_that_each_pass_do_not_pile_up_beyond_the_anchor(place, machine, capsys):
    machine.levels |= {"one": 1.0, "two": 1.2, "three": 1.44}
    assert place.accept("one", "--release", "1.0") == 0
    assert place.accept("two") == 0
    assert place.accept("three") == 1

    out = capsys.readouterr().out
    assert "FAIL beside the anchor, from which slow-downs add up: slower by 44" in out
    assert set(machine.plans[-1].arms) == {"previous", "anchor"}
    assert len(place.records.chain(place.key)) == 2


def test_a_release_is_a_new_anchor(place, machine):
    machine.levels |= {"one": 1.0, "two": 1.2, "three": 1.44}
    assert place.accept("one", "--release", "1.0") == 0
    assert place.accept("two", "--release", "1.1") == 0
    assert place.accept("three") == 0
    assert set(machine.plans[-1].arms) == {"previous"}


def test_accepting_is_refused_in_ci(place, machine, monkeypatch, capsys):
    monkeypatch.setenv("CI", "true")
    assert place.accept("one", "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "writes_refused"
    assert place.records.chains() == {}
    path = place.pending("one")
    assert main(["baseline", "reject", str(path), "--reason", "x"]) == 2
    assert main(["baseline", "trim", "nowhere"]) == 2


@pytest.mark.parametrize("arguments", [[], ["--reason", " "]])
def test_accepting_needs_a_reason(place, machine, arguments, capsys):
    assert main(["baseline", "accept", str(place.pending("one")), *arguments]) == 2
    assert "reason" in capsys.readouterr().err


def test_a_session_that_told_the_engine_from_itself_proves_nothing(place, machine, capsys):
    assert place.accept("one", spread=2.0) == 2
    assert "the session timed the engine beside itself, and that is INCONCLUSIVE" in capsys.readouterr().err


def h100_key(place):
    return replace(place.key, machine_class="NVIDIA-H100-80GB-HBM3-SM90", machine="NVIDIA H100 80GB HBM3 (SM90)", driver="580.1")


def test_the_first_engine_of_another_machine_is_accepted_here_since_its_file_holds_the_session_and_nothing_is_timed(place, machine, capsys):
    assert place.accept("one", key=h100_key(place)) == 0

    (record,) = place.records.chain(h100_key(place))
    assert (record.timed.itself.status, len(record.timed.blocks)) == (Status.PASS, 8)
    assert machine.plans == []
    words = "the first of its key: nothing was timed beside it; what stands for it is its session on NVIDIA H100 80GB HBM3 (SM90)"
    assert words in capsys.readouterr().out


def test_a_follower_of_another_machine_is_refused_here_since_it_has_to_be_timed_beside_its_predecessor_there(place, machine, capsys):
    assert place.accept("one", key=h100_key(place)) == 0
    assert place.accept("two", key=h100_key(place)) == 2
    assert "has machine_class" not in (words := capsys.readouterr().err)
    assert "the pending record has machine NVIDIA H100 80GB HBM3 (SM90) (here" in words
    assert "driver 580.1 (here None); accept it there" in words
    assert place.accept("two", "--without-lost-engine", "x", key=h100_key(place)) == 2
    assert len(place.records.chain(h100_key(place))) == 1


def test_a_first_engine_whose_file_holds_fewer_processes_than_a_gate_times_is_refused(place, machine, capsys):
    assert place.accept("one", key=h100_key(place), processes=3) == 2
    assert "in 3 processes; expected 4, as gate.toml asks of a gate" in capsys.readouterr().err
    assert place.records.chains() == {}


def test_what_a_pending_file_says_of_its_own_session_is_judged_again_from_its_blocks(place, machine, capsys):
    path = place.pending("one", spread=2.0)
    content = json.loads(path.read_text())
    content["timed"]["itself"]["status"] = "PASS"
    path.write_text(json.dumps(content))
    assert main(["baseline", "accept", str(path), "--reason", "x", "--blobs", "blobs"]) == 2
    assert "the engine beside itself, and that is INCONCLUSIVE" in capsys.readouterr().err


def test_a_store_that_cannot_be_reached_is_broken_and_nothing_is_approved(place, machine, capsys):
    assert place.accept("one", "--blobs", "away") == 4
    assert "cannot be reached" in capsys.readouterr().err
    assert place.records.chains() == {}


def test_an_altered_engine_is_broken_and_nothing_is_approved(place, machine, capsys):
    path = place.pending("one")
    (blob,) = [blob for blob in (place.folder / "blobs").rglob("*") if blob.is_file()]
    blob.write_bytes(b"altered")
    assert main(["baseline", "accept", str(path), "--reason", "x", "--blobs", "blobs"]) == 4
    assert "altered or cut short" in capsys.readouterr().err


def lose(place, name):
    """Somebody cleans the store."""
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    (place.folder / "blobs" / sha256[:2] / sha256).unlink()


def test_a_lost_predecessor_is_told_with_the_command_that_built_it_and_with_a_way_out(place, machine, capsys):
    place.accept("one")
    lose(place, "one")
    assert place.accept("two") == 4
    words = capsys.readouterr().err
    assert "the engine that was approved last, is lost: the blob store blobs has no " in words
    assert "it was built by: enginegate build tiny/image" in words
    assert '; or approve this one without, which the chain will show: --without-lost-engine "WHY"' in words
    assert len(place.records.chain(place.key)) == 1


def test_an_engine_that_follows_a_lost_one_is_approved_with_a_reason_that_stays_in_the_chain(place, machine, capsys):
    place.accept("one")
    lose(place, "one")
    capsys.readouterr()
    assert place.accept("two", "--without-lost-engine", "the share was wiped") == 0

    first, second = place.records.chain(place.key)
    assert (second.approval.previous, dict(second.approval.beside)) == (digest_of(first), {})
    assert second.approval.lost == {"previous": "the share was wiped"}
    assert machine.plans == []
    words = "not timed beside the engine approved before, which was lost: the share was wiped"
    assert words in (out := capsys.readouterr().out)
    assert "the first of its key" not in out
    assert main(["baseline", "show", "tiny/image"]) == 0
    assert words in capsys.readouterr().out


def test_an_engine_that_follows_a_lost_one_is_still_timed_beside_what_is_left(place, machine, capsys):
    machine.levels |= {"three": 1.5}
    place.accept("one", "--release", "1.0")
    place.accept("two")
    lose(place, "two")
    assert place.accept("three", "--without-lost-engine", "the share was wiped") == 1
    assert set(machine.plans[-1].arms) == {"anchor"}
    lose(place, "one")
    lose(place, "three")
    assert place.accept("four", "--without-lost-engine", "the share was wiped", "--release", "1.1") == 0
    assert set(place.records.chain(place.key)[-1].approval.lost) == {"previous", "anchor"}
    assert place.accept("five") == 0
    assert set(machine.plans[-1].arms) == {"previous"}


def test_a_lost_engine_that_is_not_lost_is_usage(place, machine, capsys):
    assert place.accept("one", "--without-lost-engine", "x") == 2
    assert place.accept("one") == 0
    assert place.accept("two", "--without-lost-engine", "x") == 2
    assert "every engine that this one is timed beside is there; leave it out" in capsys.readouterr().err
    assert place.accept("two", "--without-lost-engine", " ") == 2
    assert len(place.records.chain(place.key)) == 1


def test_an_altered_predecessor_is_no_lost_one(place, machine, capsys):
    place.accept("one")
    sha256 = hashlib.sha256(b"one").hexdigest()
    (place.folder / "blobs" / sha256[:2] / sha256).write_bytes(b"altered")
    assert place.accept("two", "--without-lost-engine", "x") == 4
    assert "it was altered or cut short: remove it" in capsys.readouterr().err


def test_no_store_named_is_told(place, machine, capsys):
    assert main(["baseline", "accept", str(place.pending("one")), "--reason", "x"]) == 4
    assert "no blob store is named" in capsys.readouterr().err


def test_a_worker_that_dies_approves_nothing(place, machine, monkeypatch, capsys):
    place.accept("one")

    def measure(plan):
        raise WorkerDied("the candidate worker was ended by SIGSEGV")

    monkeypatch.setattr(deciding, "measure", measure)
    assert place.accept("two") == 4
    assert "SIGSEGV" in capsys.readouterr().err
    assert len(place.records.chain(place.key)) == 1


def test_a_rejected_engine_keeps_the_reason_and_can_be_accepted_no_more(place, machine, capsys):
    path = place.pending("one")
    assert main(["baseline", "reject", str(path), "--reason", "too large", "--by", "Ada"]) == 0
    kept = path.with_name("tiny-image-linear-fake.rejected.json")
    assert (path.exists(), kept.exists()) == (False, True)
    assert "rejected: tiny/image linear fake 1: too large" in capsys.readouterr().out
    assert main(["baseline", "accept", str(kept), "--reason", "x", "--blobs", "blobs"]) == 2
    assert "was rejected by Ada" in capsys.readouterr().err


def test_the_list_has_the_latest_of_each_chain_and_what_is_pending(place, machine, capsys):
    assert main(["baseline", "list"]) == 0
    assert capsys.readouterr().out == "no latency baseline\n"
    place.accept("one")
    place.accept("two", reason="a new kernel")
    pending = place.pending("three")
    capsys.readouterr()
    assert main(["baseline", "list", "--blobs", "blobs"]) == 0
    out = capsys.readouterr().out
    assert "tiny/image linear fake 1, p50 2" in out
    assert "2 records, the last by Ada" in out
    assert "a new kernel" in out
    assert "present" in out
    assert f"pending: {pending.relative_to(place.folder)}" in out
    assert main(["baseline", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [len(chain) for chain in document["chains"]] == [2]
    assert document["chains"][0][-1]["blob"] == "no blob store is named"


def test_the_chain_is_shown_from_its_first_record(place, machine, capsys):
    place.accept("one", "--release", "1.0", reason="the first release")
    place.accept("two", reason="a new kernel")
    capsys.readouterr()
    assert main(["baseline", "show", "tiny/image", "linear"]) == 0
    out = capsys.readouterr().out
    first, second = place.records.chain(place.key)
    assert f"1. {digest_of(first)[:16]}  anchor, release 1.0" in out
    assert f"2. {digest_of(second)[:16]}  latest" in out
    assert f"follows {digest_of(first)[:16]}" in out
    assert "PASS beside the previous: ratio 1.0" in out


def test_an_encoder_without_a_record_is_told_with_those_that_have_one(place, machine, capsys):
    place.accept("one")
    assert main(["baseline", "show", "ViT-B-32/text"]) == 2
    assert "there are: tiny/image linear" in capsys.readouterr().err


def test_the_difference_shows_figures_that_moved(place, machine, capsys):
    place.accept("one")
    pending = place.pending("two", ms=2.5)
    capsys.readouterr()
    assert main(["baseline", "diff", str(pending)]) == 0
    out = capsys.readouterr().out
    assert "+25." in out
    assert "times of two sessions prove nothing" in out
    other = place.pending("three", key=other_key(machine=place.key.machine, protocol=place.key.protocol, driver="580.1"))
    assert main(["baseline", "diff", str(other)]) == 0
    assert "there is one for driver None (here 580.1)" in capsys.readouterr().out


class TestTrim:
    def run(self, place, name="a-run", *, recipe="linear", metric="latency_ms", driver=None) -> Path:
        """A run that timed one engine beside an approved one."""
        row = EngineRow(
            encoder="tiny/image",
            recipe=recipe,
            backend="fake",
            backend_version="1",
            target=None,
            batch=place.key.batch,
            weights=place.key.weights,
            weights_bytes=None,
            plan_bytes=None,
            activation_bytes=None,
            onnx_bytes=None,
            onnx_sha256=None,
            build_seconds=None,
            cache=None,
            layer_table=None,
        )
        judged = {
            "observed": None,
            "bound": None,
            "unit": "ms",
            "direction": Direction.CEILING,
            "n": 8,
            "status": Status.PASS,
            "reason": "",
        }
        verdict = Verdict(suite=Suite.BENCHMARK, encoder="tiny/image", recipe=recipe, backend="fake", target=None, metric=metric, **judged)
        now = "2026-11-28T12:00:00+00:00"
        machine = replace(this_machine(), architecture="x86_64", driver=driver)
        record = RunRecord(
            started=now, finished=now, command=("x",), exit_code=0, outcome=None, machine=machine, engines=(row,), verdicts=(verdict,)
        )
        folder = place.folder / name
        folder.mkdir()
        (folder / "run.json").write_bytes(to_json(record))
        return folder

    def test_what_a_run_asked_for_stays_and_the_rest_of_its_machine_goes(self, place, machine, capsys):
        stale, elsewhere = replace(place.key, recipe="attention"), replace(place.key, machine="another processor")
        for number, key in enumerate((place.key, stale, elsewhere)):
            assert place.accept(f"engine-{number}", key=key) == 0
        run = self.run(place)
        capsys.readouterr()

        assert main(["baseline", "trim", str(run), "--dry-run"]) == 0
        assert "would be removed: tiny/image attention fake 1" in capsys.readouterr().out
        assert len(place.records.chains()) == 3
        assert main(["baseline", "trim", str(run), "--json"]) == 0
        assert [key["recipe"] for key in json.loads(capsys.readouterr().out)["removed"]] == ["attention"]
        assert set(place.records.chains()) == {place.key, elsewhere}

    def test_a_run_that_could_not_build_what_it_judges_removes_nothing(self, place, machine, capsys):
        assert place.accept("engine-0", key=place.key) == 0
        run = self.run(place)
        record = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps({**record, "engines": []}))
        capsys.readouterr()

        assert main(["baseline", "trim", str(run)]) == 2
        assert "built no such engine; expected whole runs" in capsys.readouterr().err
        assert set(place.records.chains()) == {place.key}

    def test_several_runs_together_say_what_is_asked_for(self, place, machine):
        other = replace(place.key, recipe="attention")
        for number, key in enumerate((place.key, other)):
            assert place.accept(f"engine-{number}", key=key) == 0
        runs = [str(self.run(place, name, recipe=name)) for name in ("linear", "attention")]
        assert main(["baseline", "trim", *runs]) == 0
        assert len(place.records.chains()) == 2

    def test_a_run_that_timed_nothing_beside_an_approved_engine_proves_nothing(self, place, machine, capsys):
        place.accept("one")
        assert main(["baseline", "trim", str(self.run(place, metric="latency_ratio"))]) == 2
        assert "no verdict on latency_ms" in capsys.readouterr().err
        assert main(["baseline", "trim", str(place.folder)]) == 2
        assert len(place.records.chains()) == 1


def test_a_broken_chain_is_broken_for_every_command(place, machine, capsys):
    place.accept("one")
    path = place.folder / "baselines" / place.key.path
    path.write_text(path.read_text().replace('"previous": null', '"previous": "x"'))
    for arguments in (["list"], ["show", "tiny/image"], ["diff", str(place.pending("two"))]):
        assert main(["baseline", *arguments]) == 4
        assert "the chain is broken" in capsys.readouterr().err
