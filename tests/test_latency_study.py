"""The study of the latency judge, and the page that shows it."""

from pathlib import Path

import numpy as np
import pytest

from harness.judge.statistics import rate_bounds
from tests.helpers import latency_study
from tests.helpers.latency_rules import RULES
from tests.helpers.latency_simulator import MACHINES

PAGE = (Path(__file__).parents[1] / "docs" / "latency-study.md").read_text()


def rows(first):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith(f"| {first} |")]


@pytest.mark.parametrize("name", MACHINES)
def test_the_page_shows_every_machine_with_alarms_no_more_often_than_stated(name):
    (cells,) = rows(name)
    shown = dict(zip(latency_study.COLUMNS, cells, strict=True))["runs with an alarm"]
    assert float(shown.split("%")[0]) / 100 <= latency_study.ALPHA


@pytest.mark.parametrize("rule", ["this judge", *RULES])
def test_the_page_shows_every_rule_on_every_machine(rule):
    (cells,) = rows(rule)
    assert len(cells) == 1 + len(MACHINES)


def test_a_seeded_short_form_gives_what_the_page_says(monkeypatch):
    """Exactly the page's code, with fewer runs: its alarms hold alpha, its detection holds 99 %."""
    monkeypatch.setattr(latency_study, "RUNS", 4000)
    monkeypatch.setattr(latency_study, "FOUND_RUNS", 1000)
    machine = MACHINES["typical"]
    spread = latency_study.spread_of(machine)
    processes = latency_study.processes_a_stage(spread)
    assert rate_bounds(latency_study.alarms(spread, processes), 4000, confidence=0.999).low <= latency_study.ALPHA
    assert rate_bounds(latency_study.found(machine, spread, processes, 0.01)[0], 1000, confidence=0.999).high >= 0.99


@pytest.mark.parametrize("name", RULES)
def test_every_rule_sees_a_slow_down_of_a_fifth_and_none_where_there_is_none(name):
    steady = np.exp(np.random.default_rng(1).normal(0, 0.002, 100))
    assert RULES[name](steady, 1.2 * steady)
    assert not RULES[name](steady, steady)
