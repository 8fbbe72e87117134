"""What full TensorRT and TensorRT-RTX share. Every function takes the imported vendor module as its argument.

A vendor module registers one logger for the whole process, and warns of every other one while a builder lives. So there is one
logger for each module here, and what it hears goes to the log of the build that runs.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from harness.backends._builder_options import TimingCache, apply_options, new_monitor
from harness.contracts import Say
from harness.errors import BuildFailed, EnginegateError, OutOfDeviceMemory, UnsupportedTarget, UnusableGraph
from harness.records.spec import BatchProfile, BuildOptions

TAIL_LINES = 12  # of the vendor's log, kept for a message: enough for its error and what led there

# The builder's own words when a target lacks a type of the graph, such as
# "Cannot compile for target(s) sm86, because the model contains HW-specific datatypes: fp8_e4m3."
_LACKS_TYPE = re.compile(r"Cannot compile for target\(s\) (?P<targets>[^:]*?), because .* HW-specific datatypes: (?P<types>[\w, ]+)")
_ERRORS = frozenset({"ERROR", "INTERNAL_ERROR"})

_loggers: dict[str, Any] = {}
_building = threading.Lock()

Configure = Callable[[Any], None]

_PLAIN = BuildOptions()
# The number is CUDA's for memory that cannot be allocated, where a context is made.
_OUT_OF_MEMORY = re.compile(
    r"out ?of ?memory|insufficient memory|Requested amount of GPU memory|CUDA initialization failure with error: 2\b", re.IGNORECASE
)


class BuildLog:
    """Everything one build said, in a file as `[SEVERITY] message`, and its last lines in memory.

    It never raises while the vendor's code is calling: an exception would have to cross C++ and could end the process.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.errors: list[str] = []
        self.write_error: OSError | None = None

    def write(self, severity: str, message: str) -> None:
        """Add one message; it may have many lines."""
        self._tail.append(f"[{severity}] {message[:400]}")
        if severity in _ERRORS:
            self.errors.append(message)
        try:
            self._file.write(f"[{severity}] {message}\n")
        except OSError as error:
            self.write_error = error

    @property
    def tail(self) -> str:
        """The errors, or the last lines where there are none, indented."""
        return "\n".join(f"  {line}" for line in (self.errors[-TAIL_LINES:] or self._tail))


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled engine: its bytes, as an object with the buffer protocol, and what is worth knowing of its build."""

    content: Any
    notes: tuple[str, ...] = ()


def build_plan(
    trt: ModuleType,
    source: Path,
    batch: BatchProfile,
    log_path: Path,
    configure: Configure,
    say: Say | None = None,
    *,
    options: BuildOptions = _PLAIN,
) -> Plan:
    """Compile an ONNX file.

    Args:
        trt: the vendor's module.
        source: the ONNX file.
        batch: length of the first axis of every input.
        log_path: where everything the vendor says is written.
        configure: sets what the two products set differently on the builder's config.
        say: called with how far the build is.
        options: what else the builder is asked.

    Raises:
        UnsupportedOption, UnusableTimingCache: something that the builder was asked.
        UnusableGraph: the parser refuses the file.
        UnsupportedTarget: the target lacks a type of the graph.
        BuildFailed: anything else, with the last lines of the log.
    """
    with _logged(trt, log_path) as (logger, log):
        try:
            plan = _compile(trt, source, batch, logger, log, configure, say, options)
        except EnginegateError:
            raise
        # The bindings raise plain Python types from C++, and each of them means that there is no engine.
        except Exception as error:
            raise BuildFailed(f"{trt.__name__} failed on {source.name}: {error}; its log ends with\n{log.tail}") from error
        if log.write_error is not None:
            raise BuildFailed(f"the build log {log_path} could not be written: {log.write_error}; free space and build again")
        if plan is None:
            raise _refusal(trt, source, log)
        return plan


def _compile(
    trt: ModuleType,
    source: Path,
    batch: BatchProfile,
    logger: Any,
    log: BuildLog,
    configure: Configure,
    say: Say | None,
    options: BuildOptions,
) -> Plan | None:
    builder = trt.Builder(logger)
    config = builder.create_builder_config()
    # Without it the log holds no layer table.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    configure(config)
    # What was asked is looked at before the graph is read, and long before anything is built.
    apply_options(trt, config, options)
    times = TimingCache(trt, config, Path(options.timing_cache), log.errors) if options.timing_cache else None
    network = builder.create_network(_strongly_typed(trt))
    _parse(trt, network, logger, source, log)
    monitor = new_monitor(trt, say) if say is not None else None  # held here, since it must outlive the build
    if monitor is not None:
        config.progress_monitor = monitor
    _add_profile(builder, config, network, batch, source)
    content = builder.build_serialized_network(network, config)
    if content is None:
        return None
    return Plan(content, (times.keep(),) if times else ())


def _strongly_typed(trt: ModuleType) -> int:
    """Creation flags: types come from the graph alone. TensorRT 10 has to be asked for it; later versions may drop the flag."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(trt: ModuleType, network: Any, logger: Any, source: Path, log: BuildLog) -> None:
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        errors = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
        raise UnusableGraph(f"{trt.__name__} cannot parse {source.name}:\n" + ("\n".join(errors) or log.tail))
    # The parser accepts an empty file, and some that are no ONNX at all, as a network of nothing.
    if network.num_inputs == 0 or network.num_outputs == 0:
        raise UnusableGraph(f"{source.name} holds {network.num_inputs} inputs and {network.num_outputs} outputs; expected an ONNX encoder")


