"""The command `enginegate`: the only room that knows argv."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import EnginegateError, UsageError
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, normalized_target

INTERRUPTED = 130  # what a shell reports for Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; the table of codes is in the README."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["gate"]:
        return gate(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except EnginegateError as error:
        return _tell(error, as_json=options.json)
    except KeyboardInterrupt:
        print("interrupted; what was being built is discarded, and the cache stays usable", file=sys.stderr)
        return INTERRUPTED


def gate(arguments: list[str]) -> int:
    """Run the suites through pytest and map what came of it to an exit code. Every argument is pytest's."""
    as_json = "--json" in arguments
    arguments = [argument for argument in arguments if argument != "--json"]
    outcome = _Outcome()
    with _only_json_on_stdout() if as_json else contextlib.nullcontext():
        code = _run_pytest(arguments, outcome)
    _say_result(outcome, code, as_json=as_json)
    return code


class _Outcome:
    """A pytest plugin that keeps what the run left."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.exit_code: int | None = None
        self.is_interrupted = False

    def pytest_configure(self, config: Any) -> None:
        """Resolve what is asked before collection, so that what cannot be meant is one line and not a collection error."""
        from harness.plugin.options import settings_of

        settings_of(config)

    def pytest_keyboard_interrupt(self) -> None:
        self.is_interrupted = True

    def pytest_unconfigure(self, config: Any) -> None:
        from harness.plugin.run import run_of

        run = run_of(config)
        if run.record is not None:
            self.path, self.exit_code = run.path, run.record.exit_code


def _run_pytest(arguments: list[str], outcome: _Outcome) -> int:
    import pytest

    sys.dont_write_bytecode = True  # a gate leaves nothing beside its run directory and its cache
    code = pytest.main(_pytest_arguments(arguments), plugins=[outcome])
    if outcome.is_interrupted:
        return INTERRUPTED
    if outcome.exit_code is not None:
        return outcome.exit_code or (1 if code == pytest.ExitCode.TESTS_FAILED else 0)
    # Without a record nothing was gated: OK is a listing or a help text; INTERRUPTED a test file that cannot be collected.
    usage = (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.INTERRUPTED)
    return 0 if code == pytest.ExitCode.OK else UsageError.exit_code if code in usage else 4


def _pytest_arguments(arguments: list[str]) -> list[str]:
    from harness.store.cache import default_cache_dir

    # pytest-benchmark makes a folder for results that nobody asked to save; it goes where artifacts go, not beside the caller's files.
    storage = f"--benchmark-storage=file://{default_cache_dir() / 'benchmarks'}"
    own = ["-p", "no:cacheprovider", "--import-mode=importlib", storage]
    if _names_a_path(arguments):
        return [*own, *arguments]
    local = Path("suites")
    if local.is_dir():
        return [*own, *arguments, str(local)]
    from harness.store.packaged import packaged

    return [*own, f"--rootdir={Path.cwd()}", *arguments, str(packaged("suites"))]


def _names_a_path(arguments: list[str]) -> bool:
    """Whether a test path or node id is among the arguments: something that exists and is no option's value."""
    values = [after for before, after in zip(["", *arguments], arguments, strict=False) if not before.startswith("-") or "=" in before]
    return any(not value.startswith("-") and Path(value.partition("::")[0]).exists() for value in values)


def _say_result(outcome: _Outcome, code: int, *, as_json: bool) -> None:
    if as_json:
        print(_gate_document(outcome, code))
    elif outcome.path is not None:
        print(f"run: {outcome.path}")


def _gate_document(outcome: _Outcome, code: int) -> str:
    if outcome.path is not None:
        return (outcome.path / "run.json").read_text(encoding="utf-8")
    return _error_document("usage" if code == UsageError.exit_code else "broken", "no gate was run; see the messages on stderr")


