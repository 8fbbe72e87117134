"""The second timer compares timers in turns; its figures can be checked by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/second_timer.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("second_timer", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Drifting:
    """A launch that takes a little longer each time, by a timer that sees a share more of it."""

    now_ms = 1.0

    def __init__(self, share):
        self.share = share

    def __call__(self, launches):
        Drifting.now_ms *= 1.001
        return [Drifting.now_ms * (1 + self.share)] * launches


def test_what_drifts_is_in_both_timers_and_what_is_left_is_their_difference(script):
    found = script._in_turns(Drifting(0.0), Drifting(0.004), 3, 8)

    assert found["ratio"] == pytest.approx(1.004)
    assert found["quartiles"] == [pytest.approx(1.004)] * 2


def test_the_table_says_each_timer_beside_ours(script):
    timer = {"ours_ms": 3.2, "ms": 3.2032, "ratio": 1.001, "quartiles": [1.0, 1.002]}
    found = {"engine": "e", "batch": 128, "device": "d", "tensorrt": "10.6.0", "torch": "2.11", "groups": 2, "launches_a_block": 6}
    text = script.text({**found, "timers": {"torch events": timer}})

    assert "| torch events | 3.2000 | 3.2032 | 1.00100 | 1.00000 to 1.00200 |" in text
