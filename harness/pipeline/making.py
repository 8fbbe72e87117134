"""What is made: inputs, ONNX files, engines and references, each fetched from the cache under a key that names what makes it.

So a warm run imports neither torch nor Model Optimizer, and within one process every step happens once.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from harness.backends.refusals import require_possible
from harness.contracts import Action, Capability, Say
from harness.errors import EnginegateError, NeedsFixedBatch, UnsupportedTarget
from harness.need import version_of
from harness.pipeline.isolating import built_apart, gpu_of
from harness.pipeline.names import backend_of
from harness.records.artifacts import BuiltFiles, EngineArtifact, OnnxArtifact, Repair
from harness.records.observations import Embeddings, EncoderInputs, RangeUse
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.store.cache import ArtifactCache, CacheEntry
from harness.store.codec import from_plain, to_plain

if TYPE_CHECKING:
    from harness.contracts import Backend
    from harness.prepare.dataset import Dataset

Made = TypeVar("Made")
# What is being done, as a context; what it gives says how far it is, where anyone listens.
Progress = Callable[[str], AbstractContextManager[Say | None]]

# Libraries whose version changes what preparation makes, and what inputs are.
_PREPARED_BY = ("torch", "open-clip-torch", "nvidia-modelopt", "onnx", "onnx-graphsurgeon")
_READ_BY = ("open-clip-torch", "torchvision", "pillow")

# Files of an entry that holds what a reference made of its inputs.
_EMBEDDINGS = "embeddings.npz"
_SHARES = "shares.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnnxFacts:
    opset: int
    repairs: tuple[Repair, ...]
    amax: Mapping[str, float]
    calibration: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReferenceFacts:
    logit_scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _FakeQuantFacts:
    quantizers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _BatchFacts:
    """Why no engine for a batch that changes can be built; None where it can."""

    refusal: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """The engine that is built where another was asked for, and why; itself, and no word, where nothing stands in the way."""

    engine: EngineSpec
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _InputFacts:
    name: str
    ids: tuple[str, ...]
    digest: str
    notes: tuple[str, ...] = ()


class Once:
    """Remembers what was made, and what broke: neither is tried again for every gate that needs it."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], Any] = {}
        self._broken: dict[tuple[object, ...], Exception] = {}

    def __call__(self, key: tuple[object, ...], make: Callable[[], Made]) -> Made:
        """The thing of that key, made now unless it was.

        Raises:
            Exception: what `make` raised, the first time or now.
        """
        if key in self._broken:
            raise self._broken[key]
        if key not in self._made:
            try:
                self._made[key] = make()
            except Exception as error:  # whatever it was: half an hour of quantization is not tried again for each gate
                self._broken[key] = error
                raise
        return self._made[key]


