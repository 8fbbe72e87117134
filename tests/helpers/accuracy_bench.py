"""A clean engine on ONNX Runtime with all that it is judged by, and a way to run and judge broken ones in its place."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import EnginegateError
from harness.judge.accuracy.all_metrics import METRICS, judgement
from harness.judge.accuracy.evidence import AccuracyEvidence
from harness.judge.accuracy.references import snr_to_fake_quant_db
from harness.judge.accuracy.rows import snr_of
from harness.judge.onnx_checks.all_checks import all_findings
from harness.judge.structure import GraphView
from harness.measure.embeddings import batch_sizes, embed
from harness.measure.onnx_graph import read_onnx_graph
from harness.pipeline.evidence import graph_evidence
from harness.pipeline.making import Maker, code_digest
from harness.pipeline.names import backend_of
from harness.prepare.dataset import inputs_digest
from harness.prepare.inputs import CALIBRATION, EmojiSet, Split
from harness.records.artifacts import EngineArtifact
from harness.records.observations import Embeddings, EncoderInputs, RangeUse
from harness.records.policy import GatePolicy
from harness.records.spec import EngineSpec, Recipe
from harness.records.task import Task
from harness.records.verdict import Judgement, Severity
from harness.store.cache import ArtifactCache, default_cache_dir
from harness.store.gatefile import read_gate_file
from tests.helpers.accuracy_faults.fault import Clean, Remade, Subject, unbroken
from tests.helpers.accuracy_outcomes import Outcome
from tests.helpers.gates import REPOSITORY
from tests.helpers.other_rules import passes_by_rule


def bench_of(engine: EngineSpec, rows: int) -> Bench:
    """A bench on the first `rows` evaluation rows, through the artifact cache."""
    cache = ArtifactCache(default_cache_dir())
    return Bench(engine, rows=rows, maker=Maker(cache, _quietly), cache=cache)


def _quietly(_task: str) -> AbstractContextManager[None]:
    return nullcontext()


class Bench:
    """One clean engine, and what broken ones are compared with.

    Args:
        engine: on ONNX Runtime.
        rows: how many evaluation rows.
        inputs: others in place of those; there is no task then.
    """

    def __init__(self, engine: EngineSpec, *, rows: int, maker: Maker, cache: ArtifactCache, inputs: EncoderInputs | None = None) -> None:
        self.engine = engine
        self.maker = maker
        self._cache = cache
        self._rows = rows
        self._data = EmojiSet(split=Split.EVALUATION, rows=rows)
        self.inputs = inputs or maker.inputs(engine.encoder, self._data)
        self._has_task = inputs is None and engine.encoder.seed is None

    def on(self, inputs: EncoderInputs) -> Bench:
        """The same engine on other inputs, without a task."""
        return Bench(self.engine, rows=self._rows, maker=self.maker, cache=self._cache, inputs=inputs)

    @cached_property
    def policy(self) -> GatePolicy:
        return read_gate_file(REPOSITORY / "gate.toml")

    def kept(self, kind: str, made_from: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """Rows of a kind, from the cache where they were made of the same before."""

        def build(folder: Path) -> Mapping[str, Any]:
            np.savez(folder / "rows.npz", rows=make())
            return {}

        with np.load(self._cache.fetch(kind, made_from, build).path("rows.npz")) as arrays:
            return arrays["rows"]

    @cached_property
    def clean(self) -> Clean:
        made = self.maker.onnx(self.engine.encoder, self.engine.recipe)
        return Clean(
            engine=self.engine,
            path=made.path,
            view=GraphView(read_onnx_graph(made.path)),
            amax=made.amax,
            inputs=self.inputs,
            calibration=self.maker.inputs(self.engine.encoder, CALIBRATION),
            remake=self._remade,
        )

    @cached_property
    def evidence(self) -> AccuracyEvidence:
        """What the clean engine is judged by, approved as it is."""
        encoder, recipe = self.engine.encoder, self.engine.recipe
        exact = self.maker.reference(encoder, self.inputs)
        observed = self.run(unbroken(self.clean))
        fake_quant = self.maker.fake_quant(encoder, recipe, self.inputs) if recipe.is_quantized else None
        return AccuracyEvidence(
            observed=observed,
            exact=exact,
            fake_quant=fake_quant,
            range_use=self.maker.range_use(encoder, recipe, self.inputs) if recipe.is_quantized else None,
            half=self._half() if recipe.is_quantized else None,
            task=self._task() if self._has_task else None,
            approved_snr_db=snr_of(observed, exact),
            approved_to_fake_quant_db=None if fake_quant is None else _to_fake_quant_db(observed, fake_quant, exact),
        )

    def _half(self) -> Embeddings:
        engine = replace(self.engine, recipe=Recipe.FP16)
        half = Bench(engine, rows=self._rows, maker=self.maker, cache=self._cache, inputs=self.inputs)
        return half.run(unbroken(half.clean))

    def _task(self) -> Task:
        other = replace(self.engine.encoder, tower=self.engine.encoder.tower.other)
        inputs = self.maker.inputs(other, self._data)
        return Task(
            tower=self.engine.encoder.tower,
            pairing=self._data.pairing,
            other=self.maker.reference(other, inputs),
            logit_scale=self.maker.logit_scale(other, inputs),
            same_weights=self.maker.origin(self.engine.encoder),
        )

    def run(self, subject: Subject) -> Embeddings:
        """What the engine makes of what it is fed; from the cache where the very same engine was fed the same before."""
        backend = backend_of(self.engine.backend)
        made_from = {
            "model": hashlib.sha256(subject.model.SerializeToString(deterministic=True)).hexdigest(),
            "fed": inputs_digest(self.inputs.name, subject.fed),
            "batch": str(self.engine.batch),
            "backend": [backend.name, backend.version],
            "code": [code_digest("harness.backends"), code_digest("harness.measure")],
        }
        rows = self.kept("observed", made_from, lambda: self._embedded(subject).rows)
        sizes = batch_sizes(len(rows), self.engine.batch)
        batches = np.split(rows, np.cumsum(sizes)[:-1])
        rows = np.concatenate([subject.after(batch, sum(sizes[:index])) for index, batch in enumerate(batches)])
        return Embeddings(rows=rows, ids=self.inputs.ids, inputs_digest=self.inputs.digest, made_by=self.engine.id)

    def _embedded(self, subject: Subject) -> Embeddings:
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            onnx.save(subject.model, path := Path(folder) / "model.onnx")
            return _embedded(path, self.engine, self.inputs, subject.fed)

    def outcome(self, subject: Subject) -> Outcome:
        """What the accuracy suite, the graph checks and other tools' rules say of an engine."""
        checks = self.checks(subject)
        clean_db = self.evidence.approved_snr_db
        assert clean_db is not None, "the clean engine approves itself"
        try:
            seen = self.seen(subject)
        except EnginegateError:
            return Outcome(judgements=(), checks=checks, snr_db=None, clean_snr_db=clean_db)
        snr_db = snr_of(seen.observed, seen.exact)
        return Outcome(
            judgements=self.judged(seen),
            checks=checks,
            snr_db=snr_db if np.isfinite(snr_db) else None,
            clean_snr_db=clean_db,
            passed_by=passes_by_rule(seen),
        )

    def seen(self, subject: Subject) -> AccuracyEvidence:
        """What judges of accuracy look at."""
        evidence = replace(self.evidence, observed=self.run(subject))
        if subject.fake_quant is None or evidence.fake_quant is None:
            return evidence
        return replace(evidence, fake_quant=replace(evidence.fake_quant, rows=subject.fake_quant), range_use=subject.range_use)

    def judged(self, seen: AccuracyEvidence) -> tuple[Judgement, ...]:
        """Every metric that the suite asks of this engine, in its order, held to gate.toml."""
        return judged_by(self.policy, self.engine, seen)

    def checks(self, subject: Subject) -> tuple[str, ...]:
        """Checks of the graph that find what fails a gate."""
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            onnx.save(subject.model, path := Path(folder) / "model.onnx")
            seen = graph_evidence(GraphView(read_onnx_graph(path)), reference=self._fp16_view, amax=subject.amax)
            found = all_findings(seen, self.policy.policy(self.engine.recipe))
        named = {one.check for one in found if one.severity is Severity.GATE}
        return tuple(sorted(named, key=lambda check: int(check[1:])))

    @cached_property
    def _fp16_view(self) -> GraphView:
        return GraphView(read_onnx_graph(self.maker.onnx(self.engine.encoder, Recipe.FP16).path))

    def _remade(self, calibration: EncoderInputs) -> Remade:
        import onnx

        spec, recipe = self.engine.encoder, self.engine.recipe

        def build(folder: Path) -> Mapping[str, Any]:
            from harness.prepare.encoder_onnx import make_onnx
            from harness.prepare.references import fake_quant_rows

            facts = make_onnx(spec, recipe, calibration, folder)
            planned = fake_quant_rows(spec, recipe, calibration, self.inputs)
            np.savez(folder / "fake_quant.npz", rows=planned.rows, shares=planned.shares, quantizers=np.asarray(planned.quantizers))
            return {"amax": dict(facts.amax)}

        made_from = {
            "encoder": asdict(spec) | {"weights": self.maker.origin(spec)},
            "recipe": str(recipe),
            "calibration": calibration.digest,
            "inputs": self.inputs.digest,
            "code": code_digest("harness.prepare"),
        }
        entry = self._cache.fetch("recalibrated", made_from, build)
        with np.load(entry.path("fake_quant.npz")) as arrays:
            quantizers = tuple(map(str, arrays["quantizers"]))
            use = RangeUse(shares=arrays["shares"], quantizers=quantizers, inputs_digest=self.inputs.digest)
            amax: Any = entry.facts["amax"]
            return Remade(model=onnx.load(entry.path("model.onnx")), amax=dict(amax), fake_quant=arrays["rows"], range_use=use)


