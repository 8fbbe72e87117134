"""Builds, looks at and times every engine of a prepared folder, and writes a report that can stop and go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from harness.contracts import Action
from harness.errors import EnginegateError, InvalidMeasurement, MissingDevice, UsageError
from harness.judge.latency.samples import ALPHA, DELTA, judge_samples
from harness.measure.machine import this_machine
from harness.pipeline.budget import Budget, OutOfTime
from harness.pipeline.gpu_lines import Looking, line_name, wanted_engines
from harness.pipeline.isolating import gpu_of
from harness.pipeline.making import Maker, Progress
from harness.pipeline.names import backend_of
from harness.pipeline.pacing import TIMING_THREADS
from harness.pipeline.pairing import Pair, Plan, measure
from harness.pipeline.prepared_graphs import PreparedGraphs
from harness.pipeline.seeing import Pipeline
from harness.records.gpu_report import Event, ReportAbout, ReportLine, Stage, Timed
from harness.records.latency import LatencySamples
from harness.records.policy import NO_ROWS
from harness.records.prepared import PreparedGraph
from harness.records.spec import EngineSpec, Recipe
from harness.records.timing import Cache, TimingProtocol
from harness.store.cache import ArtifactCache, default_cache_dir
from harness.store.codec import to_json
from harness.store.gatefile import default_gate_file, read_gate_file
from harness.store.gpu_report import ReportFolder
from harness.store.packaged import packaged
from harness.store.prepared import PreparedFolder

_CACHES = {Stage.HOT: Cache.HOT, Stage.COLD: Cache.COLD}
# Emptied caches cost a launch more than the launch itself, and what is cold is told for the reader and judged by nobody.
COLD_PROCESSES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """What `enginegate gpu-report` was asked.

    Attributes:
        budget_minutes: no step is begun that would end later; None for no limit.
        processes, quartets: of hot timings; see `Plan` and `TimingProtocol`.
        builders: engines built at one time. Builders choose kernels by timing them, so more than one may choose worse.
    """

    prepared: Path
    out: Path
    batches: tuple[int, ...]
    backend: str
    budget_minutes: float | None
    processes: int
    quartets: int
    builders: int
    cache_dir: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """Where the report is, and how far it came.

    Attributes:
        left: names of lines that something is left to do for.
        events: names of lines that something broke for, each with its events' codes.
    """

    path: Path
    lines: int
    left: tuple[str, ...]
    events: Mapping[str, tuple[str, ...]]

    @property
    def exit_code(self) -> int:
        """0 where all is done; 4 where something of a line broke; else 3, since going on would tell more."""
        return EnginegateError.exit_code if self.events else 3 if self.left else 0

    @property
    def document(self) -> str:
        """As a JSON document, without a last newline."""
        plain = {"report": self.path, "lines": self.lines, "left": self.left, "events": self.events}
        return to_json({**plain, "schema": "enginegate/gpu-report-end/1"}).decode().rstrip()

    @property
    def text(self) -> str:
        """For people."""
        broken = [f"{name}: {', '.join(codes)}" for name, codes in self.events.items()]
        ends = [f"{len(self.left)} of {self.lines} engines are left; the same command goes on"] if self.left else []
        return "\n".join([*broken, *ends, f"report: {self.path}"])


def gpu_report(asked: Reporting, progress: Progress) -> Reported:
    """Make the report, or go on with it.

    Raises:
        UsageError: the prepared folder cannot be used, or the report's folder is another one's.
        Broken: the backend can build nothing here, or the store failed.
    """
    report = _Report(asked, progress)
    try:
        report.run()
    except OutOfTime:
        pass
    return report.written()


class _Report:
    def __init__(self, asked: Reporting, progress: Progress) -> None:
        if asked.out.exists() and not asked.out.is_dir():
            raise UsageError(f"--out names {asked.out}, which is a file; expected a folder for the report")
        self._asked = asked
        self._progress = progress
        self._prepared = PreparedFolder(asked.prepared)
        self._engines = wanted_engines(self._prepared.manifest, asked.batches, asked.backend)
        _require_backend(self._engines)
        cache = ArtifactCache(asked.cache_dir or default_cache_dir())
        # Several engines are built at one time, so that what is being done is told here and not by the maker.
        self._maker = Maker(cache, lambda words: nullcontext())
        pipeline = Pipeline(self._maker, evaluation_rows=NO_ROWS, progress=lambda words: nullcontext())
        self._graphs = PreparedGraphs(self._prepared, self._maker, cache)
        self._folder = ReportFolder(asked.out)
        self._about = self._folder.go_on(self._about_now())
        policy = read_gate_file(default_gate_file(Path.cwd()), read_gate_file(packaged("gate.toml")))
        self._looking = Looking(pipeline, policy, self._prepared, self._folder)
        self._lines = {engine: self._folder.line(line_name(engine)) or self._blank(engine) for engine in self._engines}
        self._at_hand: set[EngineSpec] = set()
        self._budget = Budget(asked.budget_minutes)

    def run(self) -> None:
        """Do what is left, the most wanted first; the report is written again after each few engines."""
        for some in _parts(self._engines, self._asked.builders):
            left = [engine for engine in some if not self._lines[engine].is_complete]
            if not left:
                continue
            self._build(left)
            for engine in self._built(left):
                self._look(engine)
            quantized = [engine for engine in self._built(left) if engine.recipe.is_quantized]
            for stage in _CACHES:
                self._time(quantized, stage)
            self.written()
        # What two runs of one engine differ by says how far the other lines can be believed; it comes last.
        for some in _parts(self._engines, self._asked.builders):
            halves = [engine for engine in self._built(some) if not engine.recipe.is_quantized]
            self._time(halves, Stage.HOT)

    def written(self) -> Reported:
        """Write what is known so far."""
        from harness.report.gpu_plot import PLOT_FILE, speedup_svg
        from harness.report.gpu_report import report_markdown

        lines = [self._lines[engine] for engine in self._engines]
        plot, words = speedup_svg(lines)
        text = report_markdown(self._about, lines, plot=PLOT_FILE if plot else None, why_no_plot=words)
        path = self._folder.keep_report(text, plot, PLOT_FILE)
        named = {line_name(engine): line for engine, line in self._lines.items()}
        return Reported(
            path=path,
            lines=len(lines),
            left=tuple(name for name, line in named.items() if not line.is_complete),
            events={name: tuple(event.code for event in line.events) for name, line in named.items() if line.events},
        )

    # -- building ----------------------------------------------------------------------------------------------------------

    def _build(self, engines: Sequence[EngineSpec]) -> None:
        """Make sure that engines are built, also those that an earlier run built: their files may be gone since."""
        wanted = list(dict.fromkeys(one for engine in engines for one in (self._twin(engine), engine) if one is not None))
        to_build = [engine for engine in wanted if engine not in self._at_hand and not self._lines[engine].was_refused]
        if not to_build:
            return
        words = f"building {', '.join(map(line_name, to_build))}"
        with self._budget.step("build"), self._progress(words), ThreadPoolExecutor(self._asked.builders) as pool:
            for engine in to_build:
                self._graphs.adopt(self._graph_of(engine))
            for engine, event in zip(to_build, pool.map(self._tried, to_build), strict=True):
                if event is not None:
                    self._keep(engine, self._lines[engine].after(Stage.BUILD, event))
                    continue
                self._at_hand.add(engine)
                if Stage.BUILD not in self._lines[engine].done:
                    self._keep(engine, self._lines[engine].after(Stage.BUILD))

    def _tried(self, engine: EngineSpec) -> Event | None:
        try:
            self._maker.engine(engine)
        except EnginegateError as error:
            return Event.of(Stage.BUILD, error)
        return None

    def _built(self, engines: Iterable[EngineSpec]) -> list[EngineSpec]:
        return [engine for engine in engines if self._lines[engine].is_built]

    def _twin(self, engine: EngineSpec) -> EngineSpec | None:
        """The FP16 engine of the same encoder and batch, where the folder has one."""
        twin = replace(engine, recipe=Recipe.FP16)
        return twin if engine.recipe.is_quantized and twin in self._lines else None

    def _built_twin(self, engine: EngineSpec) -> EngineSpec | None:
        twin = self._twin(engine)
        return twin if twin is not None and self._lines[twin].is_built else None

    # -- looking -----------------------------------------------------------------------------------------------------------

    def _look(self, engine: EngineSpec) -> None:
        line, twin = self._lines[engine], self._built_twin(engine)
        if Stage.GRAPH not in line.done:
            line = self._looking.with_graph(line, engine, twin=twin)
            self._keep(engine, line)
        if Stage.ACCURACY not in line.done:
            with self._budget.step("accuracy"), self._progress(f"running {line_name(engine)}"):
                self._keep(engine, self._looking.with_accuracy(line, engine, twin=twin))

    # -- timing ------------------------------------------------------------------------------------------------------------

    def _time(self, engines: Sequence[EngineSpec], stage: Stage) -> None:
        """Time engines beside their twins, those of one batch together; an FP16 engine is its own twin."""
        left = [engine for engine in engines if stage not in self._lines[engine].done]
        for engine in left:
            if engine.recipe.is_quantized and self._built_twin(engine) is None:
                words = f"{line_name(engine)} has no FP16 engine to be timed beside; expected recipe fp16 in the prepared folder, and built"
                self._keep(engine, self._lines[engine].after(stage, Event.of(stage, InvalidMeasurement(words))))
        for batch in dict.fromkeys(engine.batch for engine in left):
            self._time_together([one for one in left if one.batch == batch and stage not in self._lines[one].done], stage)

    def _time_together(self, engines: Sequence[EngineSpec], stage: Stage) -> None:
        """Time engines in the same processes. What breaks the processes of all is looked for by timing each alone."""
        if not engines:
            return
        words = f"timing {', '.join(map(line_name, engines))}, {stage}"
        try:
            with self._budget.step(f"{stage} {len(engines)}"), self._progress(words):
                measured = measure(self._plan(engines, stage)).samples
        except EnginegateError as error:
            if len(engines) == 1:
                self._keep(engines[0], self._lines[engines[0]].after(stage, Event.of(stage, error)))
                return
            for engine in engines:
                self._time_together([engine], stage)
            return
        for engine in engines:
            line = self._lines[engine]
            timed = {**line.timed, str(_CACHES[stage]): self._timed(engine, stage, measured[engine.id])}
            self._keep(engine, replace(line, timed=timed).after(stage))

    def _plan(self, engines: Sequence[EngineSpec], stage: Stage) -> Plan:
        asked = self._asked
        return Plan(
            arms={engine.id: self._pair(engine) for engine in engines},
            protocol=TimingProtocol(quartets=asked.quartets, cache=_CACHES[stage]),
            processes=min(COLD_PROCESSES, asked.processes) if stage is Stage.COLD else asked.processes,
            rows=engines[0].batch.optimum,
            same_process=True,  # half the starts: a process that loads TensorRT and four engines takes longer than its blocks
            threads=TIMING_THREADS,
        )

    def _pair(self, engine: EngineSpec) -> Pair:
        candidate = self._maker.engine(engine)
        return self._maker.engine(replace(engine, recipe=Recipe.FP16)), candidate

    def _timed(self, engine: EngineSpec, stage: Stage, samples: LatencySamples) -> Timed:
        return Timed(
            judgement=judge_samples(samples, alpha=ALPHA, delta=DELTA),
            samples=self._folder.keep_samples(f"{line_name(engine)}-{stage}", samples),
            guard=samples.about.get("guard", ""),
            launches="; ".join(samples.about[name] for name in ("launches", "clock", "cold cache") if name in samples.about),
        )

    # -- lines -------------------------------------------------------------------------------------------------------------

    def _keep(self, engine: EngineSpec, line: ReportLine) -> None:
        self._lines[engine] = line
        self._folder.keep_line(line_name(engine), line)

    def _graph_of(self, engine: EngineSpec) -> PreparedGraph:
        graphs = self._prepared.manifest.graphs
        return next(graph for graph in graphs if (graph.spec, graph.recipe) == (engine.encoder, engine.recipe))

    def _blank(self, engine: EngineSpec) -> ReportLine:
        return ReportLine(
            encoder=engine.encoder.name,
            weights=engine.encoder.weights,
            recipe=engine.recipe,
            batch=engine.batch.optimum,
            is_refilled=self._graph_of(engine).is_refilled,
        )

    def _about_now(self) -> ReportAbout:
        backend = backend_of(self._asked.backend)
        gpu = gpu_of(backend)
        return ReportAbout(
            prepared=self._prepared.sha256,
            backend=backend.name,
            backend_version=backend.version,
            device=None if gpu is None else str(gpu),
            machine=this_machine(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _parts(engines: Sequence[EngineSpec], size: int) -> Iterator[Sequence[EngineSpec]]:
    yield from (engines[start : start + size] for start in range(0, len(engines), size))


def _require_backend(engines: Sequence[EngineSpec]) -> None:
    """Refuse, in the backend's words, a machine where it can build nothing: a report of such lines would tell nothing else."""
    if not engines:
        raise UsageError("the prepared folder has no graphs; expected some; prepare it again")
    reasons = [backend_of(engine.backend).why_not(Action.BUILD, engine) for engine in engines]
    if None not in reasons:
        raise MissingDevice(f"{engines[0].backend} can build nothing here: {reasons[0]}")
