"""Prints how long the main job and its accuracy suites take, cold and warm, their peak memory, and what importing the plugin costs.

Each command is a process of its own, timed from outside, by the clock and in CPU seconds, of which other work on the machine changes
less. Bytecode is kept beside the cache, so that a warm run has it whatever the environment says. Nothing is asserted: these are figures
to read, on a quiet machine. Arguments go to every gate.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

IMPORT_RUNS = 11


class Timed(NamedTuple):
    """What a process took, in seconds by the clock and of the processor, and how it ended."""

    wall_s: float
    cpu_s: float
    code: int


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="enginegate-figures-") as folder:
        base = Path(folder)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(base / "bytecode")
        gate = [sys.executable, "-m", "harness", "gate", "--cache-dir", str(base / "cache"), *sys.argv[1:]]
        _print_job("main job, cold cache", [*gate, "--run-dir", str(base / "cold")])
        _print_job("main job, warm cache", [*gate, "--run-dir", str(base / "warm")])
        _print_job("its accuracy suites alone, warm cache", [*gate, "-m", "accuracy", "--run-dir", str(base / "accuracy")])
        peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"peak memory of the largest process: {peak_mib:.0f} MiB")
        _print_import_cost()


def _print_job(name: str, command: list[str]) -> None:
    seen = _timed(command)
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    print(f"{name}: {seen.wall_s:.1f} s, {seen.cpu_s:.1f} CPU s, exit code {seen.code} ({load})", flush=True)


def _timed(command: list[str]) -> Timed:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timed(time.monotonic() - start, cpu_s, done.returncode)


def _print_import_cost() -> None:
    """Seconds that the plugin adds to a process that has pytest and numpy, in pairs of processes."""
    plain, ours = "import pytest, numpy", "import pytest, numpy, harness.plugin"
    added = []
    for _ in range(IMPORT_RUNS):
        without, with_plugin = (_timed([sys.executable, "-c", code]).wall_s for code in (plain, ours))
        added.append(with_plugin - without)
    print(f"import harness.plugin adds: {statistics.median(added):.3f} s (median of {IMPORT_RUNS} pairs)")


if __name__ == "__main__":
    os.environ.pop("GITHUB_STEP_SUMMARY", None)
    main()