def _to_fake_quant_db(observed: Embeddings, fake_quant: Embeddings, exact: Embeddings) -> float | None:
    return snr_to_fake_quant_db(observed, fake_quant, exact, margin_db=0.0).observed


def judged_by(policy: GatePolicy, engine: EngineSpec, seen: AccuracyEvidence) -> tuple[Judgement, ...]:
    """Every metric that the accuracy suite asks of an engine, in its order, held to a policy."""
    return tuple(
        judgement(name, seen, limit=partial(policy.limit, engine=engine), margin=partial(policy.margin, engine=engine))
        for name, metric in METRICS.items()
        if (seen.task is not None or not metric.needs_task) and (engine.recipe.is_quantized or not metric.quantized_only)
    )


def _embedded(path: Path, spec: EngineSpec, inputs: EncoderInputs, fed: Any) -> Embeddings:
    """Rows of the engine in a file; they count as of `inputs`, whatever it is fed."""
    backend = backend_of(spec.backend)
    artifact = EngineArtifact(
        spec=spec, source=None, backend_version=backend.version, path=path, sha256=None, plan_bytes=None, build_seconds=0.0
    )
    with backend.open(artifact, threads=1) as session:
        return embed(session, _Fed(inputs, fed), profile=spec.batch, made_by=spec.id)


class _Fed:
    """Inputs under the digest and ids of others; not held to be finite or of one shape, as an engine's own refusal is looked for."""

    def __init__(self, inputs: EncoderInputs, fed: Any) -> None:
        self.name, self.ids, self.digest, self.rows = inputs.name, inputs.ids, inputs.digest, fed

    def __len__(self) -> int:
        return len(self.rows)
