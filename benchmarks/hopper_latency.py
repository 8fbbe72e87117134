"""Measures what a latency gate meets on a GPU: noise of fresh processes without a change, and slow-downs of known size.

    python benchmarks/hopper_profiles.py --onnx ONNX --out PLANS --profiles fixed:128
    python benchmarks/hopper_latency.py --plan PLANS/A.plan [--other PLANS/B.plan] --out SAMPLES --processes 30

Each process loads the plan twice and replays both as CUDA graphs, in blocks that take turns (A B B A or B A A B, from a seed). The second
engine's graph is also captured with a kernel behind it that spins for a share of a launch: the slow-downs of `CHANGES`. `--other` adds
another plan as a candidate. SAMPLES gets one `samples-<what>.json` each, which `enginegate judge-latency` reads, and `trace.json`: ten
seconds of one engine alone. The files are written anew after each process, so a run that is cut keeps what it saw.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hopper_profiles import _bind, _Gpu, _in_child, _machine, _require, _show_tensorrt_to_children, _tensorrt, _warm

CHANGES = {"none": 0.0, "half": 0.005, "one": 0.01, "two": 0.02}
QUARTETS = 12
BLOCK_MS = 20.0
TRACE_SECONDS = 10.0
PROCESS_LIMIT = 60.0

SPIN = b"""
.version 7.8
.target sm_80
.address_size 64
.visible .entry spin(.param .u64 cycles)
{
    .reg .pred %p<2>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [cycles];
    mov.u64 %rd2, %clock64;
AGAIN:
    mov.u64 %rd3, %clock64;
    sub.s64 %rd4, %rd3, %rd2;
    setp.lt.u64 %p1, %rd4, %rd1;
    @%p1 bra AGAIN;
    ret;
}
\0"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--processes", type=int, default=30)
    parser.add_argument("--budget-seconds", type=float, default=3600.0, help="when it is used up, no new process starts")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    end = time.monotonic() + options.budget_seconds
    _show_tensorrt_to_children()
    options.out.mkdir(parents=True, exist_ok=True)
    about = {**_machine(), "plan": options.plan.name, "other": options.other.name if options.other else None, "seed": options.seed}
    trace, error = _in_child(_trace, (options.plan, options.batch), limit=PROCESS_LIMIT, log=options.out / "trace.said")
    (options.out / "trace.json").write_text(json.dumps({"about": about, "ms": trace, "error": error}), encoding="utf-8")
    found: dict[str, list[Any]] = {}
    for number in range(options.processes):
        if time.monotonic() > end:
            break
        arguments = (options.plan, options.other, options.batch, f"{options.seed}-{number}")
        began = time.monotonic()
        blocks, error = _in_child(_process, arguments, limit=PROCESS_LIMIT, log=options.out / "process.said")
        print(json.dumps({"process": number, "seconds": round(time.monotonic() - began, 2), "error": error}), flush=True)
        for what, its_blocks in (blocks or {}).items():
            found.setdefault(what, []).append({"blocks": its_blocks})
            document = {
                "schema": "enginegate/latency-samples/1",
                "unit": "ms",
                "about": {**about, "candidate": what},
                "processes": found[what],
            }
            (options.out / f"samples-{what}.json").write_text(json.dumps(document), encoding="utf-8")


def _trace(plan: Path, batch: int) -> list[float]:
    """In a child: milliseconds of each launch of one engine alone, for ten seconds."""
    gpu = _Gpu()
    engine = _Plan(gpu, plan, batch)  # a graph keeps nothing alive of what it replays
    replay = engine.captured()
    _warm(gpu, replay)
    ms: list[float] = []
    end = time.monotonic() + TRACE_SECONDS
    while time.monotonic() < end:
        ms += [round(one, 5) for one in gpu.launch_ms(replay, 50)]
    return ms


