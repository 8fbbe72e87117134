"""Prints how far the latency lines of the gate move between sessions on this machine, alone and beside busy neighbours.

Delta and `session_spread` of `latency_ratio` in gate.toml rest on what this prints. A session times the engines as one run of the gate
does, in fresh processes; `--busy N` keeps N other processes computing meanwhile.

    python benchmarks/latency_spread.py --sessions 10
"""

from __future__ import annotations

import argparse
import contextlib
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from harness.judge.latency.decision import two_stage_detectable
from harness.judge.latency.samples import ALPHA
from harness.judge.latency.stored_ratio import RatioGate, RatioSeen, asks_again, ratio_seen
from harness.measure.machine import machine_class, this_machine
from harness.pipeline.comparing import policy_of
from harness.pipeline.making import Maker
from harness.pipeline.pacing import Pace, Pacing, Timed
from harness.records.gate_lines import LATENCY_RATIO, Margin
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.store.cache import ArtifactCache, default_cache_dir

ENGINES = tuple(
    EngineSpec(encoder=EncoderSpec.parse("emoji-clip/text", weights="noto"), recipe=recipe, backend="onnxruntime")
    for recipe in (Recipe.LINEAR, Recipe.ATTENTION)
)
_BUSY = "x = 1.0\nwhile True:\n    x = x * 1.0000001 % 7\n"


def main() -> None:
    options = _options()
    line = policy_of(Path("gate.toml")).margin_line(LATENCY_RATIO, ENGINES[0], machine_class(None))
    line = replace(line, processes=options.processes or line.processes, quartets=options.quartets or line.quartets)
    maker = Maker(ArtifactCache(default_cache_dir()), lambda text: contextlib.nullcontext())
    seen: list[dict[str, RatioSeen]] = []
    seconds: list[float] = []
    with _neighbours(options.busy):
        for number in range(options.sessions):
            gates = [Timed(metric=LATENCY_RATIO, engine=engine) for engine in ENGINES]
            pacing = Pacing(maker, gates, lambda gate: _pace(maker, gate.engine, line), is_approving=False)
            started = time.monotonic()
            seen.append({gate.id: ratio_seen(pacing.of(gate).samples[0]) for gate in gates})
            seconds.append(time.monotonic() - started)
            print(f"session {number + 1} of {options.sessions}: {seconds[-1]:.1f} s", file=sys.stderr, flush=True)
    print(
        f"{this_machine().cpu_model}, {this_machine().cpu_count} processors, {options.busy} busy neighbours; {options.sessions} sessions of"
    )
    print(f"{line.processes} processes of {line.quartets} quartets, {median(seconds):.0f} s each (median), {max(seconds):.0f} at most")
    print()
    print("| engine | ratio | sessions, from the median | spread of processes | sees, median | sees, most | pass in one stage |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for engine in ENGINES:
        print(_row(engine.id, [session[engine.id] for session in seen], line.size, line.session_spread))


def _pace(maker: Maker, engine: EngineSpec, line: Margin) -> Pace:
    gate = RatioGate(approved=None, delta=line.size, session_spread=line.session_spread)
    return Pace(line=line, gate=gate, pair=(maker.engine(replace(engine, recipe=Recipe.FP16)), maker.engine(engine)))


def _row(name: str, sessions: list[RatioSeen], delta: float, spread: float) -> str:
    means = np.array([session.logs.mean() for session in sessions])
    middle = float(np.median(means))
    sds = [float(session.logs.std(ddof=1)) for session in sessions]
    sees = [
        float(two_stage_detectable(np.array(sd), len(session.logs), alpha=ALPHA / len(ENGINES), margin=spread))
        for sd, session in zip(sds, sessions, strict=True)
    ]
    gate = RatioGate(approved=math.exp(middle), delta=delta, session_spread=spread)
    # A gate that asks for a second stage is none that has passed.
    passed = sum(not asks_again({name: gate}, {name: session}, alpha=ALPHA) for session in sessions)
    return (
        f"| {name} | {math.exp(middle):.3f} | {math.expm1(means.min() - middle):+.1%} to {math.expm1(means.max() - middle):+.1%} "
        f"| {median(sds):.1%} | {median(sees):+.0%} | {max(sees):+.0%} | {passed} of {len(sessions)} |"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--processes", type=int, help="of each session (default: as gate.toml says)")
    parser.add_argument("--quartets", type=int, help="of each process (default: as gate.toml says)")
    parser.add_argument("--busy", type=int, default=0, help="how many other processes compute meanwhile")
    return parser.parse_args()


@contextlib.contextmanager
def _neighbours(count: int) -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
