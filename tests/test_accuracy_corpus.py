"""Faults of accuracy, end to end on emoji-clip and on a small encoder; and the report in docs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.records.machine import Machine
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.records.verdict import Direction, Judgement, Status
from tests.helpers.accuracy_bench import bench_of
from tests.helpers.accuracy_corpus import SETTINGS
from tests.helpers.accuracy_faults.all_faults import FAULTS, fault_of
from tests.helpers.accuracy_faults.fault import unbroken
from tests.helpers.accuracy_outcomes import CLEAN, IN_OTHER_WORDS, Header, Outcome, Sample, title_of
from tests.helpers.accuracy_page import page
from tests.helpers.gates import CONFIGS

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
ROWS = 48

# Faults, where, and what catches them: a metric of accuracy, or a check of the graph.
CAUGHT = [
    ("image", "linear", "activation scale times 0.25", "block 3 q, k, v", "centred_snr_db"),
    ("image", "linear", "activation scale times 4096", "block 3 fc", "O15"),
    ("image", "linear", "weight scale times 4, codes as they were", "block 3 v", "O8"),
    ("image", "linear", "calibrated on blank pictures, or empty captions", "white pictures", "centred_snr_db"),
    ("image", "fp16", "q and k swapped", "block 0", "cosine_min"),
    ("image", "fp16", "bias lost", "block 5 proj", "centred_snr_db"),
    ("image", "fp16", "pictures normalised by another mean and deviation", "0 and 1", "cosine_min"),
    ("image", "fp16", "one row of a batch corrupted", "row 4 is its neighbour's", "cosine_min"),
    ("image", "fp16", "FP16 overflow of a residual", "block 3 residual", "finite"),
    ("text", "fp16", "causal mask lost", "block 2", "cosine_min"),
    ("text", "fp16", "pooled at another token", "the token before", "cosine_min"),
    ("text", "fp16", "projection transposed", "the last projection", "cosine_min"),
]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Nothing of a test is left in the caller's cache; small configurations are known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENGINEGATE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("ENGINEGATE_MODEL_CONFIGS", str(CONFIGS))
        yield


@pytest.fixture(scope="module")
def bench():
    """Benches by tower and recipe, each made once."""
    made = {}

    def of(tower, recipe, arch="emoji-clip", weights="noto", rows=ROWS):
        key = (tower, recipe, arch)
        if key not in made:
            encoder = EncoderSpec.parse(f"{arch}/{tower}", weights=weights)
            made[key] = bench_of(EngineSpec(encoder=encoder, recipe=Recipe(recipe), backend="onnxruntime"), rows)
        return made[key]

    return of


@pytest.mark.parametrize(("tower", "recipe"), [("image", "linear"), ("image", "fp16"), ("text", "fp16")])
def test_a_clean_engine_fails_nothing(bench, tower, recipe):
    clean = bench(tower, recipe)

    outcome = clean.outcome(unbroken(clean.clean))

    assert (outcome.failed, outcome.checks) == ((), ())


@pytest.mark.parametrize(("tower", "recipe", "kind", "place", "by"), CAUGHT, ids=lambda value: str(value))
def test_a_fault_is_caught(bench, tower, recipe, kind, place, by):
    clean = bench(tower, recipe)

    outcome = clean.outcome(fault_of(kind).plant(clean.clean, place))

    assert by in (*outcome.failed, *outcome.checks)


def test_a_scale_too_large_shows_in_no_number_and_so_needs_its_check(bench):
    clean = bench("image", "linear")

    outcome = clean.outcome(fault_of("activation scale times 4096").plant(clean.clean, "block 3 fc"))

    assert (outcome.failed, outcome.checks) == ((), ("O15",))
    assert outcome.changes_nothing


def test_text_truncated_by_one_token_shows_on_captions_that_reach_so_far(bench):
    from tests.helpers.accuracy_corpus import _joined

    fault, short = fault_of("text truncated"), bench("text", "fp16")
    long = short.on(_joined(short.inputs))

    seen = {name: one.outcome(fault.plant(one.clean, "at 31 tokens")) for name, one in (("short", short), ("long", long))}

    assert seen["short"].changes_nothing
    assert "cosine_min" in seen["long"].failed


@pytest.mark.parametrize(("tower", "recipe"), [("image", "attention"), ("text", "linear"), ("text", "fp16")])
def test_every_fault_of_a_graph_makes_another_engine_that_runs(bench, tower, recipe):
    clean = bench(tower, recipe, "small-clip", "seeded:0", 4)
    tried = 0

    for fault in FAULTS:
        places = fault.places(clean.clean)
        for place in {*places[:1], *places[-1:]}:
            if "calibrated" in fault.kind or "gain" in fault.kind:
                continue  # the first makes an engine anew, the second changes nothing: untrained gains are one
            broken = fault.plant(clean.clean, place)
            same_graph = broken.model.SerializeToString() == unbroken(clean.clean).model.SerializeToString()
            same_feed = np.array_equal(broken.fed, clean.inputs.rows)
            assert not (same_graph and same_feed) or "row" in fault.kind or "truncated" in fault.kind, (fault.kind, place)
            assert clean.run(broken).rows.shape == clean.evidence.exact.rows.shape, (fault.kind, place)
            tried += 1

    assert tried > 25


def test_there_are_fifteen_kinds_of_fault_and_no_two_of_one_name():
    kinds = [fault.kind for fault in FAULTS]

    assert len(set(kinds)) == len(kinds) >= 15


# -- the report --------------------------------------------------------------------------------------------------------------------


def test_the_page_lists_every_kind_that_exists():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    shown = {line.strip("|").split("|")[0].strip() for line in lines if line.startswith("| ")}
    assert {fault.kind for fault in FAULTS} <= shown


@pytest.fixture(scope="module")
def lines():
    return PAGE.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def cells(lines):
    """Rows of the page's tables of faults."""
    kinds = {fault.kind for fault in FAULTS}
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in rows if row[0] in kinds and row[2].split()[0].isdigit()]


