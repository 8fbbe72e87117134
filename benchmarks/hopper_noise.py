"""Prints the noise in samples of hopper_latency.py, a line a comparison, with every group of blocks and with the steady ones alone.

    python benchmarks/hopper_noise.py docs/data/hopper-trt-10.6/latency

The columns: mean of the process figures, their spread, the spread of groups within a process, the bounds that `enginegate judge-latency`
takes, its minimum detectable effect, and the processes that would see one percent.
"""

from __future__ import annotations

import gzip
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from harness.judge.latency import groups
from harness.judge.latency.contrasts import contrasts, process_effects
from harness.judge.latency.decision import effect_of, processes_needed
from harness.records.latency import LatencySamples
from harness.store.latency_samples import read_latency_samples

ALPHA, BETA, DELTA = 0.001, 0.01, 0.01


def main() -> None:
    folder = Path(sys.argv[1])
    print("| slower by | groups | processes | mean | spread | of groups | above | below | sees | needed for 1 % |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for path in sorted(folder.glob("samples-*.json.gz")):
        samples = read_latency_samples(gzip.decompress(path.read_bytes()), origin=path.name)
        for steady_only in (False, True):
            print(_line(path.name.removeprefix("samples-").removesuffix(".json.gz"), samples, steady_only=steady_only))
    trace = json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))["ms"]
    print(_trace_words(trace))


def _line(what: str, samples: LatencySamples, *, steady_only: bool) -> str:
    effects: list[float] = []
    spreads: list[float] = []
    kept = every = 0
    for process in samples.processes:
        found = groups.groups_of(process)
        keep = np.array([groups.is_steady(group) or not steady_only for group in found])
        kept, every = kept + int(keep.sum()), every + len(found)
        figures = contrasts(groups.log_medians(found), groups.candidate_blocks(found))
        effects.append(float(process_effects(figures, keep)))
        spreads.append(float(figures.std(ddof=1)))
    figures = np.array([effect for effect in effects if math.isfinite(effect)])
    effect, spread = effect_of(figures), float(figures.std(ddof=1))
    cells: list[Any] = [what, f"{kept} of {every}", len(figures), f"{math.expm1(effect.mean):+.2%}", f"{spread:.2%}"]
    cells += [f"{float(np.median(spreads)):.2%}", f"{math.expm1(effect.lower(ALPHA)):+.2%}", f"{math.expm1(effect.upper(BETA)):+.2%}"]
    cells += [f"{math.expm1(effect.detectable(ALPHA)):.2%}", processes_needed(spread, alpha=ALPHA, delta=DELTA)]
    return "| " + " | ".join(map(str, cells)) + " |"


def _trace_words(ms: list[float]) -> str:
    logs = np.log(ms)
    lag = float(np.corrcoef(logs[:-1], logs[1:])[0, 1])
    return f"\n{len(ms)} launches in a row: p50 {np.median(ms):.3f} ms, spread {logs.std():.2%}, correlation of neighbours {lag:.3f}"


if __name__ == "__main__":
    main()
