"""The folder of a report on prepared encoders: one file an engine, written as soon as something is known, so that it can go on later."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import UnusablePrepared
from harness.records.gpu_report import GPU_REPORT_SCHEMA, LINE_SCHEMA, ReportAbout, ReportLine
from harness.records.latency import LatencySamples
from harness.records.profile import EngineProfile
from harness.records.run import RunRecord
from harness.store.atomic import write_atomically
from harness.store.codec import from_plain, read_json, require_schema, to_json
from harness.store.latency_samples import latency_samples_json, read_latency_samples
from harness.store.noise_study import NoiseFolder
from harness.store.profiles import SUFFIX, write_profile
from harness.store.run_directory import RunDirectory

ABOUT = "about.json"
REPORT = "report.md"


class ReportFolder:
    """A report's folder; made where it is not there.

    Raises:
        StoreFailed: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = RunDirectory.shared(path)

    def go_on(self, about: ReportAbout) -> ReportAbout:
        """Begin a report, or go on with the one that is here; what it says of itself.

        Raises:
            UnusablePrepared: the one here is of another prepared folder, release or GPU.
        """
        file = self.path / ABOUT
        if not file.is_file():
            write_atomically(file, to_json(about))
            return about
        plain = read_json(file.read_bytes(), origin=str(file), refuse=UnusablePrepared)
        require_schema(plain, GPU_REPORT_SCHEMA, origin=str(file), refuse=UnusablePrepared)
        before = from_plain(ReportAbout, plain, origin=str(file), refuse=UnusablePrepared)
        for name in ("prepared", "backend", "backend_version", "device"):
            was, now = getattr(before, name), getattr(about, name)
            if was != now:
                raise UnusablePrepared(
                    f"{self.path} holds a report whose {name} is {was}, here it is {now}; name another folder with --out"
                )
        return before

    def line(self, name: str) -> ReportLine | None:
        """The line of that name; None where there is none yet."""
        file = self.path / f"engines/{name}.json"
        if not file.is_file():
            return None
        plain = read_json(file.read_bytes(), origin=str(file))
        require_schema(plain, LINE_SCHEMA, origin=str(file))
        return from_plain(ReportLine, plain, origin=str(file))

    def keep_line(self, name: str, line: ReportLine) -> None:
        """Write a line in place of the one before."""
        write_atomically(self.path / f"engines/{name}.json", to_json(line))

    @property
    def study(self) -> NoiseFolder:
        """The folder of its noise study."""
        return NoiseFolder(self.path / "study")

    def run_of(self, batch: int) -> RunDirectory:
        """The run directory of one batch size, which `enginegate compare` reads."""
        return RunDirectory.shared(self.path / f"runs/b{batch}")

    def keep_run(self, batch: int, run: RunRecord, summary: str) -> None:
        """Write what the run directory of one batch size says, for programs and for people."""
        directory = self.run_of(batch)
        directory.save_text("summary.md", summary)
        directory.finish(run)

    def keep_samples(self, name: str, samples: LatencySamples) -> str:
        """Keep raw samples, compressed, and say in which file; `gunzip -c FILE | enginegate judge-latency -` judges them again."""
        kept = self._keep(f"samples/{name}.json.gz", latency_samples_json(samples))
        self._unfinished(name).unlink(missing_ok=True)
        return kept

    def keep_unfinished(self, name: str, samples: LatencySamples) -> None:
        """Keep samples of which more processes are to come."""
        write_atomically(self._unfinished(name), gzip.compress(latency_samples_json(samples), mtime=0))

    def unfinished(self, name: str) -> LatencySamples:
        """Samples of a timing that did not come to its end; without any process where there are none.

        Raises:
            BadSamples: the file is no such document.
        """
        file = self._unfinished(name)
        if not file.is_file():
            return LatencySamples(processes=())
        return read_latency_samples(gzip.decompress(file.read_bytes()), origin=str(file))

    def _unfinished(self, name: str) -> Path:
        return self.path / f"samples/unfinished/{name}.json.gz"

    def keep_layers(self, name: str, source: Path) -> str:
        """Keep the document that an engine's layers were read from, compressed, and say in which file."""
        return self._keep(f"layers/{name}{source.suffix}.gz", source.read_bytes())

    def keep_profile(self, name: str, profile: EngineProfile) -> None:
        """Keep one engine's profile; two of them are what `enginegate explain` takes."""
        write_profile(self.path / f"profiles/{name}{SUFFIX}", profile)

    def keep_embeddings(self, name: str, rows: NDArray[np.float32], *, made_of: str) -> None:
        """Keep what an engine made of the evaluation inputs, as it came out.

        Args:
            made_of: digests of the engine and of the inputs.
        """
        self._files.save_arrays(f"embeddings/{name}", rows=rows, made_of=np.array(made_of))

    def embeddings(self, name: str, *, made_of: str) -> NDArray[np.float32] | None:
        """What this very engine made of these inputs; None where nobody kept it."""
        file = self.path / f"samples/embeddings/{name}.npz"
        if not file.is_file():
            return None
        with np.load(file, allow_pickle=False) as arrays:
            is_same = "made_of" in arrays and str(arrays["made_of"]) == made_of
            return arrays["rows"] if is_same else None

    def keep_report(self, text: str, plot: bytes | None, plot_name: str) -> Path:
        """Write the report for people, and its plot beside it, and say where."""
        if plot is not None:
            write_atomically(self.path / plot_name, plot)
        return self._files.save_text(REPORT, text)

    def _keep(self, relative: str, content: bytes) -> str:
        write_atomically(self.path / relative, gzip.compress(content, mtime=0))
        return relative
