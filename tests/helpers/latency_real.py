"""What the latency judge sees on this machine: one small encoder beside itself, and beside itself with more work in its graph.

`python -m tests.helpers.latency_real` measures what is missing of its pairs, keeps each as soon as it is there, and prints the page;
`--write FILE` keeps the page too. It may be stopped and started again. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from harness.judge.latency import groups
from harness.judge.latency.contrasts import contrasts, process_effects
from harness.judge.latency.decision import Effect, effect_of, processes_needed
from harness.judge.statistics import rate_bounds
from harness.measure.machine import this_machine
from harness.pipeline.leaving import build_engine
from harness.pipeline.pairing import Plan, measure
from harness.records.artifacts import EngineArtifact
from harness.records.latency import Arm, LatencySamples
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, Recipe
from harness.records.timing import TimingProtocol
from harness.store.atomic import write_atomically
from harness.store.left_engine import read_left_engine
from tests.helpers.slower_onnx import slower_onnx

SCHEMA = "enginegate/latency-real/1"
ENCODER = EncoderSpec.parse("emoji-clip/text", weights="noto")
SAME = "0 %"
SLOWER = {"2 %": 0.02, "5 %": 0.05, "10 %": 0.10}
GATES = (SAME, *SLOWER)
THREADS = 1  # as the gate times on a processor: one core for the engine, the other for whoever asks
PROTOCOL = TimingProtocol(quartets=10, seed=20261124)
CALIBRATION = TimingProtocol(quartets=20, seed=1)
PROBE_PRODUCTS = 64
ALPHAS = (0.001, 0.001**0.5, 0.1)
SIZES = (4, 6, 8, 12, 20)
RESAMPLED = 1000
SEED = 20261124
CONFIDENCE = 0.975  # of each side: together an exact 95 % interval
DEFAULT_DATA = Path(__file__).parents[2] / "docs" / "data" / "latency-real.json"


@dataclass(frozen=True)
class Engines:
    """The encoder's engine, and slower ones by the name of their slow-down."""

    plain: EngineArtifact
    slower: dict[str, EngineArtifact]


# -- measuring ---------------------------------------------------------------------------------------------------------------


def plain_engine(folder: Path) -> EngineArtifact:
    """The FP16 engine, built offline from the weights that ship."""
    spec = EngineSpec(encoder=ENCODER, recipe=Recipe.FP16, backend="onnxruntime", batch=BatchProfile(minimum=1, optimum=1, maximum=1))
    left = build_engine(spec, cache_dir=None, out=folder, progress=lambda text: contextlib.nullcontext())
    return read_left_engine(left.path)


def slowed(plain: EngineArtifact, folder: Path, products: int) -> EngineArtifact:
    """The same engine with so many more products in its graph."""
    assert plain.path is not None  # it was just read from there
    target = folder / f"slower-{products}.onnx"
    if not target.exists():
        slower_onnx(plain.path, target, products=products)
    return replace(plain, path=target, sha256=None)


def calibrated(plain: EngineArtifact, folder: Path) -> dict[str, int]:
    """How many products each slow-down takes, from the times of none and of 64, side by side in three processes."""
    probe = slowed(plain, folder, PROBE_PRODUCTS)
    samples = measure(_plan({"probe": (plain, probe)}, CALIBRATION, processes=3)).samples["probe"]
    per_product = (math.exp(effect_of(_process_effects(samples)).mean) - 1) / PROBE_PRODUCTS
    return {name: max(1, round(share / per_product)) for name, share in SLOWER.items()}


def _plan(arms: dict[str, tuple[EngineArtifact, EngineArtifact]], protocol: TimingProtocol, **more: int) -> Plan:
    return Plan(arms=arms, protocol=protocol, rows=1, threads=THREADS, **{"processes": 1, **more})


