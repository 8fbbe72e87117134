"""Runs of the accuracy suite made by hand: rows that a keeper kept, and the verdicts that they had."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from harness.judge.accuracy.all_metrics import METRICS, judgement
from harness.judge.accuracy.evidence import AccuracyEvidence
from harness.pipeline.comparing import policy_of
from harness.pipeline.keeping import Keeper
from harness.records.kept_accuracy import accuracy_file
from harness.records.observations import Embeddings, RangeUse
from harness.records.run import ReportFinding
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.records.task import Pairing, Task
from harness.records.verdict import Judgement, Severity, Suite, Verdict, exit_code
from harness.store.packaged import packaged
from harness.store.run_directory import RunDirectory
from tests.helpers.runs import run

WEIGHTS = "a checkpoint"
IMAGE = EncoderSpec.parse("a/image", weights=WEIGHTS)
LINEAR = EngineSpec(encoder=IMAGE, recipe=Recipe.LINEAR, backend="fake")
ATTENTION = replace(LINEAR, recipe=Recipe.ATTENTION)
FP16 = replace(LINEAR, recipe=Recipe.FP16)
ROWS, WIDTH = 320, 16


def embeddings(made_by: str, *, noise: float = 0.0, seed: int = 1, inputs: str = "pictures") -> Embeddings:
    """The same rows for everyone, with noise of one's own."""
    exact = np.random.default_rng(0).normal(size=(ROWS, WIDTH))
    rows = exact + noise * np.random.default_rng(seed).normal(size=exact.shape)
    ids = tuple(f"id {row}" for row in range(ROWS))
    return Embeddings(rows=rows.astype(np.float32), ids=ids, inputs_digest=inputs, made_by=made_by)


TASK = Task(
    tower=IMAGE.tower,
    pairing=Pairing.one_to_one("a set", ROWS),
    other=embeddings("a/text in FP32 torch", noise=0.2, seed=9, inputs="captions"),
    logit_scale=100.0,
    same_weights=WEIGHTS,
)


RANGE_USE = RangeUse(
    shares=np.full((ROWS, 2), 0.9, np.float32), quantizers=("fc.input_quantizer", "proj.input_quantizer"), inputs_digest="pictures"
)


def evidence(engine: EngineSpec, **changes: Any) -> AccuracyEvidence:
    """What a clean engine leaves: FP8's error beside FP16's much smaller one."""
    quantized = engine.recipe.is_quantized
    seen = AccuracyEvidence(
        observed=embeddings(engine.id, noise=0.01 if quantized else 1e-4, seed=2),
        exact=embeddings("a/image in FP32 torch"),
        fake_quant=embeddings("fake quantization", noise=0.01, seed=2) if quantized else None,
        range_use=RANGE_USE if quantized else None,
        half=embeddings(FP16.id, noise=1e-4, seed=2) if quantized else None,
        task=TASK,
        approved_snr_db=35.0 if quantized else None,
        weights=WEIGHTS,
    )
    return replace(seen, **changes)


class KeptRun:
    """A run folder in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._directory = RunDirectory.shared(path)
        maker = SimpleNamespace(origin=lambda encoder: WEIGHTS)
        self._keeper = Keeper(SimpleNamespace(maker=maker), self._directory)  # type: ignore[arg-type]
        self._policy = policy_of(packaged("gate.toml"))
        self._verdicts: list[Verdict] = []
        self._reports: list[ReportFinding] = []

    def keep(self, engine: EngineSpec, seen: AccuracyEvidence | None = None, metrics: Iterable[str] = METRICS) -> KeptRun:
        """Keep what an engine made, and what the packaged bounds say of it."""
        seen = seen or evidence(engine)
        self._keeper.keep_accuracy(engine, seen)
        for metric in metrics:
            if engine.recipe.is_quantized or not METRICS[metric].quantized_only:
                self.say(engine, self._judged(metric, engine, seen))
        return self

    def _judged(self, metric: str, engine: EngineSpec, seen: AccuracyEvidence) -> Judgement:
        limit, margin = (lambda name, of=of: of(name, engine) for of in (self._policy.limit, self._policy.margin))
        return judgement(metric, seen, limit=limit, margin=margin)

    def say(self, engine: EngineSpec, judged: Judgement, suite: Suite = Suite.ACCURACY) -> KeptRun:
        """Record a judgement as the plugin does."""
        where = {
            "suite": suite,
            "encoder": engine.encoder.name,
            "recipe": str(engine.recipe),
            "backend": engine.backend,
            "target": engine.target,
        }
        if judged.severity is Severity.REPORT:
            self._reports.append(ReportFinding(**where, check=judged.metric, message="for tests"))
        else:
            own = {name: value for name, value in asdict(judged).items() if name not in ("severity", "findings")}
            self._verdicts.append(Verdict(**where, **own))
        return self

    def finish(self) -> Path:
        """Write `run.json`, and say where the folder is."""
        code = exit_code(verdict.status for verdict in self._verdicts)
        self._directory.finish(replace(run(verdicts=tuple(self._verdicts)), reports=tuple(self._reports), exit_code=code))
        return self.path


def record_of(path: Path, engine: EngineSpec = LINEAR) -> dict[str, Any]:
    """The engine's record, as plain JSON."""
    return json.loads((path / accuracy_file(engine)).read_text())


def change_record(path: Path, change: Callable[[dict[str, Any]], None], engine: EngineSpec = LINEAR) -> None:
    """Write the engine's record anew, as someone with an editor would."""
    plain = record_of(path, engine)
    change(plain)
    (path / accuracy_file(engine)).write_text(json.dumps(plain))


def replace_archive(path: Path, part: str, document: bytes, engine: EngineSpec = LINEAR) -> None:
    """Put another file in the place of a part's archive, with the record's consent."""
    change_record(path, lambda plain: plain[part]["archive"].update(sha256=hashlib.sha256(document).hexdigest()), engine)
    (path / record_of(path, engine)[part]["archive"]["file"]).write_bytes(document)
