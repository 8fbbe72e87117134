"""How other tools would judge the same rows: the rules of Polygraphy, Torch-TensorRT and TensorRT-LLM, as they ship."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

from harness.judge.accuracy.evidence import AccuracyEvidence
from harness.records.observations import Embeddings
from harness.records.spec import Tower
from harness.records.task import Task

TORCH_TENSORRT_COSINE = 0.99  # COSINE_THRESHOLD of py/torch_tensorrt/dynamo/utils.py
TENSORRT_LLM_ALPHA = 0.05  # false alarms; tests/integration/defs/accuracy/README.md
TENSORRT_LLM_SIGMA = 50.0  # percent: the largest deviation that a score between 0 and 100 can have

RULES = ("Polygraphy", "Torch-TensorRT", "TensorRT-LLM")


def passes_by_rule(seen: AccuracyEvidence) -> Mapping[str, bool | None]:
    """Whether each rule would pass these rows; None where a rule asks for a task and there is none."""
    return {
        "Polygraphy": _polygraphy("CosineSimilarityCompareFunc", seen.observed, seen.exact),
        "Torch-TensorRT": _torch_tensorrt(seen.observed, seen.exact),
        "TensorRT-LLM": _tensorrt_llm(seen, seen.task) if seen.task is not None else None,
    }


def passes_polygraphys_l2(seen: AccuracyEvidence) -> bool:
    """Polygraphy's default for the distance of two outputs, 1e-5."""
    return _polygraphy("L2CompareFunc", seen.observed, seen.exact)


def _polygraphy(rule: str, observed: Embeddings, exact: Embeddings) -> bool:
    """Polygraphy's own function with its own threshold: for cosine, 0.997 of the flattened output."""
    from polygraphy import comparator
    from polygraphy.logger import G_LOGGER

    results = [comparator.IterationResult({"embedding": rows.rows}) for rows in (exact, observed)]
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        return all(bool(result) for result in getattr(comparator, rule)()(*results).values())


def _torch_tensorrt(observed: Embeddings, exact: Embeddings) -> bool:
    """Cosine of the flattened outputs above 0.99, as its tests ask."""
    one, other = (rows.rows.astype(np.float64).ravel() for rows in (observed, exact))
    cosine = float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-6))
    return cosine > TORCH_TENSORRT_COSINE


def _tensorrt_llm(seen: AccuracyEvidence, task: Task) -> bool:
    """Zero-shot accuracy at least the reference's less what two unpaired samples of this size may differ by."""
    allowed = NormalDist().inv_cdf(TENSORRT_LLM_ALPHA) * math.sqrt(2 * TENSORRT_LLM_SIGMA**2 / task.pairing.pictures)
    return accuracy_percent(seen.observed, task) >= accuracy_percent(seen.exact, task) + allowed


def tensorrt_llm_theta(samples: int) -> float:
    """The smallest drop in percent that its rule finds in four of five cases (beta 0.2)."""
    normal = NormalDist()
    return -(normal.inv_cdf(TENSORRT_LLM_ALPHA) + normal.inv_cdf(0.2)) * math.sqrt(2 * TENSORRT_LLM_SIGMA**2 / samples)


def accuracy_percent(rows: Embeddings, task: Task) -> float:
    """Pictures whose nearest caption is one of theirs, of 100; one row that is not a number is a wrong one."""
    is_image = task.tower is Tower.IMAGE
    pictures, captions = (rows, task.other) if is_image else (task.other, rows)
    similar = np.nan_to_num(pictures.unit_rows @ captions.unit_rows.T, nan=-np.inf)
    named = np.zeros(similar.shape, bool)
    named[tuple(task.pairing.pairs.T)] = True
    return 100 * float(named[np.arange(len(similar)), similar.argmax(axis=1)].mean())
