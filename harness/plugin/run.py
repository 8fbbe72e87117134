"""One run of pytest that gates something: its folder, what its tests decided, and the record that is left of it.

The plugin registers one `Run` a process, so that its hooks share state without a global.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import EnginegateError, UsageError
from harness.plugin.gpus import PLACE, Places
from harness.records.baseline import BaselineMode
from harness.records.verdict import INTERRUPTED, Direction, NotRun, Status, Suite, Verdict, exit_code, worst_of

if TYPE_CHECKING:
    from _pytest.junitxml import LogXML

    from harness.pipeline.observer import Observer
    from harness.records.run import RunRecord
    from harness.store.run_directory import RunDirectory

# How the plugin names the engines of a test, read back when a worker died and the name is all there is.
_ENGINE_ID = re.compile(r"\[(?P<arch>.+)/(?P<tower>image|text)-(?P<recipe>[a-z0-9]+)(-(?P<backend>[a-z_]+))?(-(?P<target>SM\d+))?\]")

_RUN: pytest.StashKey[Run] = pytest.StashKey()


def run_of(config: pytest.Config) -> Run:
    """This process's run."""
    return config.stash[_RUN]


def start_run(config: pytest.Config) -> None:
    """Open this process's run and let it hear what happens."""
    run = Run(config)
    config.stash[_RUN] = run
    config.pluginmanager.register(run, "enginegate-run")


