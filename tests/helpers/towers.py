"""Embeddings of two towers that know a task, and what an engine may make of them."""

from __future__ import annotations

import numpy as np

from harness.judge.accuracy.evidence import AccuracyEvidence
from harness.records.observations import Embeddings, RangeUse
from harness.records.spec import Tower
from harness.records.task import Pairing, Task

WEIGHTS = "sha256:a test"


def embeddings(rows, *, inputs="the same", made_by="a test") -> Embeddings:
    array = np.asarray(rows, dtype=np.float32)
    return Embeddings(rows=array, ids=tuple(f"input {index}" for index in range(len(array))), inputs_digest=inputs, made_by=made_by)


def task_of(other, *, tower: Tower = Tower.IMAGE, pairs=None, logit_scale: float = 100.0) -> Task:
    """Row i belongs to row i, or as `pairs` of a picture and a caption say."""
    pairs = np.stack([np.arange(len(other))] * 2, axis=1) if pairs is None else np.asarray(pairs)
    pictures, captions = (int(pairs[:, column].max()) + 1 for column in (0, 1))
    return Task(
        tower=tower,
        pairing=Pairing(source="a test set", pictures=pictures, captions=captions, pairs=pairs),
        other=embeddings(other, inputs="the other tower's"),
        logit_scale=logit_scale,
        same_weights=WEIGHTS,
    )


def evidence(
    *,
    n: int = 600,
    captions_each: int = 1,
    tower: Tower = Tower.IMAGE,
    noise: float = 0.05,
    compiler: float = 0.01,
    hardness: float = 1.5,
    width: int = 32,
    seed: int = 0,
) -> AccuracyEvidence:
    """`n` pictures of `captions_each` captions; quantizers that move a row by `noise` of its length, and a compiler by `compiler`.

    Picture and captions share a direction beside `hardness` times as much that they do not share: at 1.5, some are mistaken.
    """
    generator = np.random.default_rng(seed)
    shared = generator.standard_normal((n, width))
    pictures = shared + hardness * 0.5 * generator.standard_normal((n, width))
    captions = np.repeat(shared, captions_each, axis=0) + hardness * 0.5 * generator.standard_normal((n * captions_each, width))
    exact, other = (pictures, captions) if tower is Tower.IMAGE else (captions, pictures)
    pairs = np.stack([np.repeat(np.arange(n), captions_each), np.arange(n * captions_each)], axis=1)
    planned = exact + noise * generator.standard_normal(exact.shape)
    return AccuracyEvidence(
        observed=embeddings(planned + compiler * generator.standard_normal(exact.shape), made_by="the engine"),
        exact=embeddings(exact, made_by="FP32"),
        fake_quant=embeddings(planned, made_by="fake-quant"),
        range_use=RangeUse(shares=np.full((len(exact), 1), 0.9, np.float32), quantizers=("fc",), inputs_digest="the same"),
        half=embeddings(exact + 0.001 * generator.standard_normal(exact.shape), made_by="the FP16 engine"),
        task=task_of(other, tower=tower, pairs=pairs),
        weights=WEIGHTS,
    )


def with_rows(seen: Embeddings, rows) -> Embeddings:
    """The same inputs, otherwise answered."""
    return embeddings(rows, inputs=seen.inputs_digest, made_by=seen.made_by)
