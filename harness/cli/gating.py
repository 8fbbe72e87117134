"""`enginegate gate`: the suites through pytest, and an exit code from what they left."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

from harness.cli.speaking import document, only_json_on_stdout, print_to_reader, speak_no_more
from harness.errors import EnginegateError, UsageError
from harness.records.verdict import INTERRUPTED


def gate(arguments: list[str]) -> int:
    """Run the suites through pytest and map what came of it to an exit code. Every argument is pytest's."""
    as_json = "--json" in arguments
    arguments = [argument for argument in arguments if argument != "--json"]
    outcome = _Outcome(arguments)
    with only_json_on_stdout() if as_json else contextlib.nullcontext():
        code = _run_pytest(arguments, outcome)
    if as_json:
        print_to_reader(_gate_document(outcome, code))
    elif outcome.path is not None:
        print_to_reader(f"run: {outcome.path}")
    return code


class _Outcome:
    """A pytest plugin that adds the suites where no path is named, and keeps what the run left."""

    def __init__(self, arguments: list[str]) -> None:
        self.path: Path | None = None
        self.exit_code: int | None = None
        self.is_interrupted = False
        self.is_broken = False
        self._arguments = arguments
        self._config: Any = None

    def pytest_load_initial_conftests(self, early_config: Any, args: list[str]) -> None:
        """Add the suites where no path or node id is named. Pytest has read the options by now, and knows which words are paths."""
        self._config = early_config
        if not early_config.known_args_namespace.file_or_dir:
            args.append(str(_suites()))
            early_config.known_args_namespace.file_or_dir = args[-1:]
            given = early_config.invocation_params  # from which xdist makes the command lines of its workers
            early_config.invocation_params = type(given)(args=(*given.args, args[-1]), plugins=given.plugins, dir=given.dir)

    def pytest_configure(self, config: Any) -> None:
        """Resolve what is asked before collection, so that what cannot be meant is one line and not a collection error."""
        from harness.plugin.options import settings_of
        from harness.plugin.run import run_of
        from harness.store.cache import default_cache_dir

        if getattr(config.option, "benchmark_storage", None) == _BENCHMARKS_BESIDE_THE_CALLERS_FILES:
            config.option.benchmark_storage = f"file://{default_cache_dir() / 'benchmarks'}"
        run_of(config).command = ("enginegate", "gate", *self._arguments)
        settings_of(config)

    @property
    def refusal(self) -> tuple[str, str] | None:
        """Code and words of what could not be meant."""
        from harness.plugin.options import REFUSAL

        error = self._config.stash.get(REFUSAL, None) if self._config is not None else None
        return (error.code, str(error)) if error is not None else None

    def pytest_keyboard_interrupt(self, excinfo: Any) -> None:
        import pytest

        # Pytest's own reasons to stop, such as a file that cannot be collected, come as a kind of KeyboardInterrupt too.
        self.is_interrupted = not isinstance(excinfo.value, pytest.Session.Interrupted)

    def pytest_unconfigure(self, config: Any) -> None:
        from harness.plugin.run import run_of

        run = run_of(config)
        self.is_broken = run.is_broken
        if run.record is not None:
            self.path, self.exit_code = run.path, run.record.exit_code


# What pytest-benchmark stores results in unless told otherwise. It makes the folder at once, though nobody asked to save anything.
_BENCHMARKS_BESIDE_THE_CALLERS_FILES = "file://./.benchmarks"


def _suites() -> Path:
    local = Path("suites")
    if local.is_dir():
        return local
    from harness.store.packaged import packaged

    return packaged("suites")


def _run_pytest(arguments: list[str], outcome: _Outcome) -> int:
    import pytest

    sys.dont_write_bytecode = True  # a gate leaves nothing beside its run directory and its cache
    # The command has imported the package by now, so its asserts keep their plain form; that is no news to whoever gates an engine.
    quiet = ["-W", "ignore:Module already imported so cannot be rewritten"]
    own = ["-p", "harness.plugin", "-p", "no:cacheprovider", "--import-mode=importlib", *quiet]
    try:
        code = pytest.main([*own, *arguments], plugins=[outcome])
        sys.stdout.flush()
    except BrokenPipeError as error:  # pytest lets it through once it cannot even say so, or leaves it in the buffer
        speak_no_more()
        if _asks_to_tell(arguments):
            return 0
        raise EnginegateError(
            "whoever read the output stopped before the run had ended; nothing was decided; write it to a file"
        ) from error
    if outcome.is_interrupted:
        return INTERRUPTED
    if outcome.exit_code is not None and code != pytest.ExitCode.INTERNAL_ERROR:
        return outcome.exit_code
    if outcome.is_broken or code == pytest.ExitCode.INTERNAL_ERROR:
        return EnginegateError.exit_code
    return _code_without_a_record(code, arguments)


def _code_without_a_record(code: int, arguments: list[str]) -> int:
    """Nothing was gated: a listing or a help text is done; tests that gate nothing are an empty selection."""
    import pytest

    if code == pytest.ExitCode.OK:
        return 0 if _asks_to_tell(arguments) else UsageError.exit_code
    usage = (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.INTERRUPTED)
    return UsageError.exit_code if code in usage else EnginegateError.exit_code


def _asks_to_tell(arguments: list[str]) -> bool:
    """Whether the arguments ask for words and for no gate."""
    return bool({"--list", "--collect-only", "--co", "--help", "-h", "--version", "-V", "--markers", "--fixtures"} & set(arguments))


def _gate_document(outcome: _Outcome, code: int) -> str:
    if outcome.path is not None:
        return (outcome.path / "run.json").read_text(encoding="utf-8").rstrip()
    if code == 0:
        return document({"exit_code": 0, "message": "nothing was gated; what was asked for is on stderr"})
    kind, message = outcome.refusal or (
        "usage" if code == UsageError.exit_code else "broken",
        "no gate was run; see the messages on stderr",
    )
    return document({"error": {"code": kind, "message": message}})
