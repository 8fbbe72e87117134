"""Builds, looks at and times every engine of a prepared folder, and writes a report that can stop and go on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from harness.backends.refusals import require_possible
from harness.contracts import Action
from harness.errors import EnginegateError, InvalidMeasurement, UsageError, WritesRefused
from harness.measure.machine import this_machine
from harness.pipeline.budget import Budget, OutOfTime
from harness.pipeline.building import Builders
from harness.pipeline.gpu_approving import ReportApprovals
from harness.pipeline.gpu_lines import Looking
from harness.pipeline.gpu_profiling import with_gain
from harness.pipeline.gpu_runs import run_record
from harness.pipeline.gpu_timing import CACHES, Outcome, WaveTimer
from harness.pipeline.gpu_waves import Forecast, line_name, wanted_engines, waves
from harness.pipeline.isolating import alike_gpus, gpu_of
from harness.pipeline.leaving import left_engine
from harness.pipeline.making import Maker, Progress
from harness.pipeline.names import backend_of
from harness.pipeline.prepared_graphs import PreparedGraphs
from harness.pipeline.seeing import Pipeline
from harness.pipeline.studying import Study, changes_of, study, study_found
from harness.records.gpu_report import Event, ReportAbout, ReportLine, Stage
from harness.records.policy import NO_ROWS
from harness.records.spec import EngineSpec, Recipe
from harness.store.baselines import BaselineStore, default_baselines_dir
from harness.store.cache import ArtifactCache, default_cache_dir
from harness.store.codec import to_json
from harness.store.gatefile import default_gate_file, read_gate_file
from harness.store.gpu_report import ReportFolder
from harness.store.packaged import packaged
from harness.store.prepared import PreparedFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """What `enginegate gpu-report` was asked.

    Attributes:
        budget_minutes: no step is begun that would end later; None for no limit.
        processes, quartets: of timings; see `Plan` and `TimingProtocol`.
        builders: engines built at one time. Builders choose kernels by timing them, so more than one on a GPU may choose worse.
        baselines: folder where figures that it lacks are stored; None to store none.
        engines: folder where every engine file is left with its record, as `build --out` leaves it; None to leave them in the cache.
        command: the arguments, for the records of runs.
        study: in place of all that, study the noise of launch times with the FP16 engine of this encoder at the largest batch.
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
    baselines: Path | None = None
    engines: Path | None = None
    command: tuple[str, ...] = ()
    study: Studying | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Studying:
    """A noise study, as it was asked for; see `Study`."""

    encoder: str
    changes: tuple[float, ...]
    processes: int
    quartets: int
    trace_s: float


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
        what = "of 1 study" if self.left == ("study",) else f"of {self.lines} engines"
        ends = [f"{len(self.left)} {what} are left; the same command goes on"] if self.left else []
        return "\n".join([*broken, *ends, f"report: {self.path}"])


def gpu_report(asked: Reporting, progress: Progress) -> Reported:
    """Make the report, or go on with it.

    Raises:
        UsageError: the prepared folder cannot be used, the report's folder is another one's, or baselines would be written in CI.
        Broken: the backend can build nothing here, or the store failed.
    """
    if asked.baselines is not None and os.environ.get("CI"):
        raise WritesRefused(
            f"--baselines {asked.baselines} would write baselines, and CI is set; approve them on a machine where a person looks"
        )
    report = _Report(asked, progress)
    try:
        if asked.study is not None:
            report.study(asked.study)
        else:
            report.run()
    except OutOfTime:
        pass
    return report.written()


