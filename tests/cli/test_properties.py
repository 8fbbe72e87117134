"""The property suite on real engines: sound ones pass, and each broken one fails where it must."""

import subprocess
import sys

import pytest

from harness.store.run_directory import read_run
from tests.helpers.broken_sessions import FAULTS
from tests.helpers.gates import REPOSITORY, Gate

SUITE = str(REPOSITORY / "suites" / "accuracy" / "test_properties.py")
BOTH = ("--encoders", "small-clip/image", "--encoders", "small-clip/text", "--backends", "onnxruntime")


OURS = """
import pytest
from hypothesis import strategies as st

from harness.judge.accuracy.properties import as_promised, stays_finite
from harness.pipeline.searching import Drawn

@pytest.mark.accuracy
@pytest.mark.gates("our_mirrored", "our_few", tower="image")
def test_mirrored_pictures_have_embeddings(engine, observe, expect, for_all):
    pictures = observe.inputs(engine).rows
    batches = st.lists(st.integers(0, 7), min_size=1, max_size=4).map(tuple)

    def judged(places):
        seen = observe.run(engine, pictures[list(places), ..., ::-1])
        return stays_finite("our_mirrored", seen, [f"picture {place}, mirrored" for place in places])

    def few(places):
        return as_promised("our_few", {"a batch": "more than two pictures" if len(places) > 2 else None})

    drawn = Drawn(shown=((0, 1, 2, 3),), strategy=batches, rows=4)
    expect(for_all(drawn, judged))
    expect(for_all(drawn, few))
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory, warm_cache):
    """Gates of sound engines, and the folder in which they ran."""
    gate = Gate(tmp_path_factory.mktemp("sound"), warm_cache)
    return gate, gate(SUITE, *BOTH, "--recipes", "fp16", "--recipes", "linear")


@pytest.fixture(scope="module")
def broken(sound, tmp_path_factory, warm_cache):
    """Verdicts of engines with one fault each, by fault and metric, and what was printed."""
    gate = Gate(tmp_path_factory.mktemp("broken"), warm_cache)
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.broken_sessions", SUITE, "--backends", "onnxruntime", "--recipes", "linear"],
        cwd=gate.folder,
        env=gate.environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs = {fault: read_run(gate.folder / fault) for fault in (*FAULTS, "dying")}
    return {fault: {row.metric: row for row in run.verdicts} for fault, run in runs.items()}, done.stdout


def test_sound_engines_have_every_property(sound):
    _, result = sound

    assert (result.code, result.red) == (0, {}), result.stdout
    assert {row["metric"] for row in result.verdicts if row["encoder"] == "small-clip/image"} == {
        "property_batch_order",
        "property_batch_size",
        "property_contiguity",
        "property_duplicates",
        "property_neighbours",
        "property_profile",
        "property_reload",
        "property_repeat",
        "property_special_values",
    }


def test_captions_have_properties_of_their_own_and_pictures_have_theirs(sound):
    metrics = {tower: {row["metric"] for row in sound[1].verdicts if row["encoder"].endswith(tower)} for tower in ("image", "text")}

    assert metrics["text"] - metrics["image"] == {"property_after_eot", "property_lengths"}
    assert metrics["image"] - metrics["text"] == {"property_special_values"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_engine_fails_the_properties_it_breaks(broken, fault):
    verdicts, _ = broken
    failed = {metric for metric, row in verdicts[fault].items() if row.status == "FAIL"}

    assert FAULTS[fault][2] <= failed, verdicts[fault]
    assert {row.status for row in verdicts[fault].values()} <= {"PASS", "FAIL"}


@pytest.mark.parametrize(
    ("fault", "unharmed"), [("overflow", 8), ("alone_otherwise", 8), ("truncated", 9), ("clamped", 8), ("reads_on", 9)]
)
def test_a_fault_of_one_kind_leaves_the_other_properties_alone(broken, fault, unharmed):
    assert sum(row.status == "PASS" for row in broken[0][fault].values()) == unharmed, broken[0][fault]


def test_a_failing_example_is_shrunk_and_told_in_words(broken):
    reason = broken[0]["spreading_nan"]["property_neighbours"].reason

    assert "falsified by evaluation batch 0 as [" in reason
    assert reason.count("filled with") == 1, reason  # the picture of NaN alone; the most telling crowd, tried first, has four


def test_a_clamped_batch_is_told_apart_from_a_refused_one(broken):
    assert "65 rows: raised InvalidMeasurement" in broken[0]["clamped"]["property_profile"].reason
    assert "65 rows: raised RuntimeError (shape mismatch)" in broken[0]["unnamed_refusal"]["property_profile"].reason
    assert "values of type float32: gave 1 rows" in broken[0]["widening"]["property_profile"].reason


def test_an_engine_that_breaks_while_it_is_tried_is_invalid_in_its_own_words(broken):
    row = broken[0]["dying"]["property_neighbours"]

    assert (row.status, row.reason) == ("INVALID", "the device was lost")
    assert "dying: exit code 4" in broken[1]


def test_a_batch_beyond_the_rows_that_gate_toml_allows_is_named(sound, tmp_path):
    gate, _ = sound
    bound = '\n[[bound]]\nmetric = "property_rows"\nceiling = 8\nreason = "a test"\n'
    (gate.folder / "narrow.toml").write_text((gate.folder / "gate.toml").read_text() + bound)

    result = gate(SUITE, *BOTH, "--recipes", "fp16", "--gate-file", "narrow.toml", "-k", "profile")

    assert {row["reason"] for row in result.verdicts} == {"64 rows were not tried: property_rows allows 8"}
    assert result.code == 0


def test_an_engine_that_gate_toml_allows_no_row_is_not_run_in_words(sound):
    gate, _ = sound
    bound = '\n[[bound]]\nmetric = "property_rows"\nrecipes = ["linear"]\nceiling = 0\nreason = "a test"\n'
    (gate.folder / "none.toml").write_text((gate.folder / "gate.toml").read_text() + bound)

    asked = ("--encoders", "small-clip/image", "--backends", "onnxruntime", "--recipes", "fp16", "--recipes", "linear")
    result = gate(SUITE, *asked, "--gate-file", "none.toml", "-k", "profile")

    (left_out,) = result.document["not_run"]
    assert (left_out["recipe"], left_out["gate"]) == ("linear", "property_profile")
    assert left_out["reason"] == "gate.toml allows properties no row of this engine (property_rows)"
    assert [row["recipe"] for row in result.verdicts] == ["fp16"]
    assert result.code == 0


def test_nightly_tries_more_examples_and_an_unknown_profile_is_refused(sound):
    gate, usual = sound
    asked = (SUITE, "--encoders", "small-clip/image", "--backends", "onnxruntime", "--recipes", "fp16", "-k", "place_of_the_batch")

    nightly = gate(*asked, "--hypothesis-profile", "enginegate-nightly")
    unknown = gate(*asked, "--hypothesis-profile", "nobodys")

    assert nightly.of("property_batch_order", "fp16")["n"] > 5 * usual.document["verdicts"][0]["n"]
    assert nightly.code == 0
    assert unknown.code != 0
    assert "nobodys" in unknown.stdout + unknown.stderr


def test_a_property_of_ones_own_is_judged_and_its_smallest_example_told(sound):
    gate, _ = sound
    (gate.folder / "test_ours.py").write_text(OURS)

    result = gate("test_ours.py", *BOTH, "--recipes", "fp16")

    assert {row["encoder"] for row in result.verdicts} == {"small-clip/image"}
    assert result.of("our_mirrored", "fp16")["status"] == "PASS"
    assert result.of("our_few", "fp16")["reason"] == "a batch: more than two pictures; falsified by (0, 0, 0)"
    assert result.code == 1
