"""NVML as boards answer it: with everything, without permission, without support, with an older driver, and not at all."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pynvml
import pytest

from harness.errors import InvalidMeasurement
from harness.measure.cpu_state import cpu_state
from harness.measure.gpu_state import REASONS, Gpu, GpuState, held_by_this_process, reason_names, require_alone, watched
from tests.helpers.fake_nvml import NO_PERMISSION, NOT_SUPPORTED, UUID, FakeNvml


def test_a_board_that_answers_everything_is_read():
    nvml = FakeNvml()
    nvml.reasons = 0x1 | 0x4
    with Gpu(nvml, UUID) as gpu:
        state = gpu.state()
    assert state == GpuState(
        sm_clock_mhz=1980,
        mem_clock_mhz=2619,
        power_w=412.3,
        power_limit_w=700,
        temperature_c=51,
        throttle=("gpu_idle", "sw_power_cap"),
        compute_processes=1,
        ecc=True,
        mig=False,
    )
    assert (
        str(state)
        == "SM 1980 MHz, memory 2619 MHz, 412 W of 700 W, 51 °C, throttled by gpu_idle, sw_power_cap, 1 compute processes, ECC on, MIG off"
    )
    assert nvml.calls[-1] == "nvmlShutdown"


def test_what_a_board_does_not_support_is_unknown_and_nothing_else():
    calls = [
        "nvmlDeviceGetEccMode",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetTemperatureV",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
        "nvmlDeviceGetComputeRunningProcesses",
    ]
    for call in calls:
        with Gpu(FakeNvml(**{call: NOT_SUPPORTED}), UUID) as gpu:
            gpu.state()
    with Gpu(FakeNvml(**dict.fromkeys(calls, NO_PERMISSION)), UUID) as gpu:
        assert gpu.state() == GpuState()
        assert str(gpu.state()) == "nothing can be read"


def test_an_older_driver_tells_reasons_under_their_former_name():
    nvml = FakeNvml(nvmlDeviceGetCurrentClocksEventReasons=pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    nvml.reasons = 0x40
    with Gpu(nvml, UUID) as gpu:
        assert gpu.state().throttle == ("hw_thermal_slowdown",)


def test_reasons_are_the_bindings_own_bits_under_snake_case_names():
    for bit, name in REASONS.items():
        constant = "nvmlClocksThrottleReason" + "".join(word.capitalize() for word in name.split("_"))
        assert getattr(pynvml, constant) == bit


def test_a_reason_without_a_name_is_not_overlooked():
    assert reason_names(0x8 | 0x10000) == ("hw_slowdown", "unknown_0x10000")


def test_a_block_has_the_mean_clock_and_every_reason_of_both_looks():
    with Gpu(FakeNvml(), UUID) as gpu:
        before = GpuState(sm_clock_mhz=1900, throttle=("sw_power_cap",))
        after = GpuState(sm_clock_mhz=2000, throttle=("sw_power_cap", "hw_slowdown"))
        assert gpu.during(before, after) == (1950, ("sw_power_cap", "hw_slowdown"))
        assert gpu.during(GpuState(), GpuState()) == (None, ())


def test_clocks_are_locked_read_back_and_given_back():
    nvml = FakeNvml()
    with Gpu(nvml, UUID) as gpu:
        lock = gpu.lock_clocks(1500)
        assert lock.words == "locked to 1500 MHz"
        assert gpu.lock_problem(lock, gpu.state()) is None
        nvml.sm_mhz = 1200
        assert gpu.lock_problem(lock, gpu.state()) == "clocks were locked to 1500 MHz and run at 1200"
    assert nvml.locked is None


def test_locked_clocks_are_given_back_after_an_error():
    nvml = FakeNvml()

    def broken():
        with Gpu(nvml, UUID) as gpu:
            gpu.lock_clocks()
            assert nvml.locked == 1584
            raise RuntimeError("the engine broke")

    with pytest.raises(RuntimeError):
        broken()
    assert nvml.locked is None


def test_a_clock_that_we_chose_ourselves_is_no_reason_against_us():
    nvml = FakeNvml()
    nvml.reasons = 0x2
    with Gpu(nvml, UUID) as gpu:
        assert gpu.state().throttle == ("applications_clocks_setting",)
        gpu.lock_clocks(1500)
        assert gpu.state().throttle == ()


def test_without_permission_clocks_run_free_and_it_is_said():
    nvml = FakeNvml(nvmlDeviceSetGpuLockedClocks=NO_PERMISSION)
    with Gpu(nvml, UUID) as gpu:
        lock = gpu.lock_clocks(1500)
        assert lock.mhz is None
        assert lock.words.startswith("unlocked: locking clocks is refused")
        assert gpu.lock_problem(lock, gpu.state()) is None
    assert "nvmlDeviceResetGpuLockedClocks" not in nvml.calls


def test_a_board_that_names_no_highest_clock_is_left_alone():
    with Gpu(FakeNvml(nvmlDeviceGetMaxClockInfo=NOT_SUPPORTED), UUID) as gpu:
        assert gpu.lock_clocks().words == "unlocked: the highest clock cannot be read"


def test_a_gpu_that_nvml_does_not_know_is_named():
    with pytest.raises(InvalidMeasurement, match="GPU-other"):
        Gpu(FakeNvml(), "GPU-other")


def test_without_a_driver_the_state_is_absent_and_says_why():
    with watched(UUID, FakeNvml(nvmlInit=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)) as gpu:
        assert isinstance(gpu, str)
        assert gpu.startswith("absent: NVML does not start")


def test_others_on_the_gpu_stop_the_measurement():
    require_alone(GpuState(compute_processes=2), ours=2)
    require_alone(GpuState(), ours=2)
    with pytest.raises(InvalidMeasurement, match="3 processes compute on this GPU, 2 of them of this run"):
        require_alone(GpuState(compute_processes=3), ours=2)


def test_the_processors_clock_is_read_where_it_can_be(tmp_path):
    for cpu, khz in (("cpu0", "2000000"), ("cpu1", "3000000"), ("cpu2", "unreadable")):
        (tmp_path / cpu / "cpufreq").mkdir(parents=True)
        (tmp_path / cpu / "cpufreq" / "scaling_cur_freq").write_text(khz)
    assert cpu_state(tmp_path).clock_mhz == 2500
    assert cpu_state(tmp_path / "elsewhere").clock_mhz is None


@pytest.mark.parametrize(("failed", "active", "held"), [(0, 1, 1), (0, 0, 0), (201, 1, 0)])
def test_this_process_is_counted_where_it_has_a_context(failed: int, active: int, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = SimpleNamespace(cuDeviceGet=lambda _: (0, 0), cuDevicePrimaryCtxGetState=lambda _: (failed, 0, active))
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", driver)
    assert held_by_this_process() == held


def test_a_process_that_asked_no_driver_holds_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cuda.bindings.driver", raising=False)
    assert held_by_this_process() == 0


def test_bindings_without_a_driver_hold_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_ordinal: int) -> None:
        raise RuntimeError("libcuda.so.1 was not found")

    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", SimpleNamespace(cuDeviceGet=missing))
    assert held_by_this_process() == 0
