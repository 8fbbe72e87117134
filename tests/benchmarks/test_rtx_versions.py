"""The script behind `tox run -m rtx-versions`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.rtx_versions import main
from tests.helpers.graphs import layer_table
from tests.helpers.runs import ENGINE, GRAPH, RunFolder


@pytest.fixture
def releases(tmp_path, monkeypatch):
    """Three runs, oldest first; the newest has one GEMM in half precision and one lone quantization."""
    monkeypatch.chdir(tmp_path)
    worse = RunFolder(table=layer_table(GRAPH, half=frozenset({"b1/fc"}), alone=frozenset({"b0/fc/input_q"})))
    folders = ((RunFolder(), "1.5"), (RunFolder(), "1.6"), (worse, "1.7"))
    return [str(folder.write(tmp_path / version, replace(ENGINE, backend_version=version))) for folder, version in folders]


def test_the_table_has_a_row_a_release_and_the_exit_code_is_the_worst(releases, capsys):
    assert main(["compare", "table.md", *releases]) == 1
    printed, written = capsys.readouterr().out, Path("table.md").read_text()
    rows = [line.split(" | ") for line in written.splitlines() if line.startswith("| ViT-B-32/image linear SM89")]
    assert all(" | ".join(row) in printed for row in rows)

    assert [row[1] for row in rows] == ["1.5", "1.6", "1.7"]
    assert [row[3:6] for row in rows] == [["1,000", "2,000", "500"]] * 3
    assert [row[6] for row in rows] == ["3 of 3"] * 3
    assert [row[7:] for row in rows] == [["18 of 26", "0 |"], ["18 of 26", "0 |"], ["17 of 26", "1 |"]]


def test_each_release_is_held_to_the_one_before(releases, capsys):
    assert main(["compare", "table.md", *releases[:2]]) == 0
    assert main(["compare", "table.md", *releases]) == 1
    shown = capsys.readouterr().out

    assert shown.count("PASS: B is not worse than A") == 2
    assert "worse    b1/fc type: fp8 -> mixed" in shown


def test_what_is_worse_in_a_release_is_in_its_own_table(releases):
    main(["compare", "table.md", *releases])
    _, same, worse = Path("table.md").read_text().split("### ")

    assert same.startswith("1.5 to 1.6: PASS")
    assert "Nothing is better or worse." in same
    assert worse.startswith("1.6 to 1.7: FAIL")
    assert worse.count("| worse |") == 2


def test_a_run_that_is_missing_is_one_line_and_2(releases, capsys):
    assert main(["compare", "table.md", releases[0], "nowhere"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["gate"], ["compare"], ["compare", "one", "two"], ["other", "a", "b", "c"]])
def test_other_words_are_2(arguments, capsys):
    assert main(arguments) == 2
    assert "expected gate RUN_DIR" in capsys.readouterr().err


def test_a_gate_that_broke_shows_its_words_and_keeps_its_code(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ENGINEGATE_CACHE_DIR", str(tmp_path / "cache"))

    assert main(["gate", str(tmp_path / "run"), "--encoders", "no-such/image", "--recipes", "fp16"]) == 2
    assert "no-such" in capsys.readouterr().out
