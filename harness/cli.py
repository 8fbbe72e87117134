"""The command `enginegate`: the only room that knows argv."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import EnginegateError, UnknownName, UsageError
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, normalized_target
from harness.records.verdict import INTERRUPTED


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; the table of codes is in the README."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    try:
        if arguments[:1] == ["gate"]:
            return gate(arguments[1:])
        options = _parser().parse_args(arguments)
        return options.run(options)
    except EnginegateError as error:
        return _tell(error.code, str(error), error.exit_code, as_json=as_json)
    except SystemExit as stop:  # argparse has said on stderr what is wrong
        return _tell("usage", "the arguments are wrong; see stderr", 2, as_json=as_json, quietly=True) if stop.code else 0
    except KeyboardInterrupt:
        words = "interrupted; what was being built is discarded, and the cache stays usable"
        return _tell("interrupted", words, INTERRUPTED, as_json=as_json)
    except Exception as error:  # noqa: BLE001 (a fault of ours must not look like a failed gate, whose code is 1)
        traceback.print_exc()
        return _tell("broken", f"{type(error).__name__}: {error}", EnginegateError.exit_code, as_json=as_json)


def gate(arguments: list[str]) -> int:
    """Run the suites through pytest and map what came of it to an exit code. Every argument is pytest's."""
    as_json = "--json" in arguments
    arguments = [argument for argument in arguments if argument != "--json"]
    outcome = _Outcome(arguments)
    with _only_json_on_stdout() if as_json else contextlib.nullcontext():
        code = _run_pytest(arguments, outcome)
    if as_json:
        print(_gate_document(outcome, code))
    elif outcome.path is not None:
        print(f"run: {outcome.path}")
    return code


class _Outcome:
    """A pytest plugin that adds the suites where no path is named, and keeps what the run left."""

    def __init__(self, arguments: list[str]) -> None:
        self.path: Path | None = None
        self.exit_code: int | None = None
        self.is_interrupted = False
        self.is_broken = False
        self.refusal: tuple[str, str] | None = None
        self._arguments = arguments

    def pytest_load_initial_conftests(self, early_config: Any, args: list[str]) -> None:
        """Add the suites where no path or node id is named. Pytest has read the options by now, and knows which words are paths."""
        if not early_config.known_args_namespace.file_or_dir:
            args.append(str(_suites()))
            early_config.known_args_namespace.file_or_dir = args[-1:]
            given = early_config.invocation_params  # from which xdist makes the command lines of its workers
            early_config.invocation_params = type(given)(args=(*given.args, args[-1]), plugins=given.plugins, dir=given.dir)

    def pytest_configure(self, config: Any) -> None:
        """Resolve what is asked before collection, so that what cannot be meant is one line and not a collection error."""
        import pytest

        from harness.plugin.options import settings_of
        from harness.plugin.run import run_of
        from harness.store.cache import default_cache_dir

        if getattr(config.option, "benchmark_storage", None) == _BENCHMARKS_BESIDE_THE_CALLERS_FILES:
            config.option.benchmark_storage = f"file://{default_cache_dir() / 'benchmarks'}"
        run_of(config).command = ("enginegate", "gate", *self._arguments)
        try:
            settings_of(config)
        except pytest.UsageError as error:
            self.refusal = (getattr(error.__cause__, "code", "usage"), str(error))
            raise

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
    code = pytest.main([*own, *arguments], plugins=[outcome])
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
        asked_to_tell = {"--list", "--collect-only", "--co", "--help", "-h", "--version", "-V", "--markers", "--fixtures"}
        return 0 if asked_to_tell & set(arguments) else UsageError.exit_code
    usage = (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.INTERRUPTED)
    return UsageError.exit_code if code in usage else EnginegateError.exit_code


def _gate_document(outcome: _Outcome, code: int) -> str:
    if outcome.path is not None:
        return (outcome.path / "run.json").read_text(encoding="utf-8").rstrip()
    if code == 0:
        return _document({"exit_code": 0, "message": "nothing was gated; what was asked for is on stderr"})
    kind, message = outcome.refusal or (
        "usage" if code == UsageError.exit_code else "broken",
        "no gate was run; see the messages on stderr",
    )
    return _document({"error": {"code": kind, "message": message}})


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


def layers(options: argparse.Namespace) -> int:
    """Say which layer of an engine carries each ONNX node, in which types, and what is fused with it."""
    from harness.pipeline.explaining import explain_engine, explain_file

    is_file = Path(options.subject).is_file()
    _refuse_options(options, is_file=is_file)
    with _only_json_on_stdout() if options.json else contextlib.nullcontext():
        if is_file:
            explained = explain_file(Path(options.subject), onnx=options.onnx)
        else:
            explained = explain_engine(_engine_to_explain(options), cache_dir=options.cache_dir, progress=_progress_on_stderr)
    for note in explained.notes:
        print(f"enginegate: {note}", file=sys.stderr)
    _print_to_reader(explained.document if options.json else explained.text(every=options.all))
    return 0


