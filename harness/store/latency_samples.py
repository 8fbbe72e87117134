"""Reads and writes latency samples: JSON of ours, or of any other tool that timed two engines in turns."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from harness.errors import BadSamples
from harness.records.latency import LATENCY_SAMPLES_SCHEMA, LatencySamples, ProcessBlocks
from harness.store.atomic import write_atomically
from harness.store.codec import to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySamplesFile:
    """The document, `enginegate/latency-samples/1`. Keys that it does not know are left alone, since files come from anywhere."""

    schema: Literal["enginegate/latency-samples/1"]
    unit: Literal["ms"]
    processes: tuple[ProcessBlocks, ...]
    about: dict[str, Any] = field(default_factory=dict[str, Any])


def read_latency_samples(data: bytes, *, origin: str) -> LatencySamples:
    """The samples in a document.

    Numbers are taken as they are, also NaN and infinity, which JSON does not know and Python writes: whether they are times is the
    judge's to say.

    Raises:
        BadSamples: no JSON, another schema or unit, or a field that is missing or of another type, by its name.
    """
    try:
        plain: object = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadSamples(f"{origin}: is no JSON ({error}); expected a document of schema {LATENCY_SAMPLES_SCHEMA}") from error
    found = cast("dict[str, object]", plain).get("schema") if isinstance(plain, dict) else None
    if found != LATENCY_SAMPLES_SCHEMA:
        raise BadSamples(f'{origin}: has schema {found!r}; expected "{LATENCY_SAMPLES_SCHEMA}"')
    try:
        read = msgspec.convert(plain, LatencySamplesFile)
    except msgspec.ValidationError as error:
        raise BadSamples(f"{origin}: {error}; expected a document of schema {LATENCY_SAMPLES_SCHEMA}") from error
    about = {name: str(value) for name, value in read.about.items()}
    return LatencySamples(processes=read.processes, about=about)


def latency_samples_json(samples: LatencySamples) -> bytes:
    """The document of these samples.

    Raises:
        StoreFailed: a time is NaN or infinite.
    """
    processes = [asdict(process) for process in samples.processes]
    return to_json({"schema": LATENCY_SAMPLES_SCHEMA, "unit": "ms", "processes": processes, "about": dict(samples.about)})


def write_latency_samples(path: Path, samples: LatencySamples) -> None:
    """Write the document.

    Raises:
        StoreFailed: it cannot be written.
    """
    write_atomically(path, latency_samples_json(samples))