class Maker:
    """Makes what a run asks for.

    Args:
        cache: where artifacts live between runs.
        progress: called as a context manager with what is being done, for people.
        note: called with one line on what was found while doing it.
        recipes: of the engines that are compared with each other.
    """

    def __init__(
        self,
        cache: ArtifactCache,
        progress: Progress,
        note: Callable[[str], None] = lambda text: None,
        *,
        recipes: Sequence[Recipe] = (),
    ) -> None:
        self._cache = cache
        self._progress = progress
        self._note = note
        self._once = Once()
        self._engines: dict[EngineSpec, EngineArtifact] = {}
        self._notes: dict[EngineSpec, str] = {}
        self._recipes = tuple(recipes)

    def origin(self, encoder: EncoderSpec) -> str:
        """Where the weights come from, free of paths."""
        from harness.prepare.checkpoint import weights_origin

        return self._once(("origin", encoder.weights), lambda: weights_origin(encoder))

    def inputs(self, encoder: EncoderSpec, data: Dataset) -> EncoderInputs:
        """All pictures, or all captions, as the encoder takes them."""
        # Only pretrained tags carry a preprocessing of their own; all other weights of a configuration share theirs.
        origin = self.origin(encoder)
        shared = encoder if origin == encoder.weights and encoder.seed is None else replace(encoder, weights="seeded:0")
        return self._once(("inputs", shared, data), lambda: self._inputs(shared, data))

    def onnx(self, encoder: EncoderSpec, recipe: Recipe) -> OnnxArtifact:
        """The exported encoder. Recipes that make one graph of this tower share it, and with it every engine built from it."""
        made = recipe.on(encoder.tower)
        return self._once(("onnx", encoder, made), lambda: self._onnx(encoder, made))

    def adopt(self, onnx: OnnxArtifact) -> None:
        """Take a file that was exported elsewhere for the encoder and recipe that it names."""
        self._once(("origin", onnx.encoder.weights), lambda: onnx.origin)
        self._once(("onnx", onnx.encoder, onnx.recipe.on(onnx.encoder.tower)), lambda: onnx)

    def engine(self, spec: EngineSpec, *, gpu: str | None = None) -> EngineArtifact:
        """The built engine.

        Args:
            gpu: UUID of the GPU to build it on, where it is not built yet; None leaves the choice to the backend.

        Raises:
            UnsupportedTarget: the backend compiles for a GPU and none is named, or that GPU cannot have it.
            MissingLibrary: the backend cannot build here, in its own words.
        """
        self._engines[spec] = self._once(("engine", spec), lambda: self._engine(spec, gpu))
        return self._engines[spec]

    def is_built(self, spec: EngineSpec) -> bool:
        """Whether the cache has the engine, and the file that it is built from: asking for it then makes nothing.

        Raises:
            EnginegateError: the backend or the encoder cannot be asked.
        """
        exported = self._onnx_made_from(spec.encoder, spec.recipe.on(spec.encoder.tower))
        return self._cache.holds("onnx", exported) and self._cache.holds("engine", self._engine_made_from(spec, backend_of(spec.backend)))

    def stand_in(self, spec: EngineSpec) -> StandIn:
        """What is built in place of `spec`: itself, or the same with a fixed batch where a builder has no kernels for one that changes.

        One engine that needs it decides for all of its encoder on that backend, FP16 too: what is compared computes the same batch, and
        a run has one engine of each name.

        Raises:
            EnginegateError: what the build of `spec` itself raises.
        """
        return self._once(("stand-in", spec), lambda: self._stand_in(spec)) if may_have_stand_in(spec) else StandIn(engine=spec)

    def note_on(self, spec: EngineSpec) -> str:
        """Why this engine is there in place of another that was asked for; empty where it is not."""
        return self._notes.get(spec, "")

    def reference(self, encoder: EncoderSpec, inputs: EncoderInputs) -> Embeddings:
        """FP32 embeddings of `inputs`, by PyTorch."""
        return self._once(("reference rows", encoder, inputs.digest), lambda: self._reference(encoder, inputs))

    def logit_scale(self, encoder: EncoderSpec, inputs: EncoderInputs) -> float:
        """What the encoder's model multiplies cosines with; learnt of the reference embeddings of `inputs`."""
        return _facts(_ReferenceFacts, self._reference_entry(encoder, inputs)).logit_scale

    def fake_quant(self, encoder: EncoderSpec, recipe: Recipe, inputs: EncoderInputs) -> Embeddings:
        """Embeddings of `inputs` by PyTorch in FP32 with the recipe's quantizers in place."""
        return self._once(("fake-quant rows", encoder, recipe, inputs.digest), lambda: self._fake_quant(encoder, recipe, inputs))

    def range_use(self, encoder: EncoderSpec, recipe: Recipe, inputs: EncoderInputs) -> RangeUse:
        """How those quantizers use their ranges on `inputs`."""
        return self._once(("range use", encoder, recipe, inputs.digest), lambda: self._range_use(encoder, recipe, inputs))

    def working(self, words: str) -> AbstractContextManager[Say | None]:
        """Say what is being done, for as long as it is."""
        return self._progress(words)

    @property
    def engines(self) -> tuple[EngineSpec, ...]:
        """Every engine that was made or found so far."""
        return tuple(self._engines)

    def _inputs(self, encoder: EncoderSpec, data: Dataset) -> EncoderInputs:
        from harness.prepare.dataset import encoder_inputs, rows_in_words

        made_from = {
            **self._shape_of(encoder),
            "preprocessing": encoder.weights,
            "source": data.source(),
            "versions": _versions(_READ_BY),
            "code": self._code("harness.prepare"),
        }

        def build(folder: Path) -> Mapping[str, Any]:
            made = encoder_inputs(encoder, data)
            np.savez(folder / "inputs.npz", rows=made.rows)
            return to_plain(_InputFacts(name=made.name, ids=made.ids, digest=made.digest, notes=made.notes))

        entry = self._fetch("inputs", made_from, build, doing=f"reading {rows_in_words(encoder, data)}, for {encoder.name}")
        facts = _facts(_InputFacts, entry)
        for note in facts.notes:
            self._note(f"{data.pairing.source}, for {encoder.arch}: {note}")
        return EncoderInputs(name=facts.name, rows=_array(entry, "inputs.npz"), ids=facts.ids, digest=facts.digest, notes=facts.notes)

    def _onnx_made_from(self, encoder: EncoderSpec, recipe: Recipe) -> dict[str, Any]:
        from harness.prepare.inputs import CALIBRATION

        source = CALIBRATION.source() if recipe.is_quantized else None
        return {**self._prepared_from(encoder), "recipe": str(recipe), "calibration": source}

    def _onnx(self, encoder: EncoderSpec, recipe: Recipe) -> OnnxArtifact:
        from harness.prepare.encoder_onnx import LOG_FILE, ONNX_FILE, make_onnx
        from harness.prepare.inputs import CALIBRATION

        def build(folder: Path) -> Mapping[str, Any]:
            calibration = self.inputs(encoder, CALIBRATION) if recipe.is_quantized else None
            made = make_onnx(encoder, recipe, calibration, folder)
            digest = calibration.digest if calibration else None
            return to_plain(_OnnxFacts(opset=made.opset, repairs=made.repairs, amax=made.amax, calibration=digest))

        made_from = self._onnx_made_from(encoder, recipe)
        entry = self._fetch("onnx", made_from, build, doing=f"preparing {encoder.name} {recipe}")
        facts, model = _facts(_OnnxFacts, entry), entry.files[ONNX_FILE]
        return OnnxArtifact(
            encoder=encoder,
            recipe=recipe,
            origin=self.origin(encoder),
            path=entry.path(ONNX_FILE),
            sha256=model.sha256,
            nbytes=model.nbytes,
            opset=facts.opset,
            calibration=facts.calibration,
            repairs=facts.repairs,
            log=entry.path(LOG_FILE),
            versions=_versions(_PREPARED_BY),
            amax=facts.amax,
        )

    def _prepared_from(self, encoder: EncoderSpec) -> dict[str, Any]:
        weights, code = self.origin(encoder), self._code("harness.prepare")
        return {**self._shape_of(encoder), "weights": weights, "versions": _versions(_PREPARED_BY), "code": code}

    def _shape_of(self, encoder: EncoderSpec) -> dict[str, str]:
        return self._once(("shape", encoder.arch, encoder.tower), lambda: _shape_of(encoder))

    def _code(self, package: str) -> str:
        return self._once(("code", package), lambda: code_digest(package))

    def _stand_in(self, spec: EngineSpec) -> StandIn:
        for recipe in dict.fromkeys((spec.recipe, *self._recipes)):
            other = replace(spec, recipe=recipe)
            if recipe.is_quantized and (refusal := self._refusal(other, of=spec)) is not None:
                fixed = replace(spec, batch=spec.batch.fixed)
                note = f"built for batch {fixed.batch} in place of {spec.batch}, as is every engine of {spec.encoder.name}: {refusal}"
                self._notes[fixed] = note
                self._note(f"{spec.id}: {note}")
                return StandIn(engine=fixed, note=note)
        return StandIn(engine=spec)

    def _refusal(self, spec: EngineSpec, *, of: EngineSpec) -> str | None:
        """Why no engine with this batch can be built, where another fixed one can. What else goes wrong with another is its own affair."""
        try:
            return self._once(("refusal", spec), lambda: self._tried(spec))
        except EnginegateError:
            if spec == of:
                raise
            return None

    def _tried(self, spec: EngineSpec) -> str | None:
        """Kept in the cache: a build that is refused takes as long as one that is not."""
        backend = backend_of(spec.backend)
        _require_possible(backend, spec)

        def build(_: Path) -> Mapping[str, Any]:
            try:
                self._once(("engine", spec), lambda: self._engine(spec, None))
            except NeedsFixedBatch as refusal:
                return to_plain(_BatchFacts(refusal=str(refusal).partition("\n")[0]))
            return to_plain(_BatchFacts(refusal=None))

        return _facts(_BatchFacts, self._cache.fetch("batch", self._engine_made_from(spec, backend), build)).refusal

    def _engine_made_from(self, spec: EngineSpec, backend: Backend) -> dict[str, Any]:
        source = self.onnx(spec.encoder, spec.recipe)
        made_from = {
            "onnx": source.sha256,
            "backend": backend.name,
            "version": backend.version,
            "target": spec.target,
            "batch": str(spec.batch),
            **spec.options.made_from,
            "code": self._code("harness.backends"),
        }
        if (bound := gpu_of(backend)) is not None:
            made_from["gpu"] = bound.machine_class
        return made_from

    def _engine(self, spec: EngineSpec, gpu: str | None) -> EngineArtifact:
        backend = backend_of(spec.backend)
        _require_possible(backend, spec)
        source = self.onnx(spec.encoder, spec.recipe)

        def build(folder: Path) -> Mapping[str, Any]:
            with self._progress(f"building {spec.id}") as say:
                return to_plain(built_apart(backend, source.path, spec, folder, say=say, gpu=gpu))

        entry = self._cache.fetch("engine", self._engine_made_from(spec, backend), build)
        built = _facts(BuiltFiles, entry)
        engine = entry.files[built.engine]
        return EngineArtifact(
            spec=spec,
            source=source,
            backend_version=backend.version,
            path=entry.path(built.engine),
            sha256=engine.sha256,
            plan_bytes=engine.nbytes,
            build_seconds=entry.build_seconds,
            log=entry.path(built.log) if built.log else None,
            build_host_bytes=built.host_bytes,
            cache_hit=entry.hit,
            layers=entry.path(built.layers) if built.layers else None,
            device=built.device,
            memory=built.memory,
            notes=built.notes,
        )

    def _reference_entry(self, encoder: EncoderSpec, inputs: EncoderInputs) -> CacheEntry:
        def build(folder: Path) -> Mapping[str, Any]:
            from harness.prepare.references import exact_rows

            made = exact_rows(encoder, inputs)
            np.savez(folder / _EMBEDDINGS, rows=made.rows)
            return to_plain(_ReferenceFacts(logit_scale=made.logit_scale))

        made_from = {**self._prepared_from(encoder), "inputs": inputs.digest}
        fetch = partial(self._fetch, "reference", made_from, build, doing=f"running {encoder.name} in FP32")
        return self._once(("reference", encoder, inputs.digest), fetch)

    def _reference(self, encoder: EncoderSpec, inputs: EncoderInputs) -> Embeddings:
        rows = _array(self._reference_entry(encoder, inputs), _EMBEDDINGS)
        return Embeddings(rows=rows, ids=inputs.ids, inputs_digest=inputs.digest, made_by=f"{encoder.name} in FP32 torch")

    def _fake_quant(self, encoder: EncoderSpec, recipe: Recipe, inputs: EncoderInputs) -> Embeddings:
        rows = _array(self._fake_quant_entry(encoder, recipe, inputs), _EMBEDDINGS)
        made_by = f"{encoder.name} {recipe.on(encoder.tower)} as fake quantization"
        return Embeddings(rows=rows, ids=inputs.ids, inputs_digest=inputs.digest, made_by=made_by)

    def _range_use(self, encoder: EncoderSpec, recipe: Recipe, inputs: EncoderInputs) -> RangeUse:
        entry = self._fake_quant_entry(encoder, recipe, inputs)
        quantizers = _facts(_FakeQuantFacts, entry).quantizers
        return RangeUse(shares=_array(entry, _SHARES), quantizers=quantizers, inputs_digest=inputs.digest)

    def _fake_quant_entry(self, encoder: EncoderSpec, asked: Recipe, inputs: EncoderInputs) -> CacheEntry:
        from harness.prepare.inputs import CALIBRATION

        recipe = asked.on(encoder.tower)

        def build(folder: Path) -> Mapping[str, Any]:
            from harness.prepare.references import fake_quant_rows

            calibration = self.inputs(encoder, CALIBRATION)
            made = fake_quant_rows(encoder, recipe, calibration, inputs)
            np.savez(folder / _EMBEDDINGS, rows=made.rows)
            np.savez(folder / _SHARES, rows=made.shares)
            return to_plain(_FakeQuantFacts(quantizers=made.quantizers))

        made_from = {
            **self._prepared_from(encoder),
            "recipe": str(recipe),
            "calibration": CALIBRATION.source(),
            "inputs": inputs.digest,
        }
        fetch = partial(self._fetch, "fake_quant", made_from, build, doing=f"running {encoder.name} {recipe} as fake quantization")
        return self._once(("fake_quant", encoder, recipe, inputs.digest), fetch)

    def _fetch(self, kind: str, made_from: Mapping[str, Any], build: Callable[[Path], Mapping[str, Any]], *, doing: str) -> CacheEntry:
        def build_with_words(folder: Path) -> Mapping[str, Any]:
            with self._progress(doing):
                return build(folder)

        return self._cache.fetch(kind, made_from, build_with_words)