class Run:
    """What one process knows of the run. Under xdist, workers share the folder and the main process keeps the record."""

    def __init__(self, config: pytest.Config) -> None:
        from harness.store.run_directory import fresh_run_path

        given: dict[str, Any] | None = getattr(config, "workerinput", None)
        self.is_worker = given is not None
        self.processes = int(given["workercount"]) if given else 1  # that share the run's tests
        self.session_id = str(given["enginegate_session"]) if given else os.urandom(8).hex()
        base = config.invocation_params.dir
        asked = config.option.run_dir
        self.path = Path(given["enginegate_run"]) if given else (base / asked if asked else fresh_run_path(base / "runs"))
        self.observer: Observer | None = None
        self.record: RunRecord | None = None
        # Pytest captures file descriptor 1 while a test runs; what takes long is said past it.
        self.terminal = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
        self._config = config
        self._places = Places()
        self._started = datetime.now(UTC)
        self._directory: RunDirectory | None = None
        self._junit: LogXML | None = None
        self._rows: dict[str, list[dict[str, Any]]] = {"verdicts": [], "reports": [], "not_run": []}
        self._engines: dict[tuple[str, ...], dict[str, Any]] = {}
        self._engines_sent = 0
        self._deselected = 0
        self._usage: list[str] = []
        self.is_interrupted = False
        self.is_broken = False
        self.command: tuple[str, ...] = ("pytest", *map(str, config.invocation_params.args))

    def directory(self) -> RunDirectory:
        """The run's folder, made on first use: a run that gates nothing leaves none."""
        from harness.store.run_directory import RunDirectory

        if self._directory is None:
            self._directory = RunDirectory.shared(self.path)
        return self._directory

    def new_engines(self) -> list[dict[str, Any]]:
        """Rows of the engines made in this process since the last call."""
        from harness.store.codec import to_plain

        if self.observer is None:
            return []
        rows = self.observer.engine_rows(after=self._engines_sent)
        self._engines_sent += len(rows)
        return [to_plain(row) for row in rows]

    # -- hooks -------------------------------------------------------------------------------------------------------------

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        if self.is_worker:
            return
        if self._config.option.run_dir:
            self._require_free_folder()
        from _pytest.junitxml import LogXML  # pytest's own writer, fed here because the folder is known only at the end

        self._junit = LogXML(str(self.path / "junit.xml"), prefix=None, family="xunit2")
        self._junit.pytest_sessionstart()

    def _require_free_folder(self) -> None:
        from harness.store.run_directory import require_empty

        try:
            require_empty(self.path)
        except UsageError as error:
            raise pytest.UsageError(str(error)) from error

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker which run it belongs to, and which place it has among those that run at one time."""
        node.workerinput["enginegate_run"] = str(self.path)
        node.workerinput["enginegate_session"] = self.session_id
        node.workerinput[PLACE] = self._places.take(node.gateway.id)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Free the place of an xdist worker that is gone, before another one is started for it."""
        self._places.leave(node.gateway.id)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._junit is None:
            return
        self._junit.pytest_runtest_logreport(report)
        payload = getattr(report, "enginegate", None)
        if payload is not None:
            self._collect(payload)
        elif report.failed and report.when not in ("setup", "call", "teardown"):  # xdist's word for a worker that died
            self._rows["verdicts"].append(_lost_verdict(report.nodeid))

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        # Pytest's own reasons to stop, such as -x under xdist, come as a kind of KeyboardInterrupt too.
        self.is_interrupted = not isinstance(excinfo.value, pytest.Session.Interrupted)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self._junit is None or not any(self._rows.values()):
            return
        try:
            if self._config.option.baselines == BaselineMode.TRIM:
                self._trim()
            self.record = self._write(int(exitstatus))
        except EnginegateError as error:
            self._say(f"enginegate: the run could not be recorded: {error}")
            self.is_broken = True
        if (self.record is None or self.record.exit_code) and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _say(self, text: str) -> None:
        from harness.report.progress import Progress

        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
        Progress(self.terminal, is_terminal=False).note(text)

    def pytest_unconfigure(self) -> None:
        self.terminal.close()

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self._deselected += len(items)

    def _trim(self) -> None:
        """Remove baselines that nothing asked for. Only a whole run that passed proves that nothing asks for them."""
        partly = self._config.args_source is pytest.Config.ArgsSource.ARGS and any("::" in argument for argument in self._config.args)
        red = any(row["status"] != Status.PASS for row in self._rows["verdicts"])
        if self._deselected or partly or red or self.observer is None:
            self._say("enginegate: no baseline is removed: tests were deselected, ran in other processes, or did not all pass")
            return
        option = self._config.option
        for key in self.observer.approvals.trim(every_encoder=not option.encoders, every_recipe=not option.recipes):
            self._say(f"enginegate: removed the baseline of {key.arch}/{key.tower} {key.recipe} {key.backend} {key.backend_version}")

    # -- the record --------------------------------------------------------------------------------------------------------

    def _collect(self, payload: dict[str, Any]) -> None:
        for kind in ("verdicts", "reports"):
            self._rows[kind] += payload[kind]
        self._rows["not_run"] += [row for row in payload["not_run"] if row not in self._rows["not_run"]]
        self._usage += [payload["usage"]] if payload["usage"] else []
        if payload["broken"]:
            self._say(f"enginegate: {payload['broken']}")
            self.is_broken = True
        for row in payload["engines"]:
            key = tuple(str(row[name]) for name in ("encoder", "recipe", "backend", "target", "batch", "weights"))
            if key not in self._engines or row["cache"] == "miss":  # of several workers, the one that built it knows best
                self._engines[key] = row

    def _write(self, exitstatus: int) -> RunRecord:
        from harness.report.markdown import summary
        from harness.store.atomic import failing_in_words
        from harness.store.run_directory import append_step_summary

        record = self._record(exitstatus)
        folder = self.directory()
        assert self._junit is not None  # for the type checker: only the main process writes
        with failing_in_words(self.path / "junit.xml"):
            self._junit.pytest_sessionfinish()
        text = summary(record)
        folder.save_text("summary.md", text)
        folder.finish(record)
        try:
            append_step_summary(text)
        except EnginegateError as error:
            self._say(f"enginegate: the step summary was not written: {error}")  # the runner's file; the run itself is whole
        return record

    def _record(self, exitstatus: int) -> RunRecord:
        from harness.measure.machine import this_machine
        from harness.records.run import EngineRow, ReportFinding, RunRecord
        from harness.store.codec import from_plain

        def read(cls: type[Any], rows: list[dict[str, Any]]) -> tuple[Any, ...]:
            return tuple(from_plain(cls, row, origin="a test's report") for row in rows)

        verdicts: tuple[Verdict, ...] = read(Verdict, self._rows["verdicts"])
        code = self._exit_code(verdicts, exitstatus)
        worst = worst_of(verdict.status for verdict in verdicts)
        return RunRecord(
            started=self._started.isoformat(timespec="seconds"),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            command=self.command,
            exit_code=code,
            outcome=Status.INVALID if worst is Status.PASS and code else worst,
            machine=this_machine(),
            engines=read(EngineRow, [self._engines[key] for key in sorted(self._engines)]),
            verdicts=verdicts,
            not_run=read(NotRun, self._rows["not_run"]),
            reports=read(ReportFinding, self._rows["reports"]),
        )

    def _exit_code(self, verdicts: tuple[Verdict, ...], exitstatus: int) -> int:
        if self.is_interrupted:
            return INTERRUPTED
        code = exit_code(verdict.status for verdict in verdicts)
        if self._usage and code != 1:
            return UsageError.exit_code
        if code:
            return code
        if self.is_broken or exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return EnginegateError.exit_code
        if exitstatus == pytest.ExitCode.TESTS_FAILED:
            return 1
        return 0 if verdicts or self._rows["reports"] else 3  # every gate was left out: nothing was shown to hold


def _lost_verdict(nodeid: str) -> dict[str, Any]:
    """An INVALID verdict for the test a worker died in, read from the test's name, which is all there is."""
    from harness.store.codec import to_plain

    parts = _ENGINE_ID.search(nodeid)
    file, _, test = nodeid.partition("::")
    lost = Verdict(
        suite=next((suite for suite in Suite if suite.value in file), Suite.CONFORMANCE),
        encoder=f"{parts['arch']}/{parts['tower']}" if parts else "unknown",
        recipe=parts["recipe"] if parts else "unknown",
        backend=parts["backend"] if parts else None,
        target=parts["target"] if parts else None,
        metric=test.partition("[")[0] if parts else test,
        observed=None,
        bound=None,
        unit="",
        direction=Direction.EQUAL,
        n=0,
        status=Status.INVALID,
        reason="the worker process died in this test; run it alone with -n0 to see why",
    )
    return to_plain(lost)
