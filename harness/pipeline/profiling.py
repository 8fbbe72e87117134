"""Profiles engines: how long each of their layers takes, in workers of their own, and what is known of these layers."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contracts import Capability, Limited
from harness.errors import EnginegateError, UnreadableLayerTable, UnusableEngine, UnusableGraph, UsageError
from harness.measure.layer_times import LAUNCHES, Profiled, in_one
from harness.pipeline.guarding import guarded
from harness.pipeline.isolating import worker_for
from harness.pipeline.names import backend_of
from harness.pipeline.pairing import ANSWER_S
from harness.records.artifacts import EngineArtifact
from harness.records.latency import Arm
from harness.records.observations import LayerTable
from harness.records.profile import Ceilings, EngineProfile
from harness.records.timing import TimingProtocol
from harness.store.codec import from_plain
from harness.workers.engines import EngineWorker

if TYPE_CHECKING:
    from harness.judge.structure import GraphView

_KEY = "profiled"
# Two builds of one large product each.
CEILINGS_S = 600.0
_NO_TABLE = "there is no layer table, so layers are known by name only"
NO_GRAPH = "the graph is not at hand, so blocks and operations are unknown; name the ONNX file that it was built from"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiling:
    """How engines are profiled.

    Attributes:
        rows: batch of every launch; None is each engine's optimum.
        launches: that count, of each engine and either kind, in all turns together.
        turns: A and B, then B and A, and so on, so that what drifts meanwhile is in both.
        warm_up: launches at the begin of each turn that do not count.
        threads: of the host, for backends that compute there; None is all that this process may use.
    """

    rows: int | None = None
    launches: int = LAUNCHES
    turns: int = 6
    warm_up: int = 3
    threads: int | None = None
    answer_s: float = ANSWER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Profilable:
    """An engine, the graph that it was built from, where that is known, and what its device reaches at best."""

    engine: EngineArtifact
    view: GraphView | None = None
    ceilings: Ceilings | None = None


def profile_engines(subjects: Sequence[Profilable], how: Profiling) -> tuple[EngineProfile, ...]:
    """Profile engines in turns, each in a fresh process of its own, of which one computes at a time.

    Raises:
        UsageError: a backend tells no layer times, or the batch is outside an engine's profile.
        UnusableGraph: a graph is another one's.
        WorkerFailed: a worker died, hung or babbled.
        InvalidMeasurement: launches of one engine differ in their layers, or others compute on the GPU.
    """
    for subject in subjects:
        backend = subject.engine.spec.backend
        if Capability.LAYER_TIMES not in backend_of(backend).capabilities:
            raise UsageError(f"backend {backend} does not say how long a layer takes; expected tensorrt or onnxruntime")
    run = secrets.token_hex(8)
    seen, guard = _profiled([subject.engine for subject in subjects], how)
    return tuple(_profile(subject, one, run, guard) for subject, one in zip(subjects, seen, strict=True))


def _profile(subject: Profilable, seen: Profiled, run: str, guard: dict[str, str]) -> EngineProfile:
    engine, view, spec = subject.engine, subject.view, subject.engine.spec
    table, notes = _table_of(seen)
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
        run=run,
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
        ceilings=subject.ceilings,
        guard=guard,
        notes=notes if view is not None else (*notes, NO_GRAPH),
    )


def measure_ceilings(backend: str, *, limit_s: float = CEILINGS_S) -> Ceilings:
    """How fast the backend's device is at best, measured in a worker. It never fails: what broke is told in its words."""
    limited = backend_of(backend)
    if not isinstance(limited, Limited):
        return Ceilings(words={"all": f"backend {backend} has no such measurement"})
    try:
        with tempfile.TemporaryDirectory(prefix="enginegate-") as folder, worker_for("ceilings", [backend]) as worker:
            return from_plain(
                Ceilings, worker.ask("ceilings", timeout_s=limit_s, backend=backend, folder=folder), origin="the ceilings measured"
            )
    except EnginegateError as error:
        return Ceilings(words={"all": str(error)})


def _profiled(engines: Sequence[EngineArtifact], how: Profiling) -> tuple[list[Profiled], dict[str, str]]:
    """What was told of each engine, and what the guard of their device saw."""
    with ExitStack() as stack:
        loaded = [_Loaded(stack, engine, how) for engine in engines]
        devices = {one.device_uuid for one in loaded}
        if len(devices) > 1:
            raise UnusableEngine(f"the engines run on {len(devices)} devices; expected one; choose the GPU by its UUID")
        turns = min(how.turns, how.launches) if len(loaded) > 1 else 1
        # Locked as for a latency gate: a GPU that chooses its clocks gives engines that draw less power higher ones, also in turns.
        guard = stack.enter_context(guarded(devices.pop(), ours=len(loaded)))
        for turn in range(turns):
            launches = how.launches // turns + (turn < how.launches % turns)
            for one in loaded if turn % 2 == 0 else reversed(loaded):
                guard.block(Arm.CANDIDATE, partial(one.take_turn, launches))
        return [in_one(one.seen) for one in loaded], guard.words()


class _Loaded:
    """One engine, loaded in a worker of its own."""

    def __init__(self, stack: ExitStack, engine: EngineArtifact, how: Profiling) -> None:
        self.seen: list[Profiled] = []
        self._engine, self._how = engine, how
        self._rows = how.rows or engine.spec.batch.optimum
        self._worker = stack.enter_context(worker_for(engine.spec.id, [engine.spec.backend]))
        asked = EngineWorker(self._worker, how.answer_s)
        loaded = asked.load(_KEY, engine, rows=self._rows, protocol=TimingProtocol(), threads=how.threads)
        self.device_uuid = loaded.device_uuid

    def take_turn(self, launches: int) -> tuple[float, ...]:
        """Launch so often either way, after its warm-up; milliseconds of the whole launches."""
        name, how = self._engine.spec.id, self._how
        told = self._worker.ask(
            "profile", timeout_s=how.answer_s, key=_KEY, name=name, rows=self._rows, launches=launches, warm_up=how.warm_up
        )
        self.seen.append(from_plain(Profiled, told, origin=f"the profile of {name}"))
        return self.seen[-1].times.launch_ms


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
