"""What other tools would say of the same blocks, each rule from its documentation, in its usual setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Of two arms' block times in ms, [blocks] each, in time order: is the second called a regression?
Rule = Callable[[Floats, Floats], bool]


def mean_above(factor: float) -> Rule:
    """pytest-benchmark `--benchmark-compare-fail=mean:5%`; TensorRT-LLM's 5 % after a merge and 10 % before: one number against another."""
    return lambda baseline, candidate: bool(candidate.mean() > factor * baseline.mean())


def asv_continuous(baseline: Floats, candidate: Floats) -> bool:
    """asv continuous: Mann-Whitney's p below 0.002, and medians apart by the factor 1.1."""
    from scipy.stats import mannwhitneyu

    if np.median(candidate) <= 1.1 * np.median(baseline):
        return False
    return bool(mannwhitneyu(baseline, candidate, alternative="two-sided").pvalue < 0.002)


def nvbench_robust(baseline: Floats, candidate: Floats) -> bool:
    """nvbench-compare-robust: intervals from the least time to the third quartile, with a gap of at least 0.5 % between them."""
    return bool(candidate.min() > 1.005 * np.quantile(baseline, 0.75))


def paired_bootstrap(baseline: Floats, candidate: Floats) -> bool:
    """tensorrt-upgrade-guard: 20 pairs, log ratio of medians, one-sided 95 % bootstrap bound above its allowance of 5 %."""
    pairs = 20
    logs = np.log(np.median(candidate.reshape(pairs, -1), axis=1)) - np.log(np.median(baseline.reshape(pairs, -1), axis=1))
    drawn = np.random.default_rng(0).integers(0, pairs, (5000, pairs))
    return bool(np.quantile(logs[drawn].mean(axis=1), 0.05) > np.log(1.05))


RULES: Mapping[str, Rule] = {
    "pytest-benchmark mean:5%, TensorRT-LLM 5 %": mean_above(1.05),
    "TensorRT-LLM 10 %": mean_above(1.10),
    "asv continuous": asv_continuous,
    "nvbench-compare-robust": nvbench_robust,
    "20 pairs, bootstrap above 5 %": paired_bootstrap,
}
