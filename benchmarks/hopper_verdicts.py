"""Judges the embeddings that hopper_accuracy.py brought back from a GPU, as the accuracy suite judges an engine's, and prints a table.

    python benchmarks/hopper_verdicts.py docs/data/hopper-trt-10.6/accuracy

The folder holds `<arch>-<tower>-<recipe>.npz` for the towers of emoji-clip; references are made here, by PyTorch. Bounds are gate.toml's.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from harness.judge.accuracy.all_metrics import METRICS, judgement
from harness.judge.accuracy.evidence import AccuracyEvidence
from harness.pipeline.making import Maker
from harness.pipeline.seeing import Pipeline
from harness.records.observations import Embeddings
from harness.records.policy import EvaluationRows, GatePolicy
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.records.verdict import Judgement
from harness.store.cache import ArtifactCache, default_cache_dir
from harness.store.gatefile import read_gate_file

ROWS = 1382  # every evaluation input: a GPU has the time
RECIPES = (Recipe.FP16, Recipe.LINEAR, Recipe.ATTENTION)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args().folder
    rows = EvaluationRows(seeded=ROWS, trained=ROWS)
    pipeline = Pipeline(Maker(ArtifactCache(default_cache_dir()), _silent), evaluation_rows=rows, progress=_silent)
    policy = read_gate_file(Path(__file__).resolve().parents[1] / "gate.toml")
    engines = [
        EngineSpec(encoder=EncoderSpec.parse(f"emoji-clip/{tower}", weights="noto"), recipe=recipe, backend="onnxruntime")
        for tower in ("image", "text")
        for recipe in RECIPES
    ]
    print("| metric |" + "".join(f" {engine.encoder.tower} {engine.recipe} |" for engine in engines))
    print("| --- |" + " --- |" * len(engines))
    seen = [_evidence(engine, folder, pipeline) for engine in engines]
    for metric in METRICS.values():
        cells = [_cell(metric.name, engine, evidence, policy) for engine, evidence in zip(engines, seen, strict=True)]
        print(f"| `{metric.name}` |" + "".join(f" {cell} |" for cell in cells))


@contextlib.contextmanager
def _silent(_doing: str) -> Iterator[None]:
    yield


def _evidence(engine: EngineSpec, folder: Path, pipeline: Pipeline) -> AccuracyEvidence:
    exact = pipeline.reference(engine.encoder)
    return AccuracyEvidence(
        observed=_brought_back(engine, folder, exact),
        exact=exact,
        fake_quant=pipeline.fake_quant(engine),
        half=_brought_back(replace(engine, recipe=Recipe.FP16), folder, exact) if engine.recipe.is_quantized else None,
        task=pipeline.task(engine.encoder),
        weights=pipeline.maker.origin(engine.encoder),
    )


def _brought_back(engine: EngineSpec, folder: Path, exact: Embeddings) -> Embeddings:
    with np.load(folder / f"{engine.stem}.npz", allow_pickle=False) as arrays:
        rows = arrays["rows"].astype(np.float32)
    return Embeddings(rows=rows, ids=exact.ids, inputs_digest=exact.inputs_digest, made_by=f"{engine.stem} on the GPU")


def _cell(metric: str, engine: EngineSpec, evidence: AccuracyEvidence, policy: GatePolicy) -> str:
    if METRICS[metric].quantized_only and not engine.recipe.is_quantized:
        return ""
    found = judgement(metric, evidence, limit=partial(policy.limit, engine=engine), margin=partial(policy.margin, engine=engine))
    return f"{_figure(found)} {found.status}"


def _figure(found: Judgement) -> str:
    return "-" if found.observed is None else f"{found.observed:.4g}{f' {found.unit}' if found.unit else ''}"


if __name__ == "__main__":
    main()
