"""Times pairs of engines in fresh processes, in turns, so that only one of them computes at a time."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from harness.errors import InvalidMeasurement, UnusableEngine, UsageError
from harness.measure.blocks import WarmUp, launches_a_block, quartet_orders
from harness.measure.machine import this_machine
from harness.pipeline.guarding import Guard, guarded
from harness.pipeline.isolating import worker_for
from harness.records.artifacts import EngineArtifact
from harness.records.latency import Arm, Block, LatencySamples, ProcessBlocks
from harness.records.timing import Cache, TimingProtocol
from harness.workers.engines import EngineWorker, Loaded

DELAY = "delay"  # under this name samples say by how much their candidate was slowed down
ANSWER_S = 300.0  # a large engine takes a minute to load from a slow disk

Pair = tuple[EngineArtifact, EngineArtifact]


_PLAIN = "plain launches"  # how a worker's words on launches without a graph begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is timed and how.

    Attributes:
        arms: for each gate, the baseline's engine and the candidate's.
        protocol: of the blocks.
        protocols: of gates that are timed by another one, such as with emptied caches; engines are warmed and sized by `protocol`.
        delays: of gates whose candidate is slowed down, by what share of a launch; to show that it is found.
        processes: fresh pairs of processes.
        rows: batch of every launch.
        pythons: interpreters of the baseline's workers and of the candidate's; None is this one.
        homes: folders of the TensorRT that the baseline's workers load and the candidate's; None is the one of this process.
        same_process: both engines of a gate in one process, which halves the starts; only where both arms have one environment.
        threads: of the host, for backends that compute there; None is all that this process may use.
        answer_s: seconds until a worker that does not answer counts as hung.
        first_process: number of the first pair. Orders are drawn from it, so a second stage continues where the first ended.
        lock_clocks: whether to lock a GPU's clocks where that is permitted.

    Raises:
        UsageError: no gate, no process, or arms that cannot share a process.
    """

    arms: Mapping[str, Pair]
    protocol: TimingProtocol
    processes: int
    rows: int
    pythons: tuple[Path | None, Path | None] = (None, None)
    homes: tuple[Path | None, Path | None] = (None, None)
    same_process: bool = False
    threads: int | None = None
    answer_s: float = ANSWER_S
    first_process: int = 0
    lock_clocks: bool = True
    protocols: Mapping[str, TimingProtocol] = field(default_factory=dict[str, TimingProtocol])
    delays: Mapping[str, float] = field(default_factory=dict[str, float])

    def protocol_of(self, gate: str) -> TimingProtocol:
        """By which the gate's blocks are timed."""
        return self.protocols.get(gate, self.protocol)

    def __post_init__(self) -> None:
        if not self.arms or self.processes < 1:
            raise UsageError(f"{len(self.arms)} pairs of engines in {self.processes} processes; expected at least one of each")
        if not self.same_process:
            return
        apart = [gate for gate, (one, other) in self.arms.items() if one.spec.backend != other.spec.backend]
        if apart or self.pythons[0] != self.pythons[1] or self.homes[0] != self.homes[1]:
            raise UsageError(f"{', '.join(apart) or 'the arms'} cannot share a process: two backends, Pythons or releases of TensorRT")


@dataclass(slots=True, kw_only=True)
class Measured:
    """What came of a plan.

    Attributes:
        samples: by gate.
        host_bytes: what the engines of an arm added to the host's memory at most, in bytes, one figure a process; empty where both
            arms shared a process, or where the system does not say.
        start_ms: how long each worker took from its start to its first answer.
        load_ms: how long each engine took to open, import of its library included.
        warm_ups: one an engine and process.
    """

    samples: dict[str, LatencySamples] = field(default_factory=dict[str, LatencySamples])
    host_bytes: dict[Arm, list[int]] = field(default_factory=lambda: {arm: [] for arm in Arm})
    start_ms: list[float] = field(default_factory=list[float])
    load_ms: dict[Arm, list[float]] = field(default_factory=lambda: {arm: [] for arm in Arm})
    warm_ups: list[WarmUp] = field(default_factory=list[WarmUp])


def measure_pairs(
    arms: Mapping[str, Pair], protocol: TimingProtocol, processes: int, *, rows: int, same_process: bool = False, threads: int | None = None
) -> dict[str, LatencySamples]:
    """Samples of each gate, in this environment; see `Plan` for the arguments and `measure` for what it raises."""
    plan = Plan(arms=arms, protocol=protocol, processes=processes, rows=rows, same_process=same_process, threads=threads)
    return measure(plan).samples


def measure(plan: Plan) -> Measured:
    """Start fresh workers for each process, and time all gates in each of them.

    Raises:
        UnusableEngine: the two engines of a gate take different inputs.
        OutsideProfile: the batch is not one they were built for.
        WorkerFailed: a worker died, hung or babbled.
        InvalidMeasurement: others compute on the GPU.
    """
    measured = Measured()
    blocks: dict[str, list[ProcessBlocks]] = {gate: [] for gate in plan.arms}
    launches: dict[str, int] = {}
    about: dict[str, dict[str, str]] = {}
    for number in range(plan.first_process, plan.first_process + plan.processes):
        with _Process(plan, number, measured) as process:
            process.load()
            launches = launches or process.calibrated()
            for gate, taken in process.timed(launches).items():
                blocks[gate].append(ProcessBlocks(blocks=tuple(taken)))
            about = {gate: {**_about(plan, gate, launches[gate]), **process.about(gate)} for gate in plan.arms}
    for gate in plan.arms:
        words = {**about[gate], **_about_all(measured)}
        measured.samples[gate] = LatencySamples(processes=tuple(blocks[gate]), about=words)
    return measured


