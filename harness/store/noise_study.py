"""A folder of a noise study: samples of each change, written anew after each process, so that a study that is cut keeps what it saw."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any, cast

from harness.errors import BadSamples
from harness.records.latency import LatencySamples
from harness.store.atomic import write_atomically
from harness.store.codec import to_json
from harness.store.latency_samples import latency_samples_json, read_latency_samples

_SAMPLES, _TRACE = "samples-{}.json.gz", "trace.json.gz"
UNCHANGED = "none"


class NoiseFolder:
    """Samples by the name of the change, and launches in a row."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def samples(self) -> dict[str, LatencySamples]:
        """All that are there, those without a change first.

        Raises:
            BadSamples: a file is cut or holds something else.
        """
        found: dict[str, LatencySamples] = {}
        for file in sorted(self.path.glob(_SAMPLES.format("*"))):
            name = file.name.removeprefix("samples-").removesuffix(".json.gz")
            found[name] = read_latency_samples(_unpacked(file), origin=str(file))
        return dict(sorted(found.items(), key=lambda one: (one[0] != UNCHANGED, one[0])))

    def keep_samples(self, samples: dict[str, LatencySamples]) -> None:
        """Write the samples of every change in place of those before."""
        for name, one in samples.items():
            write_atomically(self.path / _SAMPLES.format(name), gzip.compress(latency_samples_json(one), mtime=0))

    def trace(self) -> tuple[float, ...] | None:
        """Milliseconds of launches in a row; None where nobody took them.

        Raises:
            BadSamples: the file is cut or holds something else.
        """
        file = self.path / _TRACE
        if not file.is_file():
            return None
        try:
            plain: object = json.loads(_unpacked(file))
        except ValueError as error:
            raise BadSamples(f"{file}: is no JSON ({error}); expected what a noise study left") from error
        ms = cast("dict[str, Any]", plain).get("ms") if isinstance(plain, dict) else None
        if not isinstance(ms, list) or not all(isinstance(one, (int, float)) and one > 0 for one in cast("list[object]", ms)):
            raise BadSamples(f'{file}: has no "ms" of times above 0; expected what a noise study left')
        return tuple(map(float, cast("list[float]", ms)))

    def keep_trace(self, ms: tuple[float, ...], about: dict[str, str]) -> None:
        """Write launches in a row."""
        write_atomically(self.path / _TRACE, gzip.compress(to_json({"about": about, "ms": [round(one, 6) for one in ms]}), mtime=0))


def _unpacked(file: Path) -> bytes:
    try:
        return gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error) as error:  # gzip says BadGzipFile, an OSError
        raise BadSamples(f"{file}: cannot be read ({error}); copy the whole folder again") from error
