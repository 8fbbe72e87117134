"""Cuts a process's blocks into groups that can be compared, and says why samples cannot be judged."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean, median

import numpy as np

from harness.judge.latency.contrasts import CLOCK_SPREAD
from harness.judge.latency.decision import FEWEST_PROCESSES
from harness.records.latency import Arm, Block, LatencySamples, ProcessBlocks

Group = tuple[Block, ...]

# A, B, B, A is free of linear drift; A, B of nothing, and what a file holds that was not made here.
GROUP_SIZES = (4, 2)
# Blocks timed by the clock hold more launches of the faster engine. Twice as many is another design.
LAUNCHES_APART = 2


def problem_of(samples: LatencySamples) -> str | None:
    """Why these samples prove nothing, in words; None when they can be judged."""
    if len(samples.processes) < FEWEST_PROCESSES:
        found = f"{len(samples.processes)} process{'' if len(samples.processes) == 1 else 'es'}"
        return (
            f"{found}; expected at least {FEWEST_PROCESSES}, since blocks of one process share what differs between processes; start more"
        )
    for number, process in enumerate(samples.processes, start=1):
        problem = _problem_of_process(process)
        if problem is not None:
            return f"process {number}: {problem}"
    return _problem_of_clocks(samples)


def group_size(process: ProcessBlocks) -> int | None:
    """Four when consecutive quartets hold two blocks of each arm, two when pairs hold one of each, None when the arms took no turns."""
    return next((size for size in GROUP_SIZES if _takes_turns(process.blocks, size)), None)


def groups_of(process: ProcessBlocks) -> tuple[Group, ...]:
    """The groups of a process whose arms took turns; none where they did not."""
    size = group_size(process)
    if size is None:
        return ()
    return tuple(process.blocks[start : start + size] for start in range(0, len(process.blocks), size))


def kept_groups(process: ProcessBlocks) -> np.ndarray:
    """Which groups of a process count, bool [groups]: those in which no hard reason fired; none where its arms ran at different clocks.

    Clocks are compared over the whole process. A reading is the clock of a moment, and few of them fall into a block of 20 ms: on a board
    at its power limit those of one group lie up to 20 % apart, and say nothing of that group's times (docs/hopper.md).
    """
    unthrottled = np.array([not any(block.hard_reasons for block in group) for group in groups_of(process)], dtype=bool)
    clocks = {arm: _mean_clock(process.blocks, arm) for arm in Arm}
    return unthrottled & _are_alike(clocks[Arm.BASELINE], clocks[Arm.CANDIDATE])


def log_medians(groups: Sequence[Group]) -> np.ndarray:
    """Logs of block medians, [groups, blocks of a group]."""
    return np.log([[median(block.ms) for block in group] for group in groups])


def candidate_blocks(groups: Sequence[Group]) -> np.ndarray:
    """Whose block it is, bool [groups, blocks of a group]."""
    return np.array([[block.arm is Arm.CANDIDATE for block in group] for group in groups])


def _takes_turns(blocks: Sequence[Block], size: int) -> bool:
    if len(blocks) % size:
        return False
    groups = (blocks[start : start + size] for start in range(0, len(blocks), size))
    return all(sum(block.arm is Arm.CANDIDATE for block in group) == size // 2 for group in groups)


def _problem_of_process(process: ProcessBlocks) -> str | None:
    if not process.blocks:
        return "no blocks; expected some of each arm"
    blocks = Counter(block.arm for block in process.blocks)
    if len(blocks) == 1:
        return f"blocks of the {next(iter(blocks))} alone; expected both arms in every process"
    for number, block in enumerate(process.blocks, start=1):
        problem = _problem_of_block(block)
        if problem is not None:
            return f"block {number}: {problem}"
    return _problem_of_design(process, blocks)


def _problem_of_block(block: Block) -> str | None:
    if not block.ms:
        return "no launches; expected at least one"
    broken = [ms for ms in block.ms if not (math.isfinite(ms) and ms > 0)]
    if broken:
        return f"a launch of {broken[0]} ms; expected times above 0 that are finite; the clock or the launch is broken"
    clock = block.sm_clock_mhz
    if clock is not None and not (math.isfinite(clock) and clock > 0):
        return f"an SM clock of {clock} MHz; expected one above 0, or none where nobody read it"
    return None


def _problem_of_design(process: ProcessBlocks, blocks: Counter[Arm]) -> str | None:
    if blocks[Arm.BASELINE] != blocks[Arm.CANDIDATE]:
        found = f"{blocks[Arm.BASELINE]} blocks of the baseline and {blocks[Arm.CANDIDATE]} of the candidate"
        return f"{found}; expected as many of each, in turns"
    if group_size(process) is None:
        return "one arm's blocks follow each other, so a drift looks like a difference; expected turns such as A B B A"
    launches = {arm: median(len(block.ms) for block in process.blocks if block.arm is arm) for arm in Arm}
    fewer, more = sorted(launches.values())
    if more >= fewer * LAUNCHES_APART:
        return f"{fewer:g} launches a block of one arm and {more:g} of the other; expected about as many"
    return None


def _problem_of_clocks(samples: LatencySamples) -> str | None:
    known = {arm: [block.sm_clock_mhz is not None for block in _blocks(samples, arm)] for arm in Arm}
    if any(known[Arm.BASELINE]) != any(known[Arm.CANDIDATE]):
        return "SM clocks of one arm alone; expected those of both, or of neither"
    baseline, candidate = (clock_of(samples, arm) for arm in Arm)
    if baseline is None or candidate is None or _are_alike(baseline, candidate):
        return None
    found = f"the baseline ran at {baseline:.0f} MHz and the candidate at {candidate:.0f}"
    return f"{found}; expected clocks within {CLOCK_SPREAD:.0%}; lock them, or cool the board, and measure again"


def clock_of(samples: LatencySamples, arm: Arm) -> float | None:
    """Mean SM clock of an arm's blocks in MHz; None where nobody read it."""
    return _mean_clock(_blocks(samples, arm), arm)


def _mean_clock(blocks: Iterable[Block], arm: Arm) -> float | None:
    clocks = [block.sm_clock_mhz for block in blocks if block.arm is arm and block.sm_clock_mhz is not None]
    return fmean(clocks) if clocks else None


def _are_alike(one: float | None, other: float | None) -> bool:
    return one is None or other is None or max(one, other) <= min(one, other) * (1 + CLOCK_SPREAD)


def _blocks(samples: LatencySamples, arm: Arm) -> Iterator[Block]:
    return (block for process in samples.processes for block in process.blocks if block.arm is arm)