# What `layers` builds where nothing else is asked for.
_EXPLAINED_BY_DEFAULT = {
    "recipe": "linear",
    "backend": "tensorrt_rtx",
    "target": "SM89",
    "weights": "seeded:0",
    "batch": str(BatchProfile()),
}


def _refuse_options(options: argparse.Namespace, *, is_file: bool) -> None:
    """Raise for an option that would be ignored."""
    unused = [*_EXPLAINED_BY_DEFAULT, "cache_dir"] if is_file else ["onnx"]
    given = next((name for name in unused if getattr(options, name) is not None), None)
    if given is not None:
        subject = "is a file, and its engine is built" if is_file else "is no file; an encoder's graph is exported here"
        raise UsageError(f"--{given.replace('_', '-')} has no use: {options.subject} {subject}; leave the option out")


def _engine_to_explain(options: argparse.Namespace) -> EngineSpec:
    from harness.contracts import Capability
    from harness.pipeline.names import backend_of, recipe_of

    asked = {name: getattr(options, name) or default for name, default in _EXPLAINED_BY_DEFAULT.items()}
    try:
        encoder = EncoderSpec.parse(options.subject, weights=asked["weights"])
    except UnknownName as error:
        raise UnknownName(f"{options.subject} is no file, neither a build log nor an inspector's JSON; and {error}") from error
    backend = backend_of(asked["backend"])
    has_target = options.target or Capability.COMPILES_FOR_GPU in backend.capabilities
    return EngineSpec(
        encoder=encoder,
        recipe=recipe_of(asked["recipe"]),
        backend=backend.name,
        target=normalized_target(asked["target"]) if has_target else None,
        batch=BatchProfile.parse(asked["batch"]),
    )


def compare(options: argparse.Namespace) -> int:
    """Compare what two runs left."""
    from harness.pipeline.comparing import compare_runs

    compared = compare_runs(options.run_a, options.run_b, gate_file=options.gate_file)
    print(compared.document if options.json else compared.markdown.rstrip() if options.markdown else compared.text)
    return compared.record.summary.exit_code


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
    _add_layers(commands)
    _add_compare(commands)
    _add(commands, "doctor", doctor, "what this machine can build, run and measure, and why not the rest")
    return parser


def _add_build(commands: Any) -> None:
    command = _add(commands, "build", build, "build one engine")
    command.add_argument("encoder", metavar="ENCODER", help="ARCH/TOWER, such as ViT-B-32/image")
    command.add_argument("--recipe", required=True, help="fp16, modelopt, linear, attention or compact")
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


def _add_layers(commands: Any) -> None:
    command = _add(commands, "layers", layers, "which layer of an engine carries each ONNX node, and in which types")
    command.add_argument(
        "subject", metavar="ENCODER|PLAN-LOG|INSPECTOR.json", help="ARCH/TOWER, or what a build or the engine inspector left"
    )
    command.add_argument("--onnx", type=Path, metavar="FILE", help="the graph that the engine of a file was built from")
    command.add_argument("--all", action="store_true", help="name every node and show every block")
    for name, default in _EXPLAINED_BY_DEFAULT.items():
        command.add_argument(f"--{name}", help=f"of an encoder's engine, as for build (default {default})")
    command.add_argument("--cache-dir", type=Path, help="where built artifacts are kept")


def _add_compare(commands: Any) -> None:
    command = _add(commands, "compare", compare, "compare two runs: types and fusions by ONNX node, memory, accuracy, latency")
    command.add_argument("run_a", type=Path, metavar="RUN_A", help="folder of the run that the other is held to")
    command.add_argument("run_b", type=Path, metavar="RUN_B", help="folder of the run that may be worse")
    command.add_argument("--markdown", action="store_true", help="print Markdown for a pull request, unless --json is given")
    command.add_argument(
        "--gate-file", type=Path, metavar="FILE", help="where margins and bounds are (default ./gate.toml, else the packaged one)"
    )


def _add(commands: Any, name: str, run: Callable[[argparse.Namespace], int], words: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
    command.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    command.set_defaults(run=run)
    return command


def _tell(code: str, message: str, exit_code: int, *, as_json: bool, quietly: bool = False) -> int:
    if as_json:
        print(_document({"error": {"code": code, "message": message}}))
    if not quietly:
        print(f"enginegate: {message}", file=sys.stderr)
    return exit_code


def _print_to_reader(text: str) -> None:
    """Print a long text; whoever reads it may stop when he has seen enough, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter would complain when it flushes at its end


def _document(content: dict[str, Any]) -> str:
    from harness.store.codec import to_json

    return to_json(content).decode().rstrip()


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
