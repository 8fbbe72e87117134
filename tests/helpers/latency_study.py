"""What the latency judge sees and how often it cries wolf on machines that are known, beside the rules of other tools.

`python -m tests.helpers.latency_study` prints the page; `--write FILE` keeps it, and a plot beside it. Every verdict is the shipped
judge's, in the form that takes arrays. Shares have exact 95 % bounds (Clopper-Pearson).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.judge.latency.decision import effect_of, needs_second_stage, processes_needed, run_statuses
from harness.judge.statistics import rate_bounds
from harness.records.verdict import Status
from tests.helpers.latency_rules import RULES
from tests.helpers.latency_simulator import MACHINES, Machine, blocks, effects_by_block, effects_by_process

SEED = 20261124
ALPHA, DELTA = 0.001, 0.01
GATES, GROUPS = 40, 30
RUNS, CHUNK = 40_000, 500
FOUND_RUNS, PEER_RUNS = 2_000, 1_000
CHANGES = (0.0, 0.005, 0.01, 0.02, 0.05)
COLUMNS = (
    "machine",
    "spread of a process",
    "processes a stage",
    "runs with an alarm",
    "second stages",
    "+0.5 % FAIL",
    "+1 % FAIL",
    "+1 % PASS",
    "+2 % FAIL",
)
MOST = 40  # processes a stage: what more would take, no pipeline waits for


def spread_of(machine: Machine) -> float:
    """Spread of process figures, from 20,000 simulated processes in all of their blocks."""
    rng = np.random.default_rng([SEED, 1])
    return float(np.concatenate([effects_by_block(machine, rng, (2000,), groups=GROUPS, change=0.0) for _ in range(10)]).std())


def processes_a_stage(spread: float) -> int:
    """Processes of each stage, so that a stage at the square root of a gate's share of alpha finds delta: 40 gates, Holm's first step."""
    needed = processes_needed(spread, alpha=(ALPHA / GATES) ** 0.5, delta=DELTA)
    return MOST if needed is None else min(needed + 1, MOST)  # one more, since both stages must find it


def alarms(spread: float, processes: int) -> int:
    """Of `RUNS` runs of 40 gates without a change, those with any FAIL; whole runs, drawn by process."""
    rng = np.random.default_rng([SEED, 2])
    alarmed = 0
    for _ in range(RUNS // CHUNK):
        first, second = (effects_by_process(spread, rng, (CHUNK, GATES, processes), change=0.0) for _ in range(2))
        alarmed += int((run_statuses(first, second, alpha=ALPHA, delta=DELTA) == Status.FAIL).any(axis=-1).sum())
    return alarmed


def found(machine: Machine, spread: float, processes: int, change: float) -> tuple[int, int]:
    """Of `FOUND_RUNS` runs with one gate of 40 slower by `change`: in how many it is FAIL, and in how many PASS.

    The slower gate is simulated in all of its blocks, the others by process.
    """
    rng = np.random.default_rng([SEED, 3])
    failed = passed = 0
    for _ in range(FOUND_RUNS // CHUNK):
        stages = [effects_by_process(spread, rng, (CHUNK, GATES, processes), change=0.0) for _ in range(2)]
        for stage in stages:
            stage[:, 0] = effects_by_block(machine, rng, (CHUNK, processes), groups=GROUPS, change=change)
        status = run_statuses(stages[0], stages[1], alpha=ALPHA, delta=DELTA)[:, 0]
        failed, passed = failed + int((status == Status.FAIL).sum()), passed + int((status == Status.PASS).sum())
    return failed, passed


def second_stages(spread: float, processes: int) -> float:
    """Share of gates without a change that ask for a second stage."""
    rng = np.random.default_rng([SEED, 4])
    effect = effect_of(effects_by_process(spread, rng, (20_000, processes), change=0.0))
    return float(needs_second_stage(effect, alpha=ALPHA, delta=DELTA).mean())


def called(machine: Machine, change: float) -> dict[str, int]:
    """Of `PEER_RUNS` comparisons, how many each rule of others calls a regression: 100 blocks an arm of one process, one gate.

    The interleaved blocks are what is most in their favour. Rules that store a number meet another session's level.
    """
    rng = np.random.default_rng([SEED, 5])
    counts = dict.fromkeys(RULES, 0)
    for _ in range(PEER_RUNS):
        log_ms, is_candidate = blocks(machine, rng, (), groups=50, change=change)
        session = rng.normal(0, machine.session)  # of the day on which the stored number was made, against today
        baseline, candidate = np.exp(log_ms[~is_candidate]), np.exp(log_ms[is_candidate])
        for name, rule in RULES.items():
            stored = baseline * (np.exp(session) if "%, T" in name or "LLM 10" in name else 1.0)
            counts[name] += rule(stored, candidate)
    return counts


def share(count: int, runs: int) -> str:
    """A share with its exact bounds, in percent."""
    bounds = rate_bounds(count, runs, confidence=0.975)
    return f"{count / runs:.3%} [{bounds.low:.3%}, {bounds.high:.3%}]"


def page(power: dict[str, dict[str, list[float]]]) -> list[str]:
    """The page's lines; `power` is filled with what the plot shows."""
    lines = [
        "# What the latency judge sees, simulated",
        "",
        f"Made by `tox run -e latency -- --write docs/latency-study.md` on commit {_commit()}. Machines are assumptions in the range of",
        "published spreads (tests/helpers/latency_simulator.py), not measurements; the verdicts are the shipped judge's.",
        "",
        f"One run has {GATES} gates, {GROUPS} groups of A B B A a process, two stages, Holm; alpha {ALPHA:.1%} a run, delta {DELTA:.0%}.",
        f"{RUNS:,} runs without a change, {FOUND_RUNS:,} with one slower gate of the {GATES}. Brackets are exact 95 % bounds.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "| --- " * len(COLUMNS) + "|",
    ]
    for name, machine in MACHINES.items():
        spread = spread_of(machine)
        processes = processes_a_stage(spread)
        at = {change: found(machine, spread, processes, change) for change in CHANGES}
        alarmed = alarms(spread, processes)
        power[name] = {"this judge": [alarmed / RUNS, *(at[change][0] / FOUND_RUNS for change in CHANGES[1:])]}
        cells = [
            name,
            f"{spread:.3%}",
            str(processes),
            share(alarmed, RUNS),
            f"{second_stages(spread, processes):.1%}",
            share(at[0.005][0], FOUND_RUNS),
            share(at[0.01][0], FOUND_RUNS),
            share(at[0.01][1], FOUND_RUNS),
            share(at[0.02][0], FOUND_RUNS),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines + _peer_lines(power)


def _peer_lines(power: dict[str, dict[str, list[float]]]) -> list[str]:
    lines = [
        "",
        "## Other tools' rules",
        "",
        f"Percent of {PEER_RUNS:,} comparisons of one gate that each rule (tests/helpers/latency_rules.py) calls a regression, at",
        "0 / 0.5 / 1 / 2 / 5 % slower.",
        "Each rule gets 100 blocks an arm, interleaved in one process; those that hold today to a stored number meet another session's",
        "level. This judge's line is a whole run's alarms at 0 %, and one gate of 40 beyond. PASS is tried first, so at 0 % hardly any",
        "gate is left that could fail, and at exactly delta one in a hundred passes.",
        "",
        f"| rule | {' | '.join(MACHINES)} |",
        "| --- |" + " --- |" * len(MACHINES),
    ]
    for name, machine in MACHINES.items():
        counts = [called(machine, change) for change in CHANGES]
        power[name] |= {rule: [count[rule] / PEER_RUNS for count in counts] for rule in RULES}
    for rule in ("this judge", *RULES):
        lines.append(f"| {rule} | " + " | ".join(" / ".join(f"{100 * one:.3g}" for one in power[name][rule]) for name in MACHINES) + " |")
    return lines


def _commit() -> str:
    """What the working tree was made from, with a mark when it was changed."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def draw(power: dict[str, dict[str, list[float]]], path: Path) -> None:
    """One panel a machine: share called slower against the size of the change, one line a rule."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "enginegate"
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(power), figsize=(12, 4), sharey=True, layout="constrained")
    for panel, (name, rules) in zip(panels, power.items(), strict=True):
        for rule, shares in rules.items():
            panel.plot([100 * change for change in CHANGES], shares, marker="o", linewidth=2.5 if rule == "this judge" else 1, label=rule)
        panel.set(title=name, xlabel="slower by, %")
    panels[0].set(ylabel="share called slower")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, metadata={"Date": None})


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page; 1 when the alarm rate stated lies below the exact bounds of the one seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep the page, and a plot beside it")
    options = parser.parse_args(arguments)
    power: dict[str, dict[str, list[float]]] = {}
    lines = page(power)
    if options.write:
        plot = options.write.with_suffix(".svg")
        draw(power, plot)
        lines += ["", f"![Share called slower against the size of the change, by rule and machine]({plot.name})"]
        options.write.write_text("\n".join(lines) + "\n")
    sys.stdout.write("\n".join(lines) + "\n")
    return int(any(rate_bounds(round(rules["this judge"][0] * RUNS), RUNS, confidence=0.975).low > ALPHA for rules in power.values()))


if __name__ == "__main__":
    raise SystemExit(main())