def _parser_error(error: Any) -> str:
    where = f"node {error.node_name()!r} ({error.node_operator()}): " if error.node_name() else ""
    return f"  {where}{error.desc()}"


def _add_profile(builder: Any, config: Any, network: Any, batch: BatchProfile, source: Path) -> None:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        first, *rest = tensor.shape
        if -1 in rest:
            raise UnusableGraph(
                f"{source.name}: input {tensor.name!r} is {list(tensor.shape)}; "
                "expected a fixed length on every axis but the first, which is the batch; export it so"
            )
        if first != -1 and (batch.minimum, batch.maximum) != (first, first):
            raise UnusableGraph(
                f"{source.name}: input {tensor.name!r} has a fixed batch of {first} and the profile is {batch}; "
                f"export a dynamic batch, or build with --batch {first}/{first}/{first}"
            )
        profile.set_shape(tensor.name, *([rows, *rest] for rows in (batch.minimum, batch.optimum, batch.maximum)))
    config.add_optimization_profile(profile)


def means_out_of_memory(words: str) -> bool:
    """Whether the vendor's words say that the device has too little memory."""
    return _OUT_OF_MEMORY.search(words) is not None


def logger_of(trt: ModuleType) -> Any:
    """The module's one logger. Its `errors` holds the last errors that it heard, whoever caused them."""
    return _loggers.get(trt.__name__) or _loggers.setdefault(trt.__name__, _new_logger(trt))


def _refusal(trt: ModuleType, source: Path, log: BuildLog) -> EnginegateError:
    lacking = next(filter(None, map(_LACKS_TYPE.search, log.errors)), None)
    if lacking is None and means_out_of_memory(log.tail):
        return OutOfDeviceMemory(
            f"{trt.__name__} found too little free memory on the device to build {source.name}; "
            f"end what else computes there, or build with a smaller --batch; its log says\n{log.tail}"
        )
    if lacking is None:
        return BuildFailed(f"{trt.__name__} built no engine of {source.name}; its log says\n{log.tail}")
    targets, types = lacking["targets"].strip().upper(), lacking["types"].strip()
    remedy = "FP8 needs SM89 (Ada) or newer" if "fp8" in types else "choose a newer target"
    return UnsupportedTarget(
        f"{targets} has no {types}, which {source.name} holds; {remedy}; build for such a target, or recipe fp16\n{log.tail}"
    )


@contextmanager
def _logged(trt: ModuleType, path: Path) -> Iterator[tuple[Any, BuildLog]]:
    """The module's one logger, listening for one build at a time."""
    # Line by line, since a builder that aborts the process takes what is still buffered with it, and that says why.
    with _building, path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n", buffering=1) as file:
        logger = logger_of(trt)
        log = BuildLog(file)
        logger.sink = log.write
        try:
            yield logger, log
        finally:
            logger.sink = None


def _new_logger(trt: ModuleType) -> Any:
    class Forwarding(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.sink: Callable[[str, str], None] | None = None
            self.errors: deque[str] = deque(maxlen=TAIL_LINES)

        def log(self, severity: Any, msg: str) -> None:
            if severity.name in _ERRORS:
                self.errors.append(msg[:400])
            if self.sink is not None:
                self.sink(severity.name, msg)

    return Forwarding()
