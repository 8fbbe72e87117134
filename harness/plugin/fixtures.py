"""What a suite is given: an engine to ask about, `observe` to look at it, and `expect` to say what must hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from harness.errors import Broken, UsageError
from harness.plugin.gpus import gpus_held
from harness.plugin.options import settings_of
from harness.plugin.recording import Ledger, ledger_of
from harness.plugin.run import run_of
from harness.plugin.selection import Unable, evaluated_engines, latency_gates
from harness.plugin.summary import note_of, progress_of
from harness.records.spec import EngineSpec, PreparedSpec
from harness.records.verdict import Finding, Judgement, Suite

if TYPE_CHECKING:
    from harness.pipeline.observer import Observer
    from harness.records.observations import TimingSamples


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> EngineSpec:
    """One engine of the selection that can do what the test's `gates` marker needs.

    Where a builder has kernels for a batch that cannot change and for no other, it is the engine of one batch that stands in.
    """
    subject = request.param
    ledger = ledger_of(request.node)
    if isinstance(subject, Unable):
        ledger.not_run(subject)
        if subject.was_asked:
            raise Broken(subject.words)
        pytest.skip(subject.words)
    from harness.pipeline.making import may_have_stand_in

    if not may_have_stand_in(subject):
        return subject
    found = request.getfixturevalue("observe").stand_in(subject)
    ledger.subject, ledger.note = found.engine, found.note
    return found.engine


@pytest.fixture
def prepared(request: pytest.FixtureRequest) -> PreparedSpec:
    """One exported encoder of the selection, before any backend."""
    ledger_of(request.node)
    return request.param


@pytest.fixture(scope="session")
def observe(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Iterator[Observer]:
    """Look at engines: embeddings, layers, memory, latency; each made once a session and once a machine."""
    from harness.pipeline.making import Maker
    from harness.pipeline.observer import Observer
    from harness.pipeline.seeing import Pipeline
    from harness.store.baselines import BaselineStore
    from harness.store.cache import ArtifactCache
    from harness.store.latency_baselines import LatencyBaselines

    settings, run, progress = settings_of(pytestconfig), run_of(pytestconfig), progress_of(pytestconfig)
    note = note_of(pytestconfig)
    cache = ArtifactCache(settings.cache_dir, settings.cache_mode, note, session_id=run.session_id)
    baselines = BaselineStore(settings.baselines_dir)
    rows, data = settings.policy.evaluation_rows, settings.eval_data
    maker = Maker(cache, progress, note, recipes=settings.recipes)
    pipeline = Pipeline(maker, evaluation_rows=rows, progress=progress, eval_data=data)
    timed, processes = latency_gates(request.session.items), run.processes
    if processes == 1:  # each of several sees all tests, and is given but a part of them
        pipeline.evaluations.plan(evaluated_engines(request.session.items))
    mode = settings.baseline_mode
    with gpus_held(settings, note):
        run.observer = Observer(
            pipeline,
            run.directory(),
            settings.policy,
            baselines,
            mode,
            latency_records=LatencyBaselines(settings.baselines_dir),
            blobs=settings.blobs,
            timed=timed,
            processes=processes,
            places=settings.places,
        )
        yield run.observer
        run.observer.close()


class Expect(Protocol):
    """Records a judgement as a verdict about the test's engine; the test fails at its end unless all of them pass."""

    def __call__(self, judgement: Judgement) -> None: ...


@pytest.fixture
def expect(request: pytest.FixtureRequest, observe: Observer) -> Expect:
    """Say what must hold. Several may be said in one test; none hides another."""
    ledger: Ledger = ledger_of(request.node)
    if ledger.suite is None:
        raise UsageError(f"{request.node.nodeid} belongs to no suite; mark it with accuracy, graph, benchmark or conformance")
    if ledger.subject is None:
        raise UsageError(f"{request.node.nodeid} is about no engine; ask for the fixture engine or prepared")

    def expecting(judgement: Judgement) -> None:
        subject = ledger.subject  # now, since another engine may stand in for the one that was asked for
        assert subject is not None  # for the type checker: looked at above
        settled = observe.settling.settle(judgement, subject)
        ledger.judge(observe.settling.located(settled, subject) if ledger.suite is Suite.ACCURACY else settled)

    return expecting


class Report(Protocol):
    """Records findings about the test's engine that gate nothing."""

    def __call__(self, findings: Iterable[Finding]) -> None: ...


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Say what is worth knowing. It is shown and kept with the run, and turns nothing red."""
    return ledger_of(request.node).report


class ShowTimings(Protocol):
    """Puts samples into pytest-benchmark's table and JSON."""

    def __call__(self, *samples: TimingSamples) -> None: ...


@pytest.fixture
def show_timings(request: pytest.FixtureRequest) -> ShowTimings:
    """Show samples we took in pytest-benchmark's own table; silent where that plugin is off."""
    if not request.config.pluginmanager.has_plugin("benchmark"):
        return lambda *samples: None

    def show(*samples: TimingSamples) -> None:
        # Asked for here, since one that is set up and not used is a warning: a measurement that broke has nothing to show.
        benchmark: Any = request.getfixturevalue("benchmark")
        # pytest-benchmark 5 has no public way to hand over samples taken elsewhere; `_make_stats` is what its own `pedantic`
        # calls. Delete this when it offers one.
        benchmark._mode = "samples of an interleaved run"
        if benchmark.disabled:
            return
        for arm in samples:
            benchmark.group = request.node.nodeid.partition("[")[2].removesuffix("]") or None
            stats = benchmark._make_stats(1)
            stats.name, stats.fullname, stats.param = arm.engine, f"{request.node.nodeid}::{arm.engine}", arm.engine
            stats.params = {"engine": arm.engine, "batch": arm.batch}
            for ms in arm.ms:
                stats.update(ms / 1000)

    return show