def measured_pair(engines: Engines, number: int, *, injected: bool) -> dict:
    """One fresh pair of processes: the engine beside itself, and beside each slower one where `injected`."""
    arms = {SAME: (engines.plain, engines.plain)}
    if injected:
        arms |= {name: (engines.plain, engine) for name, engine in engines.slower.items()}
    started = time.monotonic()
    found = measure(_plan(arms, PROTOCOL, first_process=number))
    gates = {name: _kept(samples) for name, samples in found.samples.items()}
    seconds = time.monotonic() - started
    return {"number": number, "seconds": round(seconds, 2), "guard": found.samples[SAME].about["guard"], "gates": gates}


def _kept(samples: LatencySamples) -> dict:
    """The figure that is judged, what it was made of, and the level of each arm."""
    (process,) = samples.processes
    every = groups.groups_of(process)
    level = {arm: median(median(block.ms) for block in process.blocks if block.arm is arm) for arm in Arm}
    return {
        "d": float(_process_effects(samples)[0]),
        "contrasts": [round(one, 6) for one in contrasts(groups.log_medians(every), groups.candidate_blocks(every)).tolist()],
        "baseline_ms": round(level[Arm.BASELINE], 6),
        "candidate_ms": round(level[Arm.CANDIDATE], 6),
        "launches": len(process.blocks[0].ms),
    }


def _process_effects(samples: LatencySamples) -> np.ndarray:
    cut = [groups.groups_of(process) for process in samples.processes]
    return np.array([process_effects(contrasts(groups.log_medians(every), groups.candidate_blocks(every))) for every in cut])


def study(data: Path, folder: Path, *, pairs: int, injected: int) -> dict:
    """What is known after so many pairs, of which the first `injected` hold the slower engines too; measures what is missing."""
    plain = plain_engine(folder)
    kept = json.loads(data.read_bytes()) if data.exists() else _new(plain, folder)
    if kept["protocol"] != PROTOCOL.id or kept["engine_sha256"] != plain.sha256 or kept["cpu"] != this_machine().cpu_model:
        raise SystemExit(f"{data} was measured with another engine, protocol or processor; move it away to begin anew")
    engines = Engines(plain, {name: slowed(plain, folder, products) for name, products in kept["products"].items()})
    done = {pair["number"]: set(pair["gates"]) for pair in kept["pairs"]}
    for number in range(max(pairs, injected)):
        wanted = set(GATES) if number < injected else {SAME}
        if wanted - done.get(number, set()):
            kept["pairs"] = [pair for pair in kept["pairs"] if pair["number"] != number]
            kept["pairs"].append(measured_pair(engines, number, injected=number < injected))
            write_atomically(data, (json.dumps(kept, indent=1) + "\n").encode())
            sys.stderr.write(f"pair {number + 1} of {max(pairs, injected)}: {kept['pairs'][-1]['seconds']} s\n")
    return kept


def _new(plain: EngineArtifact, folder: Path) -> dict:
    machine = this_machine()
    return {
        "schema": SCHEMA,
        "engine": plain.spec.id,
        "engine_sha256": plain.sha256,
        "backend_version": plain.backend_version,
        "cpu": machine.cpu_model,
        "cpu_count": machine.cpu_count,
        "protocol": PROTOCOL.id,
        "quartets": PROTOCOL.quartets,
        "threads": THREADS,
        "products": calibrated(plain, folder),
        "pairs": [],
    }


# -- counting ----------------------------------------------------------------------------------------------------------------


def figures(kept: dict, gate: str) -> np.ndarray:
    """One log ratio a process, [pairs], in the order they were measured."""
    return np.array([pair["gates"][gate]["d"] for pair in kept["pairs"] if gate in pair["gates"]])


def disjoint(d: np.ndarray, size: int) -> Effect:
    """Consecutive groups of `size` processes, none in two of them."""
    count = len(d) // size
    return effect_of(d[: count * size].reshape(count, size))


def proven(effect: Effect, alpha: float) -> int:
    """In how many of the groups the judge's test calls the candidate slower."""
    return int((effect.p_slower() <= alpha).sum())