@dataclass(frozen=True, slots=True)
class _Held:
    """An engine in one arm's worker, which loads it once for all gates that time it there. `key` is its name in the worker."""

    key: str
    arm: Arm = field(compare=False)
    engine: EngineArtifact = field(compare=False)


class _Process:
    """One pair of workers that hold the engines of all gates; or one worker that holds both arms."""

    def __init__(self, plan: Plan, number: int, measured: Measured) -> None:
        self._plan = plan
        self._number = number
        self._measured = measured
        self._stack = ExitStack()
        self._loaded: dict[_Held, Loaded] = {}
        self._warm: dict[_Held, WarmUp] = {}
        self._delayed: dict[_Held, str] = {}
        self._guard: Guard | None = None

    def __enter__(self) -> _Process:
        try:
            self._workers = self._started()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def load(self) -> None:
        """Open every engine, and run it until it is warm."""
        for held in self._engines():
            worker = self._workers[held.arm]
            loaded = worker.load(held.key, held.engine, rows=self._plan.rows, protocol=self._plan.protocol, threads=self._plan.threads)
            self._loaded[held] = loaded
            self._measured.load_ms[held.arm].append(loaded.load_ms)
        for gate in self._plan.arms:
            loaded_arms = [self._loaded[self._held(gate, arm)] for arm in Arm]
            _require_alike(gate, *loaded_arms)
            _require_launched_alike(gate, *loaded_arms)
        devices = {loaded.device_uuid for loaded in self._loaded.values()}
        if len(devices) > 1:
            raise UnusableEngine(f"the engines run on {len(devices)} devices; expected one; choose the GPU by its UUID")
        ours = len(set(map(id, self._workers.values())))
        self._guard = self._stack.enter_context(guarded(devices.pop(), ours=ours, lock=self._plan.lock_clocks))
        for held in self._loaded:
            self._warm[held] = self._workers[held.arm].warm(held.key, self._plan.protocol)
        self._slow_down()
        self._measured.warm_ups += self._warm.values()

    def _slow_down(self) -> None:
        """Make candidates longer by a share of what a launch of their baseline takes under load."""
        under_load: dict[_Held, float] = {}
        for gate, share in self._plan.delays.items():
            baseline, candidate = (self._held(gate, arm) for arm in Arm)
            if baseline not in under_load:
                under_load[baseline] = self._workers[Arm.BASELINE].under_load(baseline.key)
            launch_ms = under_load[baseline]
            delay_ms = self._workers[Arm.CANDIDATE].delay(candidate.key, share * launch_ms)
            self._delayed[candidate] = f"{delay_ms:.6f} ms of {launch_ms:.6f} ms"

    def calibrated(self) -> dict[str, int]:
        """Launches a block, by gate: as many for both arms, by the slower of them."""
        slower = {gate: max(self._warm[self._held(gate, arm)].launch_ms for arm in Arm) for gate in self._plan.arms}
        return {gate: launches_a_block(ms, self._plan.protocol_of(gate).block_ms) for gate, ms in slower.items()}

    def timed(self, launches: Mapping[str, int]) -> dict[str, list[Block]]:
        """Blocks of each gate in time order. Gates take turns quartet by quartet, and who begins moves on by one."""
        gates = tuple(self._plan.arms)
        orders = {gate: quartet_orders(self._plan.protocol_of(gate), process=self._number, gate=gate) for gate in gates}
        blocks: dict[str, list[Block]] = {gate: [] for gate in gates}
        for quartet in range(max(map(len, orders.values()))):
            for gate in _rotated([one for one in gates if quartet < len(orders[one])], quartet):
                blocks[gate] += [self._block(gate, arm, launches[gate]) for arm in orders[gate][quartet]]
        self._note_memory()
        return blocks

    def about(self, gate: str) -> dict[str, str]:
        """What is known of the last process, for people."""
        assert self._guard is not None  # `load` came first
        words = self._guard.words()
        for arm, engine in zip(Arm, self._plan.arms[gate], strict=True):
            loaded = self._loaded[self._held(gate, arm)]
            words[str(arm)] = (
                f"{engine.spec.id}, sha256 {(engine.sha256 or 'unknown')[:16]}, {engine.spec.backend} {loaded.backend_version}, "
                f"Python {self._workers[arm].worker.about['python']}"
            )
            words["clock"], words["launches"] = loaded.clock, loaded.graph
        if delayed := self._delayed.get(self._held(gate, Arm.CANDIDATE)):
            words[DELAY] = delayed
        if self._plan.protocol_of(gate).cache is Cache.COLD:
            words["cold cache"] = self._workers[Arm.BASELINE].cold_cache()
        return words

    def _block(self, gate: str, arm: Arm, launches: int) -> Block:
        assert self._guard is not None  # `load` came first
        protocol, key = self._plan.protocol_of(gate), self._held(gate, arm).key
        if protocol.rest_ms:
            time.sleep(protocol.rest_ms / 1000)
        return self._guard.block(arm, lambda: self._workers[arm].time(key, launches, protocol.cache))

    def _started(self) -> dict[Arm, EngineWorker]:
        plan = self._plan
        if plan.same_process:
            both = self._worker("shared", tuple(Arm))
            return dict.fromkeys(Arm, both)
        return {arm: self._worker(str(arm), (arm,)) for arm in self._first_arms()}

    def _worker(self, name: str, arms: Sequence[Arm]) -> EngineWorker:
        """A worker for the engines of these arms, in the environment of the first of them."""
        python, home = dict(zip(Arm, zip(self._plan.pythons, self._plan.homes, strict=True), strict=True))[arms[0]]
        backends = dict.fromkeys(self._held(gate, arm).engine.spec.backend for gate in self._plan.arms for arm in arms)
        worker = self._stack.enter_context(worker_for(name, backends, python=python, home=home, start_s=self._plan.answer_s))
        self._measured.start_ms.append(worker.start_ms)
        return EngineWorker(worker, self._plan.answer_s)

    def _engines(self) -> Sequence[_Held]:
        """Each once, in the order in which they are loaded."""
        return tuple(dict.fromkeys(self._held(gate, arm) for gate in self._plan.arms for arm in self._first_arms()))

    def _held(self, gate: str, arm: Arm) -> _Held:
        baseline, candidate = self._plan.arms[gate]
        engine = baseline if arm is Arm.BASELINE else candidate
        delay = 0.0 if arm is Arm.BASELINE else self._plan.delays.get(gate, 0.0)
        return _Held(f"{arm}/{engine.spec.id}/{engine.spec.batch}/{engine.path}/{engine.sha256}/{delay:g}", arm, engine)

    def _first_arms(self) -> tuple[Arm, ...]:
        """Who starts, loads and warms first; drawn anew for each process, since the second finds a machine that the first has used."""
        arms = tuple(Arm)
        return arms if random.Random(f"{self._plan.protocol.seed}/{self._number}").random() < 0.5 else arms[::-1]

    def _note_memory(self) -> None:
        if self._plan.same_process:
            return
        for arm, worker in self._workers.items():
            before = [loaded.peak_before_bytes for held, loaded in self._loaded.items() if held.arm is arm]
            peak = worker.peak_bytes()
            if peak is not None and before[0] is not None:
                self._measured.host_bytes[arm].append(peak - before[0])


