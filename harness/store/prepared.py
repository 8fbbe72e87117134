"""Reads and writes prepared folders: ONNX files, evaluation rows, and the manifest, which is written last."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path, PurePosixPath

import numpy as np

from harness.errors import UnusablePrepared
from harness.records.observations import Embeddings, EncoderInputs
from harness.records.prepared import PREPARED_SCHEMA, PreparedFile, PreparedGraph, PreparedManifest, PreparedRows
from harness.records.spec import EncoderSpec, Recipe
from harness.store.atomic import write_atomically
from harness.store.codec import from_plain, read_json, require_schema, to_json

MANIFEST = "manifest.json"


def write_manifest(folder: Path, manifest: PreparedManifest) -> None:
    """Say what the folder holds, once all of it is there.

    Raises:
        StoreFailed: it cannot be written.
    """
    write_atomically(folder / MANIFEST, to_json(manifest))


def written_file(folder: Path, name: str) -> PreparedFile:
    """What the manifest says of a file that was just written."""
    path = folder / name
    return PreparedFile(file=name, sha256=_sha256(path), nbytes=path.stat().st_size)


def write_rows(folder: Path, name: str, inputs: EncoderInputs, reference: Embeddings) -> None:
    """Keep evaluation inputs and their FP32 reference in one compressed npz file.

    Raises:
        StoreFailed: it cannot be written.
    """
    document = io.BytesIO()
    np.savez_compressed(document, rows=inputs.rows, reference=reference.rows)
    write_atomically(folder / name, document.getvalue())


class PreparedFolder:
    """A prepared folder as it was left.

    Raises:
        UnusablePrepared: it has no manifest, or one of something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        file = path / MANIFEST
        try:
            data = file.read_bytes()
        except OSError as error:
            words = f"{file} cannot be read ({error.strerror}); expected a folder that `enginegate prepare --out` finished"
            raise UnusablePrepared(words) from error
        plain = read_json(data, origin=str(file), refuse=UnusablePrepared)
        require_schema(plain, PREPARED_SCHEMA, origin=str(file), refuse=UnusablePrepared)
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.manifest = from_plain(PreparedManifest, plain, origin=str(file), refuse=UnusablePrepared)

    def file(self, one: PreparedFile) -> Path:
        """Where a file lies, once its content is known to be what the manifest says.

        Raises:
            UnusablePrepared: it is gone, altered, or outside of the folder.
        """
        if len(PurePosixPath(one.file).parts) != 1 or one.file in ("", "..", "."):
            raise UnusablePrepared(f"{self.path / MANIFEST} names {one.file!r}; expected plain file names")
        path = self.path / one.file
        if not path.is_file():
            raise UnusablePrepared(f"{path} is not there, and the manifest names it; copy the whole folder again")
        found = _sha256(path)
        if found != one.sha256:
            raise UnusablePrepared(f"{path} has sha256 {found[:16]}…; the manifest says {one.sha256[:16]}…; copy the folder again")
        return path

    def graph_of(self, encoder: EncoderSpec, recipe: Recipe) -> PreparedGraph:
        """The graph of an encoder by a recipe.

        Raises:
            UnusablePrepared: there is none.
        """
        for graph in self.manifest.graphs:
            if (graph.spec, graph.recipe) == (encoder, recipe):
                return graph
        raise UnusablePrepared(f"{self.path / MANIFEST} has no {encoder.name} {recipe}; prepare it again, with --recipes {recipe}")

    def reference(self, rows: PreparedRows) -> Embeddings:
        """FP32 embeddings of the evaluation inputs."""
        with np.load(self.file(rows.file), allow_pickle=False) as arrays:
            return Embeddings(rows=arrays["reference"], ids=rows.ids, inputs_digest=rows.digest, made_by=rows.made_by)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
