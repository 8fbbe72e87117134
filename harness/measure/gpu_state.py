"""The state of a GPU while an engine is timed, from NVML: clocks, power, heat, what lowers the clocks, who else computes."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any

from harness.errors import InvalidMeasurement
from harness.need import is_installed, need

# Bits of NVML's clocks event reasons, by the header's values, which do not change: older bindings lack the newer names.
REASONS = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}
# Both looks at a block fall into pauses between launches, and at its power limit a board changes its clock within milliseconds: of an
# engine beside itself, means of twenty such looks an arm lay up to 4 % apart. Readings go to the driver, past the queue of launches.
_CLOCK_EVERY_S = 0.005
# NVML's word for clocks that a user has chosen; while we have locked them, that user is this run.
_CHOSEN_CLOCKS = "applications_clocks_setting"
# How far a clock may lie from the one it was locked to: GPUs step in 15 MHz, and the nearest step is what a lock can give.
_LOCK_STEP_MHZ = 15
# nvmlDeviceGetCurrentClocksEventReasons came with driver 535; before, it had the other name.
_REASONS_CALLS = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """One look at a GPU. None: this board, driver or user cannot say.

    Attributes:
        throttle: what lowers the clocks just now, by NVML's names in snake case.
        compute_processes: how many processes hold a compute context on it.
    """

    sm_clock_mhz: float | None = None
    mem_clock_mhz: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: float | None = None
    throttle: tuple[str, ...] = ()
    compute_processes: int | None = None
    ecc: bool | None = None
    mig: bool | None = None

    def strangers(self, ours: int) -> int:
        """How many processes compute there beside `ours` of this run; 0 where nobody says."""
        return 0 if self.compute_processes is None else max(0, self.compute_processes - ours)

    def __str__(self) -> str:
        figures = [
            _said(self.sm_clock_mhz, "SM {:g} MHz"),
            _said(self.mem_clock_mhz, "memory {:g} MHz"),
            _said(self.power_w, "{:.0f} W") + _said(self.power_limit_w, " of {:.0f} W"),
            _said(self.temperature_c, "{:g} °C"),
            f"throttled by {', '.join(self.throttle)}" if self.throttle else "",
            _said(self.compute_processes, "{} compute processes"),
            "" if self.ecc is None else f"ECC {'on' if self.ecc else 'off'}",
            "" if self.mig is None else f"MIG {'on' if self.mig else 'off'}",
        ]
        return ", ".join(filter(None, figures)) or "nothing can be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockLock:
    """What came of locking clocks. `mhz` is the clock that is held; None when they run free, for the reason in `words`."""

    mhz: int | None
    words: str


class Gpu:
    """One GPU as NVML sees it, by its UUID. Leaving the context gives back what was locked.

    Raises:
        InvalidMeasurement: NVML knows no such GPU.
    """

    def __init__(self, nvml: Any, uuid: str) -> None:
        self._nvml = nvml
        self.uuid = uuid
        self._locked = False
        nvml.nvmlInit()
        try:
            self._handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        except nvml.NVMLError as error:
            nvml.nvmlShutdown()
            raise InvalidMeasurement(f"NVML knows no GPU {uuid} ({error}); expected the one the engine runs on") from error

    def __enter__(self) -> Gpu:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._locked:
            self._asked("nvmlDeviceResetGpuLockedClocks")
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def state(self) -> GpuState:
        """One look. What cannot be read is None, whatever the reason; it never fails."""
        power, limit = self._asked("nvmlDeviceGetPowerUsage"), self._asked("nvmlDeviceGetEnforcedPowerLimit")
        return GpuState(
            sm_clock_mhz=self._clock_mhz("NVML_CLOCK_SM"),
            mem_clock_mhz=self._clock_mhz("NVML_CLOCK_MEM"),
            power_w=None if power is None else power / 1000,
            power_limit_w=None if limit is None else limit / 1000,
            temperature_c=self._temperature_c(),
            throttle=self._throttle(),
            compute_processes=self.compute_processes(),
            ecc=_is_on(self._asked("nvmlDeviceGetEccMode")),
            mig=_is_on(self._asked("nvmlDeviceGetMigMode")),
        )

    @contextlib.contextmanager
    def clocks_meanwhile(self) -> Iterator[list[float]]:
        """SM clocks in MHz, read every few milliseconds by another thread for as long as the context lasts."""
        readings: list[float] = []
        is_over = threading.Event()

        def read() -> None:
            while not is_over.wait(_CLOCK_EVERY_S) and (mhz := self._clock_mhz("NVML_CLOCK_SM")) is not None:
                readings.append(mhz)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield readings
        finally:
            is_over.set()
            reader.join()

    def during(self, before: GpuState, after: GpuState, meanwhile: Sequence[float] = ()) -> tuple[float | None, tuple[str, ...]]:
        """SM clock in MHz and reasons of a block that ran between two looks: the mean clock, and every reason that either saw.

        Args:
            meanwhile: clocks that were read while it ran; without any, as of a block of a moment, the two looks stand for it.
        """
        around = [state.sm_clock_mhz for state in (before, after) if state.sm_clock_mhz is not None]
        clocks = meanwhile or around
        reasons = dict.fromkeys((*before.throttle, *after.throttle))
        return (sum(clocks) / len(clocks) if clocks else None), tuple(reasons)

    def compute_processes(self) -> int | None:
        """How many processes compute on it; None where NVML does not say."""
        found = self._asked("nvmlDeviceGetComputeRunningProcesses")
        return None if found is None else len(found)

    def lock_clocks(self, mhz: int | None = None) -> ClockLock:
        """Hold the SM clock, and read back whether it is held. Where that is not permitted, run unlocked and say so.

        Args:
            mhz: the clock; None is four fifths of the highest, which boards hold under load where they cannot hold the highest.
        """
        wanted = mhz or self._steady_mhz()
        if wanted is None:
            return ClockLock(mhz=None, words="unlocked: the highest clock cannot be read")
        try:
            self._nvml.nvmlDeviceSetGpuLockedClocks(self._handle, wanted, wanted)
        except self._nvml.NVMLError as error:
            return ClockLock(mhz=None, words=f"unlocked: locking clocks is refused ({error})")
        self._locked = True
        return ClockLock(mhz=wanted, words=f"locked to {wanted} MHz")

    def lock_problem(self, lock: ClockLock, state: GpuState) -> str | None:
        """Why a lock does not hold, in words, from a look under load; None when it does or when nothing was locked."""
        if lock.mhz is None or state.sm_clock_mhz is None or abs(state.sm_clock_mhz - lock.mhz) <= _LOCK_STEP_MHZ:
            return None
        return f"clocks were locked to {lock.mhz} MHz and run at {state.sm_clock_mhz:g}"

    def _steady_mhz(self) -> int | None:
        highest = self._asked("nvmlDeviceGetMaxClockInfo", getattr(self._nvml, "NVML_CLOCK_SM", 1))
        return None if highest is None else int(highest * 0.8)

    def _clock_mhz(self, kind: str) -> float | None:
        clock = self._asked("nvmlDeviceGetClockInfo", getattr(self._nvml, kind))
        return float(clock) if clock else None

    def _temperature_c(self) -> float | None:
        # The newest bindings have the second name alone, older ones the first.
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        found = self._asked("nvmlDeviceGetTemperature", sensor)
        return self._asked("nvmlDeviceGetTemperatureV", sensor) if found is None else found

    def _throttle(self) -> tuple[str, ...]:
        for call in _REASONS_CALLS:
            bits = self._asked(call)
            if bits is not None:
                return tuple(name for name in reason_names(bits) if not (self._locked and name == _CHOSEN_CLOCKS))
        return ()

    def _asked(self, call: str, *arguments: Any) -> Any:
        """What NVML answers; None where this board, driver, user or binding cannot."""
        function: Callable[..., Any] | None = getattr(self._nvml, call, None)
        if function is None:
            return None
        try:
            return function(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None


def reason_names(bits: int) -> tuple[str, ...]:
    """NVML's names of the set bits, in snake case; a bit without a name here is `unknown_0x…`, so that it is not overlooked."""
    named = [name for bit, name in REASONS.items() if bits & bit]
    rest = bits & ~sum(REASONS)
    return (*named, f"unknown_{rest:#x}") if rest else tuple(named)