def may_have_stand_in(spec: EngineSpec) -> bool:
    """Whether it takes a build to know which batches this engine can have."""
    return not spec.batch.is_fixed and Capability.MAY_NEED_FIXED_BATCH in backend_of(spec.backend).capabilities


def code_digest(package: str) -> str:
    """sha256 over the source files of one of our packages: what made an artifact includes our own code."""
    digest = hashlib.sha256()
    files = {name: path.read_bytes() for name, path in _sources(importlib.resources.files(package), "")}
    for name, content in sorted(files.items()):
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()


def _sources(folder: Traversable, within: str) -> Iterator[tuple[str, Traversable]]:
    """Python files below `folder`, by their paths from it."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from _sources(path, f"{within}{path.name}/")
        elif path.name.endswith(".py"):
            yield f"{within}{path.name}", path


def _shape_of(encoder: EncoderSpec) -> dict[str, str]:
    from harness.prepare.configurations import config_digest

    return {"arch": encoder.arch, "config": config_digest(encoder.arch), "tower": str(encoder.tower)}


def _versions(distributions: tuple[str, ...]) -> dict[str, str]:
    return {name: version_of(name) or "absent" for name in distributions}


def _facts(cls: type[Made], entry: CacheEntry) -> Made:
    return from_plain(cls, dict(entry.facts), origin=str(entry.folder))


def _array(entry: CacheEntry, name: str) -> Any:
    with np.load(entry.path(name), allow_pickle=False) as arrays:
        return arrays["rows"]


def _require_possible(backend: Backend, spec: EngineSpec) -> None:
    if spec.target is None and Capability.COMPILES_FOR_GPU in backend.capabilities:
        raise UnsupportedTarget(f"{backend.name} compiles for a GPU and none was named; add --target, such as --target SM89")
    require_possible(backend, Action.BUILD, spec)
