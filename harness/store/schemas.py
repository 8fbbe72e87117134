"""The JSON Schema files that ship with the distribution in `harness/data/schemas`, made from the records themselves."""

from __future__ import annotations

import json
from pathlib import Path

from harness.records.bench import BenchRecord
from harness.records.comparison import Comparison
from harness.records.engine_nodes import EngineLayers
from harness.records.explanation import Explanation
from harness.records.findings import GraphFindings
from harness.records.kept_accuracy import KeptAccuracy
from harness.records.latency import LatencyJudgement
from harness.records.latency_baseline import LatencyBaselineFile, PendingLatency
from harness.records.localisation import Localisation
from harness.records.profile import EngineProfile
from harness.records.rejudgement import Rejudgement
from harness.records.run import RunRecord
from harness.store.atomic import write_atomically
from harness.store.baselines import BaselineFile
from harness.store.codec import json_schema
from harness.store.latency_samples import LatencySamplesFile

_RECORDS = {
    "accuracy.json": KeptAccuracy,
    "baseline.json": BaselineFile,
    "bench.json": BenchRecord,
    "comparison.json": Comparison,
    "explanation.json": Explanation,
    "findings.json": GraphFindings,
    "latency-baselines.json": LatencyBaselineFile,
    "latency-judgement.json": LatencyJudgement,
    "layers.json": EngineLayers,
    "localisation.json": Localisation,
    "pending-latency.json": PendingLatency,
    "profile.json": EngineProfile,
    "rejudgement.json": Rejudgement,
    "run.json": RunRecord,
}


def schema_documents() -> dict[str, bytes]:
    """File name to content, for every record that other people's programs read."""
    ours = {name: json_schema(record) for name, record in _RECORDS.items()}
    every = {**ours, "latency-samples.json": json_schema(LatencySamplesFile, of_others=True)}
    return {name: json.dumps(schema, indent=2).encode() + b"\n" for name, schema in sorted(every.items())}


def write_schemas(folder: Path) -> None:
    """Write the files into `folder`; after a record changed, into the one that ships.

    Raises:
        StoreFailed: it cannot be written.
    """
    for name, document in schema_documents().items():
        write_atomically(folder / name, document)