def build(options: argparse.Namespace) -> int:
    """Build one engine, and say where it is."""
    from harness.pipeline.leaving import build_engine
    from harness.pipeline.names import backend_of, recipe_of

    engine = EngineSpec(
        encoder=EncoderSpec.parse(options.encoder, weights=options.weights),
        recipe=recipe_of(options.recipe),
        backend=backend_of(options.backend).name,
        target=normalized_target(options.target) if options.target else None,
        batch=BatchProfile.parse(options.batch),
    )
    with _only_json_on_stdout() if options.json else contextlib.nullcontext():
        made = build_engine(engine, cache_dir=options.cache_dir, out=options.out, progress=_progress_on_stderr)
    print(made.document if options.json else made.path)
    return 0


def check_graph(options: argparse.Namespace) -> int:
    """Check one ONNX file against what a recipe promises."""
    from harness.pipeline.checking import check_graph as check

    with _only_json_on_stdout() if options.json else contextlib.nullcontext():
        checked = check(options.model, reference=options.reference, policy=options.policy, gate_file=options.gate_file)
    print(checked.document if options.json else checked.text)
    return 1 if checked.record.summary.gate else 0


def doctor(options: argparse.Namespace) -> int:
    """Say what this machine can build, run and measure, and why not the rest."""
    from harness.doctor import examine

    report = examine()
    print(report.document if options.json else report.text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="enginegate", description="Decide whether a TensorRT FP8 CLIP engine may ship.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("gate", help="run the suites; every argument is handed to pytest (see enginegate gate --help)", add_help=False)
    _add_build(commands)
    _add_check_graph(commands)
    _add(commands, "doctor", doctor, "what this machine can build, run and measure, and why not the rest")
    return parser


def _add_build(commands: Any) -> None:
    command = _add(commands, "build", build, "build one engine")
    command.add_argument("encoder", metavar="ENCODER", help="ARCH/TOWER, such as ViT-B-32/image")
    command.add_argument("--recipe", required=True, help="fp16, modelopt or linear")
    command.add_argument("--backend", required=True, help="onnxruntime or tensorrt_rtx")
    command.add_argument("--target", help="GPU to compile for, such as SM89")
    command.add_argument("--weights", default="seeded:0", help="seeded:N, a checkpoint file, or an open_clip pretrained tag")
    command.add_argument("--batch", default=str(BatchProfile()), metavar="MIN/OPT/MAX", help="batch profile (default %(default)s)")
    command.add_argument("--cache-dir", type=Path, help="where built artifacts are kept")
    command.add_argument("--out", type=Path, metavar="DIR", help="leave the engine file and its record here")


def _add_check_graph(commands: Any) -> None:
    command = _add(commands, "check-graph", check_graph, "check the Q/DQ nodes, scales and weights of an ONNX file")
    command.add_argument("model", type=Path, metavar="FP8.onnx", help="an ONNX encoder, whoever made it")
    command.add_argument("--reference", type=Path, metavar="FP16.onnx", help="the same encoder before quantization")
    command.add_argument("--policy", default="linear", metavar="RECIPE", help="recipe whose promise it is held to (default %(default)s)")
    command.add_argument(
        "--gate-file", type=Path, metavar="FILE", help="where the promise is written (default ./gate.toml, else the packaged one)"
    )


def _add(commands: Any, name: str, run: Callable[[argparse.Namespace], int], words: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
    command.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    command.set_defaults(run=run)
    return command


def _tell(error: EnginegateError, *, as_json: bool) -> int:
    if as_json:
        print(_error_document(error.code, str(error)))
    print(f"enginegate: {error}", file=sys.stderr)
    return error.exit_code


def _error_document(code: str, message: str) -> str:
    from harness.store.codec import to_json

    return to_json({"error": {"code": code, "message": message}}).decode().rstrip()


def _progress_on_stderr(text: str) -> contextlib.AbstractContextManager[None]:
    from harness.report.progress import Progress

    return Progress(sys.stderr, is_terminal=sys.stderr.isatty()).task(text)


@contextlib.contextmanager
def _only_json_on_stdout() -> Iterator[None]:
    """Send everything else to stderr, also what libraries write past Python."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
