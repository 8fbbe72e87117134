import subprocess
import sys
from itertools import chain, count, repeat

import pytest

from harness.contracts import DeviceTimed
from harness.errors import InvalidMeasurement, UsageError
from harness.measure.blocks import ABBA, BAAB, clock_of, launches_a_block, quartet_orders, time_block, warm_up
from harness.measure.cold_cache import ColdCache, last_level_cache_bytes
from harness.measure.host_memory import added_peak, peak_bytes
from harness.records.latency import Arm
from harness.records.timing import Cache, TimingProtocol


class Counting:
    """A session that counts launches and takes no time."""

    def __init__(self):
        self.launched = 0

    def upload(self, inputs):
        return None

    def launch(self, feed):
        self.launched += 1

    def download(self, feed):
        return {}


class OnDevice(Counting):
    device_uuid = "GPU-1"
    clock = "CUDA events"
    cold_cache = "by a write"

    def __init__(self):
        super().__init__()
        self.asked = []

    def capture(self, feed):
        return None

    def time_launches(self, feed, launches, *, cold):
        self.asked.append((launches, cold))
        return (0.25,) * launches


class Walks:
    def __init__(self, session):
        self.session = session
        self.at = []

    def walk(self):
        self.at.append(self.session.launched)


def _ticks(step_ns: int):
    ticks = count(0, step_ns)
    return lambda: next(ticks)


def test_a_block_is_timed_launch_by_launch():
    assert time_block(Counting(), None, 3, clock=_ticks(2_000_000)) == (2.0, 2.0, 2.0)


def test_a_hot_block_is_led_in_by_a_launch_that_is_not_timed():
    session = Counting()
    time_block(session, None, 3)
    assert session.launched == 4


def test_caches_are_emptied_before_each_cold_launch_and_nothing_leads_in():
    session = Counting()
    walks = Walks(session)
    time_block(session, None, 3, cold=walks)
    assert walks.at == [0, 1, 2]
    assert session.launched == 3


def test_a_session_with_a_device_clock_is_timed_by_it():
    session = OnDevice()
    assert isinstance(session, DeviceTimed)
    assert clock_of(session) == "CUDA events"
    assert clock_of(Counting()) == "host"
    assert time_block(session, None, 2) == (0.25, 0.25)
    time_block(session, None, 2, cold=Walks(session))
    assert session.asked == [(2, False), (2, True)]


def test_a_clock_that_runs_backwards_is_no_clock():
    with pytest.raises(InvalidMeasurement, match="backwards"):
        time_block(Counting(), None, 1, clock=_ticks(-5))


def test_a_block_of_no_launches_is_refused():
    with pytest.raises(InvalidMeasurement, match="at least one"):
        time_block(Counting(), None, 0)


def _timer(*medians_ms):
    """Windows whose launches all take the given times; the first is the launch that sizes the first window."""
    windows = iter(chain(medians_ms, repeat(medians_ms[-1])))
    return lambda launches: (next(windows),) * launches


def test_warm_up_ends_when_two_windows_agree():
    warm = warm_up(_timer(50, 10, 5, 4, 4.05), TimingProtocol(warm_tolerance=0.02))
    assert (warm.windows, warm.is_settled, warm.launch_ms) == (4, True, 4.05)


def test_one_window_has_nothing_to_agree_with():
    assert warm_up(_timer(4), TimingProtocol()).windows == 2


def test_a_warm_up_that_does_not_settle_ends_and_says_so():
    warm = warm_up(_timer(*(2.0**-step for step in range(10))), TimingProtocol(warm_windows=5))
    assert (warm.windows, warm.is_settled) == (5, False)
    assert "still differ" in str(warm)


@pytest.mark.parametrize(("slower_ms", "launches"), [(1, 10), (2.6, 4), (40, 1), (0.000001, 1000)])
def test_launches_fill_a_block_of_ten_milliseconds_or_one_launch_does(slower_ms, launches):
    assert launches_a_block(slower_ms, 10) == launches


def test_orders_are_balanced_drawn_from_the_seed_and_differ_between_processes():
    protocol = TimingProtocol(quartets=200, seed=3)
    orders = quartet_orders(protocol, process=0, gate="g")
    assert set(orders) == {ABBA, BAAB}
    assert all(order.count(Arm.CANDIDATE) == 2 for order in orders)
    assert orders == quartet_orders(protocol, process=0, gate="g")
    assert orders != quartet_orders(protocol, process=1, gate="g")
    assert orders != quartet_orders(protocol, process=0, gate="another")


def test_the_key_of_a_protocol_holds_what_a_latency_depends_on():
    hot = TimingProtocol()
    assert hot.id != TimingProtocol(cache=Cache.COLD).id
    assert hot.id != TimingProtocol(rest_ms=5).id
    assert hot.id == TimingProtocol(seed=9, quartets=3).id


def test_a_protocol_that_measures_nothing_is_refused():
    for wrong in ({"block_ms": 0}, {"quartets": 0}, {"warm_windows": 1}, {"rest_ms": -1}, {"warm_tolerance": 0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            TimingProtocol(**wrong)


def test_the_last_level_cache_is_the_largest_that_the_system_names(tmp_path):
    for index, size in enumerate(("32K", "1024K", "32M", "odd")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size + "\n")
    assert last_level_cache_bytes(tmp_path) == 32 * 2**20
    assert last_level_cache_bytes(tmp_path / "no such folder") == 64 * 2**20


def test_a_walk_touches_every_line():
    cold = ColdCache(nbytes=6400)
    cold.walk()
    cold.walk()
    assert cold._lines.tolist() == [2] * 100


def test_memory_that_was_used_stays_in_the_peak():
    before = peak_bytes()
    held = bytearray(b"\x01") * (64 * 2**20)
    after = peak_bytes()
    assert before is not None
    assert after is not None
    assert after >= len(held)
    assert after >= before


_HOLDS_64_MIB = """
import time
from harness.measure.host_memory import added_peak
with added_peak() as small:
    time.sleep(0.05)
with added_peak() as large:
    held = bytearray(b"1") * (64 * 2**20)
    time.sleep(0.05)
    del held
print(small.nbytes, large.nbytes)
"""


def test_what_was_held_meanwhile_is_seen_though_it_is_gone():
    # In a process of its own: in this one the allocator may still hold what earlier tests gave back, and taking that again adds nothing.
    told = subprocess.run([sys.executable, "-c", _HOLDS_64_MIB], capture_output=True, text=True, check=True, timeout=120).stdout
    small, large = map(int, told.split())
    assert small < 16 * 2**20
    assert 60 * 2**20 < large < 200 * 2**20


def test_what_breaks_while_it_is_watched_is_raised():
    with pytest.raises(ValueError, match="broken"), added_peak():
        raise ValueError("broken")
