"""Prints how long the main job takes with an empty and with a warm cache, its peak memory, and what importing the plugin costs.

Each command is a process of its own, timed from outside. Nothing is asserted: these are figures to read, on a quiet machine.
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

IMPORT_RUNS = 11


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="enginegate-figures-") as folder:
        base = Path(folder)
        gate = [sys.executable, "-m", "harness", "gate", "--cache-dir", str(base / "cache"), *sys.argv[1:]]
        for name in ("cold", "warm"):
            seconds, code = _timed([*gate, "--run-dir", str(base / name)])
            print(f"main job, {name} cache: {seconds:.1f} s, exit code {code}", flush=True)
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"peak memory of the largest process: {peak_mib:.0f} MiB")
    _print_import_cost()


def _timed(command: list[str]) -> tuple[float, int]:
    start = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.monotonic() - start, done.returncode


def _print_import_cost() -> None:
    """Seconds that the plugin adds to a process that has pytest and numpy, in pairs of processes."""
    plain, ours = "import pytest, numpy", "import pytest, numpy, harness.plugin"
    added = []
    for _ in range(IMPORT_RUNS):
        without, _ = _timed([sys.executable, "-c", plain])
        with_plugin, _ = _timed([sys.executable, "-c", ours])
        added.append(with_plugin - without)
    print(f"import harness.plugin adds: {statistics.median(added):.3f} s (median of {IMPORT_RUNS} pairs)")


if __name__ == "__main__":
    os.environ.pop("GITHUB_STEP_SUMMARY", None)
    main()