@contextlib.contextmanager
def watched(uuid: str, nvml: ModuleType | Any | None = None) -> Iterator[Gpu | str]:
    """The GPU of that UUID; or, in words, why its state is absent.

    Args:
        nvml: the bindings; None is the installed ones.
    """
    if nvml is None and not is_installed("pynvml"):
        yield "absent: nvidia-ml-py is not installed"
        return
    bindings = nvml or need("pynvml", extra=None, to="watch the GPU's clocks")
    try:
        gpu = Gpu(bindings, uuid)
    except bindings.NVMLError as error:
        yield f"absent: NVML does not start ({error})"
        return
    with gpu:
        yield gpu


def held_by_this_process() -> int:
    """1 where this process has a context on the first GPU that CUDA shows it, which NVML counts among those that compute; else 0."""
    driver: Any = sys.modules.get("cuda.bindings.driver")
    if driver is None:
        return 0
    try:
        failed, device = driver.cuDeviceGet(0)
        if int(failed) != 0:
            return 0
        failed, _flags, is_active = driver.cuDevicePrimaryCtxGetState(device)
    # torch imports the bindings on machines without a driver, where each call raises an error whose class differs by version.
    except Exception:  # noqa: BLE001
        return 0
    return int(int(failed) == 0 and bool(is_active))


def require_alone(state: GpuState, *, ours: int) -> None:
    """Refuse to time beside others. Processes are counted and not named: in a container NVML gives the host's numbers for them.

    Args:
        state: a look while `ours` processes of this run hold the GPU.

    Raises:
        InvalidMeasurement: more than those compute there.
    """
    if state.strangers(ours):
        raise InvalidMeasurement(
            f"{state.compute_processes} processes compute on this GPU, {ours} of them of this run; expected no others; "
            "wait for them, or choose another GPU"
        )


def _is_on(mode: Any) -> bool | None:
    """NVML gives [current, pending]."""
    return None if mode is None else bool(mode[0])


def _said(figure: float | None, form: str) -> str:
    return "" if figure is None else form.format(figure)