class _Report:
    def __init__(self, asked: Reporting, progress: Progress) -> None:
        for option, folder in (("--out", asked.out), ("--engines", asked.engines)):
            if folder is not None and folder.exists() and not folder.is_dir():
                raise UsageError(f"{option} names {folder}, which is a file; expected a folder")
        self._asked = asked
        self._progress = progress
        self._prepared = PreparedFolder(asked.prepared)
        self._engines = wanted_engines(self._prepared.manifest, asked.batches, asked.backend)
        _require_backend(self._engines)
        self._budget = Budget(asked.budget_minutes)
        self._folder = ReportFolder(asked.out)
        self._about = self._folder.go_on(self._about_now())
        cache = ArtifactCache(asked.cache_dir or default_cache_dir())
        # Several engines are built at one time, so that what is being done is told here and not by the maker.
        self._maker = Maker(cache, lambda words: nullcontext())
        self._graphs = PreparedGraphs(self._prepared, self._maker, cache)
        policy = read_gate_file(default_gate_file(Path.cwd()), read_gate_file(packaged("gate.toml")))
        pipeline = Pipeline(self._maker, evaluation_rows=NO_ROWS, progress=lambda words: nullcontext())
        store = BaselineStore(asked.baselines or default_baselines_dir(Path.cwd()))
        approvals = ReportApprovals(pipeline, policy, store, self._prepared, is_writing=asked.baselines is not None)
        self._pipeline = pipeline
        self._looking = Looking(pipeline, policy, approvals, self._prepared, self._folder)
        self._timer = WaveTimer(
            self._maker,
            policy,
            approvals,
            self._folder,
            processes=asked.processes,
            quartets=asked.quartets,
            gates=sum(engine.recipe.is_quantized for engine in self._engines),
            step=self._timing_step,
        )
        self._lines = {engine: self._folder.line(line_name(engine)) or self._blank(engine) for engine in self._engines}
        self._at_hand: set[EngineSpec] = set()
        self._timing_s: dict[EngineSpec, float] = {}
        self._keeping = threading.Lock()
        self._study_is_left = True

    def run(self) -> None:
        """Do what is left, wave by wave, the most wanted first; the report is written again after each."""
        left = [wave for wave in map(self._left_of, waves(self._engines, self._asked.builders)) if wave]
        gpus = [gpu.uuid for gpu in alike_gpus(backend_of(self._asked.backend))]
        with Builders(self._build, self._asked.builders, gpus) as builders:
            for wave, following in zip(left, [*left[1:], ()], strict=True):
                self._require_time_for(wave)
                to_build = self._to_build(wave)
                builders.begin(to_build)
                with self._progress(self._build_words(to_build, left[left.index(wave) :])) if to_build else nullcontext():
                    for engine in wave:  # it is looked at while others are still built
                        builders.wait([engine, *filter(None, [self._twin(engine)])])
                        self._look(engine)
                        self._try_out(engine)
                with builders.timing():
                    if len(gpus) > 1 and self._has_time_for(following):  # on the other GPUs: this one is left alone from here on
                        builders.begin(self._to_build(following))
                    self._time(wave)
                    self._profile(wave)
                self.written()

    def study(self, asked: Studying) -> None:
        """Study the noise of launch times, or go on with it.

        Raises:
            UsageError: there is no FP16 graph of the encoder, or the study that is there is of another design.
            EnginegateError: its engine cannot be built, or does not run.
        """
        engine = next((one for one in self._engines if (one.encoder.name, one.recipe) == (asked.encoder, Recipe.FP16)), None)
        if engine is None:
            names = ", ".join(dict.fromkeys(one.encoder.name for one in self._engines if one.recipe is Recipe.FP16))
            raise UsageError(f"--study names {asked.encoder}, of which the prepared folder has no fp16; expected one of {names or 'none'}")
        self._graphs.adopt(self._prepared.graph_of(engine.encoder, engine.recipe))
        with self._progress(f"building {line_name(engine)}"):
            artifact = self._maker.engine(engine)
        wanted = Study(
            engine=artifact,
            changes=changes_of(asked.changes),
            processes=asked.processes,
            quartets=asked.quartets,
            trace_s=asked.trace_s,
        )
        self._study_is_left = not study(wanted, self._folder.study, self._budget, self._progress)

    def written(self) -> Reported:
        """Write what is known so far."""
        from harness.report.gpu_plot import PLOT_FILE, speedup_svg
        from harness.report.gpu_report import report_markdown

        lines = [self._lines[engine] for engine in self._engines]
        plot, words = speedup_svg(lines)
        text = report_markdown(
            self._about,
            lines,
            plot=PLOT_FILE if plot else None,
            why_no_plot=words,
            left_s=self._left_s(),
            study=study_found(self._folder.study),
        )
        path = self._folder.keep_report(text, plot, PLOT_FILE)
        if self._asked.study is not None:  # which is in no run, and leaves them as they are
            return Reported(path=path, lines=1, left=("study",) if self._study_is_left else (), events={})
        for batch in dict.fromkeys(engine.batch.optimum for engine in self._engines):
            self._write_run(batch)
        named = {line_name(engine): line for engine, line in self._lines.items()}
        return Reported(
            path=path,
            lines=len(lines),
            left=tuple(name for name, line in named.items() if not line.is_complete),
            events={name: tuple(event.code for event in line.events) for name, line in named.items() if line.events},
        )

    def _write_run(self, batch: int) -> None:
        from harness.report.markdown import summary

        lines = [line for engine, line in self._lines.items() if engine.batch.optimum == batch]
        if any(line.done for line in lines):
            record = run_record(self._about, lines, command=self._asked.command)
            self._folder.keep_run(batch, record, summary(record))

    # -- building ----------------------------------------------------------------------------------------------------------

    def _left_of(self, wave: Sequence[EngineSpec]) -> tuple[EngineSpec, ...]:
        return tuple(engine for engine in wave if not self._lines[engine].is_complete)

    def _to_build(self, wave: Iterable[EngineSpec]) -> list[EngineSpec]:
        """What a wave needs, also what an earlier run built: its files may be gone since."""
        wanted = dict.fromkeys(one for engine in wave for one in (self._twin(engine), engine) if one is not None)
        return [engine for engine in wanted if engine not in self._at_hand and not self._lines[engine].was_refused]

    def _build(self, engine: EngineSpec, gpu: str | None) -> None:
        """In a builder's thread."""
        try:
            self._graphs.adopt(self._prepared.graph_of(engine.encoder, engine.recipe))
            self._maker.engine(engine, gpu=gpu)
        except EnginegateError as error:
            self._keep(engine, self._lines[engine].after(Stage.BUILD, Event.of(Stage.BUILD, error)))
            return
        self._at_hand.add(engine)
        if Stage.BUILD not in self._lines[engine].done:
            self._keep(engine, self._lines[engine].after(Stage.BUILD))

    def _twin(self, engine: EngineSpec) -> EngineSpec | None:
        """The FP16 engine of the same encoder and batch, where the folder has one."""
        twin = replace(engine, recipe=Recipe.FP16)
        return twin if engine.recipe.is_quantized and twin in self._lines else None

    def _built_twin(self, engine: EngineSpec) -> EngineSpec | None:
        twin = self._twin(engine)
        return twin if twin is not None and self._lines[twin].is_built else None

    # -- time --------------------------------------------------------------------------------------------------------------

    def _forecast(self) -> Forecast:
        built = {engine: line.engine.build_seconds for engine, line in self._lines.items() if line.engine is not None}
        known = {engine: seconds for engine, seconds in built.items() if seconds is not None}
        return Forecast(builders=self._asked.builders, build_s=known, timing_s=self._timing_s)

    def _expected_s(self, wave: Sequence[EngineSpec]) -> float | None:
        return self._forecast().wave_s([one for one in wave if Stage.BUILD not in self._lines[one].done], wave)

    def _left_s(self) -> float | None:
        """Seconds that all that is left may take; None where nothing is known yet."""
        left = [wave for wave in map(self._left_of, waves(self._engines, self._asked.builders)) if wave]
        seconds = [self._expected_s(wave) for wave in left]
        return None if not seconds or None in seconds else sum(filter(None, seconds))

    def _has_time_for(self, wave: Sequence[EngineSpec]) -> bool:
        return bool(wave) and self._budget.holds(self._expected_s(wave) or 0.0)

    def _require_time_for(self, wave: Sequence[EngineSpec]) -> None:
        if not self._has_time_for(wave):
            raise OutOfTime("wave")

    def _build_words(self, to_build: Sequence[EngineSpec], left: Sequence[Sequence[EngineSpec]]) -> str:
        words = f"building {', '.join(map(line_name, to_build))}"
        seconds = [self._expected_s(wave) for wave in left]
        if None in seconds:
            return words
        return f"{words}; by what was seen so far this wave takes {seconds[0]:.0f} s, all that is left {sum(filter(None, seconds)):.0f} s"

    @contextmanager
    def _timing_step(self, words: str, gates: int) -> Iterator[None]:
        with self._budget.step(f"timing {gates}"), self._progress(words):
            yield

    # -- looking -----------------------------------------------------------------------------------------------------------

    def _look(self, engine: EngineSpec) -> None:
        line = self._lines[engine]
        if line.is_built and Stage.GRAPH not in line.done:
            self._keep(engine, self._looking.with_graph(line, engine, twin=self._built_twin(engine)))
        if line.is_built and self._asked.engines is not None:
            left_engine(self._pipeline, engine, self._asked.engines, stem=line_name(engine))

    def _try_out(self, engine: EngineSpec) -> None:
        line = self._lines[engine]
        if line.is_built and Stage.ACCURACY not in line.done:
            with self._budget.step("accuracy"), self._progress(f"running {line_name(engine)}"):
                weighed = self._looking.with_device_memory(line, engine)
                self._keep(engine, self._looking.with_accuracy(weighed, engine, twin=self._built_twin(engine)))

    def _profile(self, wave: Sequence[EngineSpec]) -> None:
        """Where the time goes, of the largest batch alone: a smaller one's says little more, and each takes as long as its timing."""
        largest = max(engine.batch.optimum for engine in self._engines)
        for engine in wave:
            if not self._lines[engine].is_built or Stage.PROFILE not in self._stages_left(engine):
                continue
            twin = self._built_twin(engine) if engine.batch.optimum == largest else None
            with self._profiling_step(engine) if twin is not None else nullcontext():
                self._keep(engine, with_gain(self._lines[engine], engine, twin, self._pipeline, self._folder))

    @contextmanager
    def _profiling_step(self, engine: EngineSpec) -> Iterator[None]:
        with self._budget.step("profile"), self._progress(f"profiling {line_name(engine)} beside FP16"):
            yield

    # -- timing ------------------------------------------------------------------------------------------------------------

    def _time(self, wave: Sequence[EngineSpec]) -> None:
        """Time what was built beside its twin, those of one batch together; an FP16 engine is its own twin."""
        wanted = [(one, stage) for one in wave if self._lines[one].is_built for stage in CACHES if stage in self._stages_left(one)]
        for engine, stage in wanted:
            if engine.recipe.is_quantized and self._built_twin(engine) is None:
                words = f"{line_name(engine)} has no FP16 engine to be timed beside; expected recipe fp16 in the prepared folder, and built"
                self._keep(engine, self._lines[engine].after(stage, Event.of(stage, InvalidMeasurement(words))))
        for batch in dict.fromkeys(engine.batch for engine, _ in wanted):
            together = [one for one in wanted if one[0].batch == batch and one[1] in self._stages_left(one[0])]
            if not together:
                continue
            started = time.monotonic()
            outcomes = self._timer.timed(together)
            for (engine, stage), outcome in outcomes.items():
                self._keep(engine, _after_timing(self._lines[engine], stage, outcome))
            engines = {engine for engine, _ in together}
            self._timing_s |= dict.fromkeys(engines, (time.monotonic() - started) / len(engines))

    def _stages_left(self, engine: EngineSpec) -> list[Stage]:
        line = self._lines[engine]
        return [stage for stage in line.stages if stage not in line.done]

    # -- lines -------------------------------------------------------------------------------------------------------------

    def _keep(self, engine: EngineSpec, line: ReportLine) -> None:
        with self._keeping:
            self._lines[engine] = line
            self._folder.keep_line(line_name(engine), line)

    def _blank(self, engine: EngineSpec) -> ReportLine:
        return ReportLine(
            encoder=engine.encoder.name,
            weights=engine.encoder.weights,
            recipe=engine.recipe,
            batch=engine.batch.optimum,
            is_refilled=self._prepared.graph_of(engine.encoder, engine.recipe).is_refilled,
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


def _after_timing(line: ReportLine, stage: Stage, outcome: Outcome) -> ReportLine:
    if outcome.timed is None:
        return line.after(stage, *([Event.of(stage, outcome.error)] if outcome.error is not None else []))
    ratio = (outcome.ratio,) if outcome.ratio is not None else ()
    return replace(line, timed={**line.timed, str(CACHES[stage]): outcome.timed}, benchmark=(*line.benchmark, *ratio)).after(stage)


def _require_backend(engines: Sequence[EngineSpec]) -> None:
    """Refuse, as the backend names it, a machine where it can build nothing: a report of such lines would tell nothing else."""
    if not engines:
        raise UsageError("the prepared folder has no graphs; expected some; prepare it again")
    refusals = [refusal for engine in engines if (refusal := _refusal(engine)) is not None]
    if len(refusals) == len(engines):
        raise type(refusals[0])(f"{engines[0].backend} can build nothing here: {refusals[0]}")


def _refusal(engine: EngineSpec) -> EnginegateError | None:
    try:
        require_possible(backend_of(engine.backend), Action.BUILD, engine)
    except EnginegateError as refusal:
        return refusal
    return None