def test_the_page_shows_every_encoder_of_the_corpus(lines):
    shown = {line[3:].split(": ")[0] for line in lines if line.startswith("## ") and ": `" in line}

    assert shown == {title_of(setting.encoder) for setting in SETTINGS}


def test_the_page_names_each_fault_that_was_missed_and_counts_no_other(lines, cells):
    (summary,) = [line for line in lines if line.startswith("| this project, accuracy and graph |")]
    missed = sum(int(row[5].strip("*")) for row in cells if row[5] != "none")

    assert int(summary.split("|")[3]) == missed == sum(line.startswith("- missed: ") for line in lines)


def test_each_of_a_thousand_faults_is_caught(lines):
    (summary,) = [line for line in lines if line.startswith("| this project, accuracy and graph |")]
    caught, missed = (int(cell) for cell in summary.split("|")[2:4])

    assert caught > 1000
    assert missed == 0


def test_no_clean_engine_fails_on_what_gates_are_fed_with_in_two_hundred_draws_of_each(lines):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    engines = [row for row in rows if len(row) == 6 and row[2].isdigit() and "/" in row[0]]
    fresh = [row[2] for row in engines if row[1] == "64 inputs"]

    assert fresh == ["200"] * 6
    assert {row[5] for row in engines if not row[1].endswith(IN_OTHER_WORDS)} == {"0"}
    assert sum(int(row[5]) for row in engines) == sum(line.startswith("- failed: ") for line in lines)  # each that fails is named
    assert sum("leave a false-alarm rate of at most" in line for line in lines) == 6


def judgement(status=Status.PASS, metric="cosine_min"):
    return Judgement(metric=metric, status=status, observed=0.9, bound=0.975, unit="", direction=Direction.FLOOR, n=8)


HEADER = Header(
    command="python -m tests.helpers.accuracy_corpus --only emoji-clip",
    machine=Machine(
        system="Linux",
        architecture="x86_64",
        cpu_model="A Chip",
        cpu_count=16,
        memory_bytes=None,
        python="3.12.3",
        versions={"torch": "2.11"},
    ),
    gate_file="",
)


def test_the_page_says_how_it_was_made_and_where():
    text = page([], (), [HEADER], seconds=600)

    assert "Made by `python -m tests.helpers.accuracy_corpus --only emoji-clip`, which `tox run -e accuracy` runs" in text
    assert "in 10 minutes of CPU time, on 16 CPUs (A Chip), Python 3.12.3, torch 2.11." in text


def sample(kind, place, outcome):
    return Sample(
        engine=EngineSpec(encoder=EncoderSpec.parse("a/image", weights="w"), recipe=Recipe.LINEAR, backend="onnxruntime"),
        rows=8,
        kind=kind,
        place=place,
        outcome=outcome,
    )


def test_what_is_missed_what_changes_nothing_and_what_gains_are_told_apart():
    outcome = Outcome(judgements=(judgement(),), checks=(), snr_db=20.0, clean_snr_db=28.0)
    missed = sample("bias lost", "block 0 v", outcome)
    same = sample("bias lost", "block 1 v", replace(outcome, snr_db=27.95))
    better = sample("calibrated on noise", "random", replace(outcome, snr_db=28.2))
    clean = sample(CLEAN, "", replace(outcome, snr_db=28.0))

    text = page([clean, missed, same, better], (), [HEADER], seconds=1)

    assert "| bias lost | 2 | 0 | 0 | 1 | **1** |" in text
    assert "- missed: bias lost, `linear`, block 0 v: 20.0 dB, clean 28.0 dB" in text
    assert "| a/image, w | `linear` | bias lost | block 1 v | -0.05 to -0.05 |" in text
    assert "- a/image, w, `linear`: calibrated on noise, random: 28.2 dB, clean 28.0 dB" in text
    assert "| this project, accuracy and graph | 0 | 1 | 0 of 1 |" in text
    assert [one.is_missed for one in (missed, same, better, clean)] == [True, False, False, False]


def test_the_page_says_what_was_made_later_and_where():
    later = replace(HEADER, command="python -m tests.helpers.accuracy_corpus --draws inputs", machine=replace(HEADER.machine, cpu_count=2))

    text = page([], (), [HEADER, later], seconds=600)

    assert "Later, by `python -m tests.helpers.accuracy_corpus --draws inputs`, on 2 CPUs (A Chip)" in text


def test_a_metric_or_a_check_alone_is_enough_to_catch():
    undecided = judgement(Status.INCONCLUSIVE, "zero_shot_agreement")
    nothing = Outcome(judgements=(undecided,), checks=(), snr_db=20.0, clean_snr_db=28.0)

    assert not nothing.is_caught
    assert replace(nothing, judgements=(undecided, judgement(Status.FAIL))).is_caught
    assert replace(nothing, checks=("O15",)).is_caught
    assert replace(nothing, judgements=()).failed == ("build",)
