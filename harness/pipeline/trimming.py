"""Removes latency baselines that nothing asks for any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import UsageError
from harness.pipeline.deciding import refuse_in_ci
from harness.pipeline.desk import Desk
from harness.pipeline.pacing import TIMING_THREADS, gate_protocol
from harness.records.gate_lines import LATENCY_MS
from harness.records.latency_baseline import LatencyKey
from harness.records.latency_decisions import BaselineTrim
from harness.records.machine import class_of
from harness.records.run import EngineRow, RunRecord
from harness.records.spec import BatchProfile
from harness.store.run_directory import read_run


def trimmed(desk: Desk, runs: Sequence[Path], *, dry_run: bool) -> BaselineTrim:
    """Remove chains of the machines and backends of some runs that none of these runs asked for.

    What other machines or other backends ask for, these runs do not know, so it is left alone. Engines stay in the blob store, which
    other branches may use.

    Raises:
        WritesRefused: in CI, unless nothing is to be written.
        UsageError: a folder holds no run, none of the runs timed anything beside an approved engine, or one failed to build what it timed.
        UnreadableBaseline, StoreFailed: a record cannot be understood or written.
    """
    if not dry_run:
        refuse_in_ci("trim")
    asked = {key for run in runs for key in _asked(read_run(run))}
    if not asked:
        where = ", ".join(map(str, runs))
        raise UsageError(f"no verdict on {LATENCY_MS} is in {where}; expected runs that timed engines beside approved ones")
    places = {(key.machine, key.backend) for key in asked}
    stale = tuple(key for key in desk.records.chains() if (key.machine, key.backend) in places and key not in asked)
    if not dry_run:
        desk.records.remove(stale)
    return BaselineTrim(removed=stale, is_removed=not dry_run)


def _asked(run: RunRecord) -> Iterator[LatencyKey]:
    """Keys of the engines that a run timed beside approved ones, or for which it had none."""
    timed = {(row.encoder, row.recipe, row.backend) for row in run.verdicts if row.metric == LATENCY_MS}
    built = {(row.encoder, row.recipe, row.backend) for row in run.engines}
    if lost := timed - built:
        named = ", ".join(sorted(" ".join(filter(None, one)) for one in lost))
        raise UsageError(
            f"the run of {run.started} judged {named} and built no such engine; expected whole runs, since their records would go"
        )
    return (_key(run, row) for row in run.engines if (row.encoder, row.recipe, row.backend) in timed)


def _key(run: RunRecord, row: EngineRow) -> LatencyKey:
    arch, _, tower = row.encoder.rpartition("/")
    return LatencyKey(
        machine_class=class_of(row.target, run.machine.architecture, row.device),
        machine=row.device or run.machine.cpu_model,
        threads=TIMING_THREADS,
        driver=run.machine.driver if row.device else None,
        backend=row.backend,
        backend_version=row.backend_version,
        arch=arch,
        tower=tower,
        recipe=row.recipe,
        weights=row.weights,
        batch=row.batch,
        rows=BatchProfile.parse(row.batch).minimum,
        protocol=gate_protocol(1).id,
        options=replace(row.options, timing_cache=None),
    )
