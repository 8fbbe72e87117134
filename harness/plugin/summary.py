"""What a person sees: progress on long work, and the table at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from harness.plugin.run import run_of
from harness.report.progress import Progress

Task = Callable[[str], AbstractContextManager[Callable[[str], None] | None]]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Generator[None, object, object]:
    """Put the table last, below what pytest and other plugins say."""
    result = yield
    if run_of(config).record is not None:
        _write_table(terminalreporter, config)
    return result


def _write_table(terminalreporter: Any, config: pytest.Config) -> None:
    run = run_of(config)
    assert run.record is not None  # for the type checker: the caller looked
    from harness.report.terminal import table

    record = run.record
    terminalreporter.section("enginegate")
    colour = terminalreporter.hasmarkup
    terminalreporter.write_line(table(record.verdicts, record.not_run, record.reports, colour=colour))
    terminalreporter.write_line(f"run: {shown_path(run.path, config.invocation_params.dir)}")


def shown_path(path: Path, base: Path) -> str:
    """The path as a person would type it from `base`."""
    return os.path.relpath(path, base) if path.is_relative_to(base) else str(path)


def progress_of(config: pytest.Config) -> Task:
    """A callable that says on the terminal what takes long, past pytest's capture; silent in workers, whose output nobody sees."""
    run = run_of(config)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if run.is_worker or reporter is None:
        return lambda text: nullcontext()

    def task(text: str) -> AbstractContextManager[Callable[[str], None] | None]:
        with _past_capture(config):
            reporter.ensure_newline()
        return progress.task(text)

    progress = Progress(run.terminal, is_terminal=reporter.isatty)
    return task


def note_of(config: pytest.Config) -> Callable[[str], None]:
    """A callable that puts one line on the terminal, past pytest's capture."""
    progress = Progress(run_of(config).terminal, is_terminal=False)
    return lambda text: progress.note(f"enginegate: {text}")


def _past_capture(config: pytest.Config) -> AbstractContextManager[None]:
    capture = config.pluginmanager.get_plugin("capturemanager")
    return capture.global_and_fixture_disabled() if capture else nullcontext()