def resampled(d: np.ndarray, size: int, alpha: float) -> float:
    """Share of so many runs, each of `size` processes drawn without putting back, in which it is called slower."""
    rng = np.random.default_rng(SEED)
    drawn = np.stack([rng.permutation(d)[:size] for _ in range(RESAMPLED)])
    return proven(effect_of(drawn), alpha) / RESAMPLED


def noise(kept: dict) -> dict[str, float]:
    """Terms of the machine's noise, as spreads of logs, from the engine beside itself."""
    gates = [pair["gates"][SAME] for pair in kept["pairs"] if SAME in pair["gates"]]
    inner = np.array([gate["contrasts"] for gate in gates])
    d = figures(kept, SAME)
    levels = np.log([gate["baseline_ms"] for gate in gates])
    centred = inner - inner.mean(axis=1, keepdims=True)
    within = float(np.median(inner.std(axis=1, ddof=1)))
    between = max(0.0, float(d.var(ddof=1)) - within**2 / inner.shape[1])
    return {
        "a process's figure (d)": float(d.std(ddof=1)),
        "a group of four blocks, within its process (median)": within,
        "between processes, beyond what groups explain": between**0.5,
        "correlation of one group with the next": float((centred[:, 1:] * centred[:, :-1]).sum() / (centred**2).sum()),
        "an engine's own level, from process to process": float(levels.std(ddof=1)),
    }


def stored_effect(kept: dict, size: int) -> float:
    """What `size` processes today could find against a number stored from as many others: 99 % found, 0.1 % alarms, as a share.

    No engine is there to be timed beside, so the spread of levels stays, and it says nothing yet of another day.
    """
    levels = np.log([pair["gates"][SAME]["baseline_ms"] for pair in kept["pairs"] if SAME in pair["gates"]])
    half = len(levels) // 2
    apart = levels[:half] - levels[half : 2 * half]
    return _detectable(apart, size)


def _detectable(d: np.ndarray, size: int) -> float:
    like = Effect(mean=np.array(0.0), se=np.array(d.std(ddof=1) / size**0.5), processes=size)
    return math.expm1(float(like.detectable(0.001)))


# -- telling -----------------------------------------------------------------------------------------------------------------


def page(kept: dict) -> list[str]:
    """The page's lines."""
    pairs = len(figures(kept, SAME))
    return [
        "# What the latency judge sees, measured here",
        "",
        f"Made by `tox run -e latency-real -- --write docs/latency-real.md` on commit {_commit()}, from",
        f"`docs/data/latency-real.json`. {kept['engine']}, ONNX Runtime {kept['backend_version']}, batch 1, {kept['threads']} thread;",
        f"{kept['cpu']}, {kept['cpu_count']} processors. {pairs} fresh pairs of processes, {kept['quartets']} groups of A B B A in each,",
        f"protocol `{kept['protocol']}`. Slower engines have more MatMul nodes in their graph, calibrated once:",
        f"{', '.join(f'{count} for {name}' for name, count in kept['products'].items())}.",
        "",
        "## The effects, as measured over all pairs",
        "",
        "| injected | pairs | ratio | 95 % interval of the mean | spread of a process |",
        "| --- | --- | --- | --- | --- |",
        *(_effect_line(kept, gate) for gate in GATES if len(figures(kept, gate)) > 1),
        "",
        "## Called slower, over disjoint groups of k processes",
        "",
        "One stage, margin 0. In brackets exact 95 % bounds (Clopper-Pearson). At 0 % each one is a false alarm.",
        "",
        *_tables(kept),
        "",
        "## Over 1,000 resampled runs",
        "",
        "k of the pairs, drawn without putting back; runs share pairs, so there is no bound, and this only describes.",
        "",
        *_resampled_table(kept),
        "",
        "## The machine's noise",
        "",
        *(f"- {name}: {value:+.3f}" if "correlation" in name else f"- {name}: {value:.3%}" for name, value in noise(kept).items()),
        "",
        "## What could be found",
        "",
        "Found in 99 of 100 at one false alarm in 1,000, were processes to spread as these did. A stored number comes from processes that",
        "nobody can run again, here the second half of the same pairs: on another day it would also meet another level of the machine,",
        "which this does not hold.",
        "",
        "| k | side by side | against a stored number |",
        "| --- | --- | --- |",
        *(f"| {size} | {_detectable(figures(kept, SAME), size):.2%} | {stored_effect(kept, size):.2%} |" for size in SIZES),
        "",
        _needed(kept),
    ]


