"""From blocks of launches to one log ratio a process. All functions take any leading axes.

Logs turn clocks, which multiply times, into sums. In a group of four blocks, A B B A or B A A B, half of B + B - A - A is free of the
session's level and of any drift that is linear in time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Of a process's contrasts, from each end: one spike in ten groups costs nothing, and a clean process loses hardly any precision.
TRIMMED_SHARE = 0.1
# Arms whose mean clocks are further apart than this ran on two machines. Over processes of twelve groups on an H100 at its power limit they
# are at most 1 % apart, the same engine in both arms (docs/hopper.md).
CLOCK_SPREAD = 0.02


def contrasts(log_ms: Floats, is_candidate: Bools) -> Floats:
    """Candidate minus baseline of each group, [..., groups]: the log of their ratio.

    Args:
        log_ms: logs of block medians, [..., groups, blocks of a group].
        is_candidate: whose block it is, of the same shape or one that broadcasts; half of each group's.
    """
    signs = np.where(is_candidate, 1.0, -1.0)
    return (log_ms * signs).sum(axis=-1) / (log_ms.shape[-1] / 2)


def process_effects(group_contrasts: Floats, kept: Bools | None = None) -> Floats:
    """Mean of each process's contrasts without the largest and smallest tenth, [...].

    Args:
        group_contrasts: [..., groups].
        kept: which groups count, of the same shape; None is all. A process with none of them becomes NaN.
    """
    keep = np.ones(group_contrasts.shape, dtype=bool) if kept is None else kept
    ordered = np.sort(np.where(keep, group_contrasts, np.inf), axis=-1)
    count = keep.sum(axis=-1, keepdims=True)
    cut = np.floor(TRIMMED_SHARE * count).astype(int)
    place: NDArray[np.int64] = np.arange(ordered.shape[-1], dtype=np.int64)
    inner: Bools = (place >= cut) & (place < count - cut)
    sums = np.where(inner, ordered, 0.0).sum(axis=-1)
    sizes: NDArray[np.int64] = inner.sum(axis=-1)
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), np.nan)
