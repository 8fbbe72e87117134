"""Latency samples of a machine that is known, so that a judge's alarms can be counted.

log ms = level of the session + of the process and arm + drift (Ornstein-Uhlenbeck, and a ramp) + block noise (AR(1)) + spikes. The
spreads are assumptions in the range that published measurements span; nobody measured them for this project.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.judge.latency.contrasts import contrasts, process_effects

Floats = NDArray[np.float64]

# In turns: A B B A or B A A B, by a coin of the process's own for each group.
ABBA = np.array([False, True, True, False])


@dataclass(frozen=True)
class Machine:
    """Spreads are of log time, so 0.01 is about one percent.

    Attributes:
        block: of a block's median. rho: how much of it the next block inherits.
        drift, seconds: spread and correlation time of the clock's wandering.
        process: of a process's level, for each arm on its own. session: of a day's.
        ramp: rise over the whole process. spikes: share of blocks that take a tenth longer.
    """

    block: float
    drift: float
    seconds: float
    process: float
    session: float
    ramp: float = 0.0
    spikes: float = 0.005
    rho: float = 0.3


MACHINES = {
    "quiet": Machine(block=0.003, drift=0.003, seconds=1.0, process=0.0005, session=0.003),
    "typical": Machine(block=0.008, drift=0.008, seconds=0.5, process=0.002, session=0.01, ramp=0.005),
    "noisy": Machine(block=0.015, drift=0.015, seconds=2.0, process=0.005, session=0.03, ramp=0.01),
}
BLOCK_SECONDS = 0.01
SPIKE = 0.1


def blocks(
    machine: Machine, rng: np.random.Generator, shape: tuple[int, ...], *, groups: int, change: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """Logs of block medians and whose they are, [*shape, groups, 4], of fresh processes; `change` 0.01 is one percent slower."""
    is_candidate = ABBA ^ (rng.random((*shape, groups, 1)) < 0.5)
    count = groups * 4
    level = rng.normal(0, machine.session, (*shape, 1)) + np.linspace(0, machine.ramp, count)
    noise = machine.block * _wander(rng, shape, count, machine.rho)
    drift = machine.drift * _wander(rng, shape, count, float(np.exp(-BLOCK_SECONDS / machine.seconds)))
    spikes = SPIKE * (rng.random((*shape, count)) < machine.spikes)
    log_ms = (level + noise + drift + spikes).reshape(*shape, groups, 4)
    baseline, candidate = rng.normal(0, machine.process, (2, *shape, 1, 1))
    return log_ms + np.where(is_candidate, candidate + np.log1p(change), baseline), is_candidate


def effects_by_block(machine: Machine, rng: np.random.Generator, shape: tuple[int, ...], *, groups: int, change: float) -> Floats:
    """Process figures [*shape], by the shipped functions from every block."""
    return process_effects(contrasts(*blocks(machine, rng, shape, groups=groups, change=change)))


def effects_by_process(spread: float, rng: np.random.Generator, shape: tuple[int, ...], *, change: float) -> Floats:
    """Process figures [*shape] drawn at once, from the law that the blocks' figures were shown to follow."""
    return np.log1p(change) + rng.normal(0, spread, shape)


def _wander(rng: np.random.Generator, shape: tuple[int, ...], count: int, rho: float) -> Floats:
    """Stationary AR(1) of variance 1, [*shape, count]."""
    from scipy.signal import lfilter

    fresh = rng.normal(0, 1, (*shape, count))
    fresh[..., 1:] *= np.sqrt(1 - rho**2)
    return np.asarray(lfilter([1.0], [1.0, -rho], fresh, axis=-1))