def contradictions(kept: dict) -> list[str]:
    """Stated alarm rates that lie below the exact bounds of those seen."""
    d = figures(kept, SAME)
    found = []
    for size in _sizes(d):
        effect = disjoint(d, size)
        for alpha in ALPHAS:
            alarms, runs = proven(effect, alpha), len(d) // size
            if rate_bounds(alarms, runs, confidence=CONFIDENCE).low > alpha:
                found.append(f"k = {size}: {alarms} alarms of {runs} at alpha {alpha:.3g}")
    return found


def _effect_line(kept: dict, gate: str) -> str:
    d = figures(kept, gate)
    effect = effect_of(d)
    low, high = math.exp(effect.lower(0.025)), math.exp(effect.upper(0.025))
    return f"| {gate} | {len(d)} | {math.exp(effect.mean):.4f} | {low:.4f} to {high:.4f} | {d.std(ddof=1):.3%} |"


def _tables(kept: dict) -> list[str]:
    lines = []
    for alpha in ALPHAS:
        present = [gate for gate in GATES if len(figures(kept, gate)) >= min(SIZES)]
        lines += [f"alpha {alpha:.3g}:", "", f"| k | {' | '.join(present)} |", "| --- |" + " --- |" * len(present)]
        lines += [f"| {size} | {' | '.join(_counted(figures(kept, gate), size, alpha) for gate in present)} |" for size in SIZES]
        lines.append("")
    return lines[:-1]


def _counted(d: np.ndarray, size: int, alpha: float) -> str:
    runs = len(d) // size
    if not runs:
        return "-"
    count = proven(disjoint(d, size), alpha)
    bounds = (rate_bounds(count, runs, confidence=CONFIDENCE).low, rate_bounds(count, runs, confidence=CONFIDENCE).high)
    return f"{count} of {runs} [{bounds[0]:.1%}, {bounds[1]:.1%}]"


def _resampled_table(kept: dict) -> list[str]:
    present = [gate for gate in GATES if len(figures(kept, gate)) >= min(SIZES)]
    lines = [f"| k, alpha 0.001 | {' | '.join(present)} |", "| --- |" + " --- |" * len(present)]
    for size in SIZES:
        shares = [f"{resampled(d, size, 0.001):.1%}" if len(d := figures(kept, gate)) >= size else "-" for gate in present]
        lines.append(f"| {size} | {' | '.join(shares)} |")
    return lines


def _sizes(d: np.ndarray) -> tuple[int, ...]:
    return tuple(size for size in SIZES if len(d) >= size)


def _needed(kept: dict) -> str:
    spread = float(figures(kept, SAME).std(ddof=1))
    needed = [(delta, processes_needed(spread, alpha=0.001, delta=delta)) for delta in (0.01, 0.02, 0.05, 0.10, 0.25)]
    told = ", ".join(f"{'over 10,000' if processes is None else processes} for {delta:.0%}" for delta, processes in needed)
    return f"Processes that one stage needs to see a slow-down: {told}."


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and print the page; 1 when a stated alarm rate lies below the exact bounds of the one seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=120, help="fresh pairs of the engine beside itself (default %(default)s)")
    parser.add_argument("--injected", type=int, default=60, help="how many of them hold the slower engines too (default %(default)s)")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="FILE", help="where pairs are kept (default %(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep the page")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        kept = study(options.data, Path(folder), pairs=options.pairs, injected=min(options.injected, options.pairs))
    text = "\n".join(page(kept)) + "\n"
    if options.write:
        options.write.write_text(text)
    sys.stdout.write(text)
    wrong = contradictions(kept)
    for words in wrong:
        sys.stderr.write(f"contradicts the stated rate: {words}\n")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
