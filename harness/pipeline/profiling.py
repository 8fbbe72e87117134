"""Profiles an engine: how long each of its layers takes, in a worker of its own, and what is known of these layers."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contracts import Capability, DeviceBound, Limited
from harness.errors import EnginegateError, UnreadableLayerTable, UnusableGraph, UsageError
from harness.measure.layer_times import LAUNCHES, WARM_UP_LAUNCHES, Profiled
from harness.pipeline.names import backend_of
from harness.pipeline.pairing import ANSWER_S
from harness.records.artifacts import EngineArtifact
from harness.records.observations import LayerTable
from harness.records.profile import Ceilings, EngineProfile
from harness.records.timing import TimingProtocol
from harness.store.codec import from_plain
from harness.workers.engines import EngineWorker
from harness.workers.worker import Worker

if TYPE_CHECKING:
    from harness.contracts import Backend
    from harness.judge.structure import GraphView

_KEY = "profiled"
# Two builds of one large product each.
CEILINGS_S = 600.0
_NO_TABLE = "there is no layer table, so layers are known by name only"
NO_GRAPH = "the graph is not at hand, so blocks and operations are unknown; name the ONNX file that it was built from"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiling:
    """How an engine is profiled.

    Attributes:
        rows: batch of every launch; None is the engine's optimum.
        threads: of the host, for backends that compute there; None is all that this process may use.
    """

    rows: int | None = None
    launches: int = LAUNCHES
    warm_up: int = WARM_UP_LAUNCHES
    threads: int | None = None
    answer_s: float = ANSWER_S


def profile_engine(
    engine: EngineArtifact, view: GraphView | None, how: Profiling, *, ceilings: Ceilings | None = None, notes: tuple[str, ...] = ()
) -> EngineProfile:
    """Profile one engine in a fresh process.

    Args:
        view: the graph that it was built from.
        ceilings: of the device, where they were measured.
        notes: to be kept with it.

    Raises:
        UsageError: its backend tells no layer times, or the batch is outside its profile.
        UnusableGraph: the graph is another one's.
        WorkerFailed: the worker died, hung or babbled.
        InvalidMeasurement: launches differ in their layers.
    """
    spec = engine.spec
    if Capability.LAYER_TIMES not in backend_of(spec.backend).capabilities:
        raise UsageError(f"backend {spec.backend} does not say how long a layer takes; expected tensorrt or onnxruntime")
    seen = _profiled(engine, how)
    table, table_notes = _table_of(seen)
    nodes, flops = (), {}
    if table is not None:
        from harness.judge.engine_nodes import engine_nodes

        nodes = engine_nodes(table, view)
        if view is not None and not any(node.layer is not None and node.op_type is not None for node in nodes):
            raise UnusableGraph(f"the graph of {spec.id} has none of the nodes that its layers name; expected the one it was built from")
    if view is not None:
        from harness.judge.flops import flops_a_row

        flops = flops_a_row(view)
    return EngineProfile(
        engine=spec.id,
        encoder=spec.encoder.name,
        recipe=spec.recipe,
        backend=spec.backend,
        backend_version=engine.backend_version,
        batch=str(spec.batch),
        sha256=engine.sha256,
        device=engine.device,
        times=seen.times,
        layers=table.rows if table else (),
        nodes=nodes,
        lists_constants=table.lists_constants if table else False,
        flops=flops,
        ceilings=ceilings,
        notes=(*notes, *table_notes, *(() if view is not None else (NO_GRAPH,))),
    )


def measure_ceilings(backend: str, *, limit_s: float = CEILINGS_S) -> Ceilings:
    """How fast the backend's device is at best, measured in a worker. It never fails: what broke is told in its words."""
    limited = backend_of(backend)
    if not isinstance(limited, Limited):
        return Ceilings(words={"all": f"backend {backend} has no such measurement"})
    try:
        with tempfile.TemporaryDirectory(prefix="enginegate-") as folder, Worker("ceilings", library_path=_library_path(limited)) as worker:
            return from_plain(
                Ceilings, worker.ask("ceilings", timeout_s=limit_s, backend=backend, folder=folder), origin="the ceilings measured"
            )
    except EnginegateError as error:
        return Ceilings(words={"all": str(error)})


def _profiled(engine: EngineArtifact, how: Profiling) -> Profiled:
    spec = engine.spec
    rows = how.rows or spec.batch.optimum
    with Worker(spec.id, library_path=_library_path(backend_of(spec.backend))) as worker:
        # Graphs are captured by the profiling itself, after it has its first plain launches.
        EngineWorker(worker, how.answer_s).load(_KEY, engine, rows=rows, protocol=TimingProtocol(graph=False), threads=how.threads)
        told = worker.ask("profile", timeout_s=how.answer_s, key=_KEY, name=spec.id, rows=rows, launches=how.launches, warm_up=how.warm_up)
    return from_plain(Profiled, told, origin=f"the profile of {spec.id}")


def _library_path(backend: Backend | Limited) -> Path | None:
    return backend.library_path() if isinstance(backend, DeviceBound) else None


def _table_of(seen: Profiled) -> tuple[LayerTable | None, tuple[str, ...]]:
    if seen.rows:
        return LayerTable(rows=seen.rows, source="a profiler's trace", lists_constants=False), ()
    if seen.inspector is None:
        return None, (_NO_TABLE,)
    from harness.measure.layers import read_layer_table

    with tempfile.TemporaryDirectory(prefix="enginegate-") as folder:
        document = Path(folder) / "layers.json"
        document.write_text(seen.inspector, encoding="utf-8", newline="")
        try:
            return read_layer_table(document), ()
        except UnreadableLayerTable as error:
            return None, (f"{_NO_TABLE}: {str(error).replace(str(document), 'the inspector')}",)