def _process(plan: Path, other: Path | None, batch: int, seed: str) -> dict[str, list[Any]]:
    """In a child: the blocks of each comparison, in time order. The comparisons take turns too, a quartet each."""
    gpu, guard, rng = _Gpu(), _Guard(), random.Random(seed)
    baseline, twin = _Plan(gpu, plan, batch), _Plan(gpu, plan, batch)
    first = baseline.captured()
    launch_ms, clock_mhz = _warm(gpu, first), guard.read()[0]
    spin = _Spin()
    candidates = {what: twin.captured(spin.by(round(change * launch_ms * clock_mhz * 1000))) for what, change in CHANGES.items()}
    third = None if other is None else _Plan(gpu, other, batch)
    if third is not None:
        candidates["other"] = third.captured()
    launches = max(3, round(BLOCK_MS / launch_ms))
    for replay in candidates.values():
        gpu.launch_ms(replay, launches)
    blocks: dict[str, list[Any]] = {what: [] for what in candidates}
    for _ in range(QUARTETS):
        for what, replay in candidates.items():
            turns = ("baseline", "candidate", "candidate", "baseline")
            for arm in turns if rng.random() < 0.5 else [{"baseline": "candidate", "candidate": "baseline"}[one] for one in turns]:
                ms = [round(one, 5) for one in gpu.launch_ms(first if arm == "baseline" else replay, launches)]
                clock, throttle = guard.read()
                blocks[what].append({"arm": arm, "ms": ms, "sm_clock_mhz": clock, "throttle": throttle})
    return blocks


class _Plan:
    """One engine, loaded and bound."""

    def __init__(self, gpu: _Gpu, plan: Path, batch: int) -> None:
        trt = _tensorrt()
        self._gpu, self._runtime = gpu, trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        self._context = self._engine.create_execution_context()
        self._outputs = _bind(trt, self._engine, self._context, gpu, batch)

    def captured(self, after: Callable[[int], None] | None = None) -> Any:
        """A launch as a graph, with `after` put on the stream behind it."""

        def launch(stream: int) -> None:
            _require(self._context.execute_async_v3(stream), "TensorRT refused to launch the engine")
            if after is not None:
                after(stream)

        return self._gpu.captured(launch)


class _Spin:
    """A kernel of one thread that does nothing for a number of SM cycles."""

    def __init__(self) -> None:
        self._cuda = importlib.import_module("cuda.bindings.driver")
        self._module = self._call(self._cuda.cuModuleLoadData(SPIN))
        self._kernel = self._call(self._cuda.cuModuleGetFunction(self._module, b"spin"))

    def by(self, cycles: int) -> Callable[[int], None] | None:
        """What puts it on a stream; None for no cycles, so that no change is no kernel."""
        if cycles <= 0:
            return None
        arguments = ((cycles,), (ctypes.c_uint64,))
        return lambda stream: self._call(self._cuda.cuLaunchKernel(self._kernel, 1, 1, 1, 1, 1, 1, 0, stream, arguments, 0))

    @staticmethod
    def _call(answer: tuple[Any, ...]) -> Any:
        error, *found = answer
        _require(int(error) == 0, f"the CUDA driver answered {error}")
        return found[0] if found else None


class _Guard:
    """SM clock and throttle reasons of the first GPU."""

    def __init__(self) -> None:
        self._reasons = importlib.import_module("harness.measure.gpu_state").REASONS
        self._nvml = importlib.import_module("pynvml")
        self._nvml.nvmlInit()
        self._gpu = self._nvml.nvmlDeviceGetHandleByIndex(0)

    def read(self) -> tuple[int, list[str]]:
        """MHz, and the names of the reasons."""
        bits = self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._gpu)
        clock = self._nvml.nvmlDeviceGetClockInfo(self._gpu, self._nvml.NVML_CLOCK_SM)
        return clock, [name for bit, name in self._reasons.items() if bits & bit]


if __name__ == "__main__":
    main()
