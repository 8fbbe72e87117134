"""Prints the noise in samples of hopper_latency.py, a line a comparison, and what the readings of the clock say about it.

    python benchmarks/hopper_noise.py docs/data/hopper-trt-10.6/latency

The first table: the verdict of `enginegate judge-latency`, what its guard kept, mean of the process figures, their spread, the spread of
groups within a process, both bounds, the minimum detectable effect, and the processes that would see one percent. The second: how far
the four readings of one group lie apart, how far the arms' mean clocks of one process do, and how a group's clocks go with its times: were
a reading the clock of its block, a higher one would go with a shorter time, a correlation near -1.
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
from harness.judge.latency.contrasts import contrasts
from harness.judge.latency.decision import effect_of, processes_needed
from harness.judge.latency.samples import judge_samples, process_ratios
from harness.records.latency import LatencySamples, ProcessBlocks
from harness.store.latency_samples import read_latency_samples


def main() -> None:
    folder = Path(sys.argv[1])
    files = {path.name.removeprefix("samples-").removesuffix(".json.gz"): path for path in sorted(folder.glob("samples-*.json.gz"))}
    every = {name: read_latency_samples(gzip.decompress(path.read_bytes()), origin=path.name) for name, path in files.items()}
    print("| slower by | verdict | groups | processes | mean | spread | of groups | above | below | sees | needed for 1 % |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, samples in every.items():
        print(_line(name, samples))
    print("\n| slower by | readings apart in a group, median | at most | arms apart in a process, at most | clocks with times |")
    print("| --- | --- | --- | --- | --- |")
    for name, samples in every.items():
        print(_clocks(name, samples))
    trace = json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))["ms"]
    print(_trace_words(trace))


def _line(what: str, samples: LatencySamples) -> str:
    judged = judge_samples(samples)
    figures, measured, dropped = process_ratios(samples)
    effect, spread = effect_of(figures), float(figures.std(ddof=1))
    within = float(np.median([_contrasts(process).std(ddof=1) for process in samples.processes]))
    cells: list[Any] = [what, judged.status, f"{measured - dropped} of {measured}", len(figures)]
    cells += [f"{math.expm1(effect.mean):+.2%}", f"{spread:.2%}", f"{within:.2%}"]
    cells += [f"{math.expm1(effect.lower(judged.alpha)):+.2%}", f"{math.expm1(effect.upper(judged.beta)):+.2%}"]
    cells += [f"{math.expm1(effect.detectable(judged.alpha)):.2%}", processes_needed(spread, alpha=judged.alpha, delta=judged.delta)]
    return "| " + " | ".join(map(str, cells)) + " |"


def _contrasts(process: ProcessBlocks) -> np.ndarray:
    found = groups.groups_of(process)
    return contrasts(groups.log_medians(found), groups.candidate_blocks(found))


def _clocks(what: str, samples: LatencySamples) -> str:
    spans: list[float] = []
    apart: list[float] = []
    clocks: list[float] = []
    times: list[float] = []
    for process in samples.processes:
        found = groups.groups_of(process)
        logs = np.log([[block.sm_clock_mhz or math.nan for block in group] for group in found])
        of_arms = contrasts(logs, groups.candidate_blocks(found))
        spans += np.expm1(np.ptp(logs, axis=1)).tolist()
        apart.append(abs(math.expm1(float(of_arms.mean()))))
        clocks += of_arms.tolist()
        times += _contrasts(process).tolist()
    correlation = float(np.corrcoef(clocks, times)[0, 1])
    return f"| {what} | {np.median(spans):.1%} | {max(spans):.1%} | {max(apart):.2%} | {correlation:+.2f} |"


def _trace_words(ms: list[float]) -> str:
    logs = np.log(ms)
    lag = float(np.corrcoef(logs[:-1], logs[1:])[0, 1])
    return f"\n{len(ms)} launches in a row: p50 {np.median(ms):.3f} ms, spread {logs.std():.2%}, correlation of neighbours {lag:.3f}"


if __name__ == "__main__":
    main()