def _require_alike(gate: str, baseline: Loaded, candidate: Loaded) -> None:
    if baseline.ports != candidate.ports:
        raise UnusableEngine(
            f"{gate}: the baseline takes {' and '.join(baseline.ports)}, the candidate {' and '.join(candidate.ports)}; "
            "expected the same inputs; compare engines of one encoder"
        )


def _require_launched_alike(gate: str, baseline: Loaded, candidate: Loaded) -> None:
    """A failed capture leaves plain launches, which take longer than a graph's: beside those a slower engine would look as fast."""
    if baseline.graph.startswith(_PLAIN) != candidate.graph.startswith(_PLAIN):
        raise InvalidMeasurement(
            f"{gate}: the baseline is launched as {baseline.graph}, the candidate as {candidate.graph}; "
            "expected both alike; free memory on the GPU, or time fewer engines at one time"
        )


def _rotated(gates: Sequence[str], by: int) -> tuple[str, ...]:
    start = by % len(gates)
    return (*gates[start:], *gates[:start])


def _about(plan: Plan, gate: str, launches: int) -> dict[str, str]:
    machine, protocol = this_machine(), plan.protocol_of(gate)
    return {
        "machine": f"{machine.cpu_model}, {machine.cpu_count} processors; {', '.join(machine.gpus) or 'no GPU'}",
        "protocol": protocol.id,
        "order": f"{protocol.quartets} quartets a process, A B B A or B A A B by seed {protocol.seed}",
        "batch": str(plan.rows),
        "launches a block": str(launches),
        "processes": "both engines in one" if plan.same_process else "one an engine",
    }


def _about_all(measured: Measured) -> dict[str, str]:
    settled = sum(one.is_settled for one in measured.warm_ups)
    windows = [one.windows for one in measured.warm_ups]
    words = {
        "warm-up": f"{settled} of {len(windows)} settled, after {median(windows):g} windows (median), {max(windows)} at most",
        "start": f"{median(measured.start_ms):.0f} ms a worker (median), {max(measured.start_ms):.0f} at most",
    }
    for arm in Arm:
        words[f"{arm} load"] = f"{median(measured.load_ms[arm]):.0f} ms (median)"
        if measured.host_bytes[arm]:
            words[f"{arm} host memory"] = f"{median(measured.host_bytes[arm]) / 2**20:.1f} MiB at most beside the worker itself (median)"
    return words
