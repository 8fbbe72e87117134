"""Builds one engine for a caller who wants the file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import BuildFailed, UnusableGraph, UsageError
from harness.pipeline.making import Maker, Progress
from harness.pipeline.seeing import Pipeline
from harness.prepare.configurations import require_arch
from harness.records.artifacts import OnnxArtifact
from harness.records.policy import NO_ROWS
from harness.records.spec import EncoderSpec, EngineSpec
from harness.store.atomic import copy_atomically, write_atomically
from harness.store.cache import ArtifactCache, default_cache_dir
from harness.store.codec import to_json
from harness.store.left_engine import ENGINE_SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftEngine:
    """What `build` left for the caller: the engine file, and its record as a JSON document."""

    path: Path
    document: str


def build_engine(spec: EngineSpec, *, cache_dir: Path | None, out: Path | None, progress: Progress, onnx: Path | None = None) -> LeftEngine:
    """Build one engine, through the cache, and leave it under `out` with its record; without `out`, in the cache.

    Args:
        onnx: the encoder as it was exported elsewhere, so that nothing is exported here.

    Raises:
        UsageError: something in `spec` is unknown or impossible.
        Broken: the machine, the build or the store failed.
    """
    if onnx is None:
        require_arch(spec.encoder.arch)
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out names {out}, which is a file; expected a folder for the engine and its record")
    pipeline = Pipeline(Maker(ArtifactCache(cache_dir or default_cache_dir()), progress), evaluation_rows=NO_ROWS, progress=progress)
    if onnx is not None:
        spec = replace(spec, encoder=_adopted(pipeline.maker, spec, onnx))
    return left_engine(pipeline, spec, out, stem=spec.stem)


def left_engine(pipeline: Pipeline, spec: EngineSpec, out: Path | None, *, stem: str) -> LeftEngine:
    """The engine under `out` with its record, both of them named `stem`; without `out`, in the cache.

    Raises:
        Broken: the machine, the build or the store failed.
    """
    artifact = pipeline.maker.engine(spec)
    if artifact.path is None:
        raise BuildFailed(f"{spec.id} has no engine file: its backend runs the checkpoint itself; choose another backend")
    path = out / f"{stem}{artifact.path.suffix}" if out else artifact.path
    record = {"schema": ENGINE_SCHEMA, "file": path.name, "sha256": artifact.sha256, "engine": pipeline.engine_row(spec)}
    document = to_json(record)
    if out is not None:
        copy_atomically(artifact.path, path)
        write_atomically(out / f"{stem}.json", document)
    return LeftEngine(path=path, document=document.decode().rstrip())


def _adopted(maker: Maker, spec: EngineSpec, onnx: Path) -> EncoderSpec:
    """The encoder under the digest of its file, which is all that is known of its weights."""
    try:
        with onnx.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        nbytes = onnx.stat().st_size
    except OSError as error:
        raise UnusableGraph(f"{onnx} cannot be read ({error.strerror}); expected an ONNX file") from error
    origin = f"sha256:{digest}"
    encoder = replace(spec.encoder, weights=origin)
    maker.adopt(
        OnnxArtifact(encoder=encoder, recipe=spec.recipe, origin=origin, path=onnx.absolute(), sha256=digest, nbytes=nbytes, opset=0)
    )
    return encoder
