"""ONNX Runtime on the CPU: runs the ONNX file itself, FP8 nodes included, on any machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from harness.backends._inputs import own_copy, require_inputs
from harness.backends._onnxruntime_profile import read_profile
from harness.contracts import Action, Capability, InputPort, ProfiledLaunches
from harness.errors import InvalidMeasurement, UnusableGraph, UnusableInputs
from harness.need import is_installed, need, version_of
from harness.records.artifacts import BuiltFiles, EngineArtifact
from harness.records.observations import Tensors
from harness.records.spec import BatchProfile, EngineSpec, Recipe

ENGINE_FILE = "engine.onnx"
PROVIDERS = ("CPUExecutionProvider",)

_DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
# ONNX Runtime computes FP8 products in FP32. Its rules for Q/DQ pairs, which are for INT8 kernels, keep weights in FP8, so that every
# launch scales them anew, and add a pair around each transposition, whose rounding is done already. Without those rules weights are scaled
# once. They are then constants, which would be packed for another kernel, one that adds up in another order; hence the second line.
_FOR_ROWS: Mapping[str, str] = {"session.disable_quant_qdq": "1", "session.disable_prepacking": "1"}
_SILENT = 4  # fatal only; errors reach us as exceptions, and the terminal belongs to the caller
_VENDOR_DOMAIN = (
    "Model Optimizer's exporter leaves quantization nodes in its own domain `trt`, which ONNX Runtime does not have; "
    "choose recipe linear, where they are mended, or backend tensorrt_rtx, which reads them"
)


class OnnxRuntimeBackend:
    """The embedded default: its engine is the ONNX file."""

    name = "onnxruntime"
    capabilities = frozenset({Capability.FP8, Capability.ENGINE_IS_ONNX, Capability.LAUNCHES_AT_ONCE, Capability.LAYER_TIMES})

    @property
    def version(self) -> str:
        """Version of the installed package; the CUDA package brings the same module under another name."""
        return version_of("onnxruntime") or version_of("onnxruntime-gpu") or "absent"

    def why_not(self, action: Action, engine: EngineSpec) -> str | None:
        """None when `engine` can be built and run here; else why not."""
        if not is_installed("onnxruntime"):
            return "onnxruntime is not installed; run: pip install onnxruntime"
        if engine.recipe is Recipe.MODELOPT:
            return f"recipe modelopt is exported untouched: {_VENDOR_DOMAIN}"
        return None

    def build(self, source: Path, engine: EngineSpec, folder: Path) -> BuiltFiles:
        """Link the ONNX file into `folder` and prove that it loads there.

        Raises:
            UnusableGraph: ONNX Runtime refuses the file.
        """
        target = folder / ENGINE_FILE
        _link_or_copy(source, target)
        try:
            _load(target, shown_as=source)
        except UnusableGraph:
            target.unlink()
            raise
        return BuiltFiles(engine=ENGINE_FILE)

    def open(self, engine: EngineArtifact, *, threads: int | None = None) -> AbstractContextManager[OnnxRuntimeSession]:
        """A session on the CPU, loaded as ONNX Runtime does when nobody asks for more.

        Raises:
            UnusableGraph: the engine file is gone, or ONNX Runtime refuses it.
        """
        return _opened(engine, threads, {})

    def open_for_rows(self, engine: EngineArtifact, *, threads: int | None = None) -> AbstractContextManager[OnnxRuntimeSession]:
        """As `open`; FP8 takes a quarter less time, and the weights of a quantized engine four times the memory.

        Raises:
            UnusableGraph: the engine file is gone, or ONNX Runtime refuses it.
        """
        return _opened(engine, threads, _FOR_ROWS if engine.spec.recipe.is_quantized else {})


@contextmanager
def _opened(engine: EngineArtifact, threads: int | None, settings: Mapping[str, str]) -> Iterator[OnnxRuntimeSession]:
    if engine.path is None:
        raise UnusableGraph(f"{engine.spec.id} has no engine file; expected what `build` left; build it again")
    loaded = _load(engine.path, shown_as=engine.path, threads=threads, settings=settings)
    session = OnnxRuntimeSession(loaded, engine.spec.batch, engine.path, threads)
    try:
        yield session
    finally:
        session.close()


def run_once(model: bytes, inputs: Tensors) -> Tensors:
    """What a small graph makes of inputs, on the CPU, by output name.

    Args:
        model: an ONNX file's content.
        inputs: arrays by input name, of the types that the graph takes.

    Raises:
        UnusableGraph: ONNX Runtime refuses it.
        InvalidMeasurement: it failed while it ran.
    """
    session = _load(model, shown_as=Path("the diagnostic copy"))
    names = [port.name for port in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))
    # ONNX Runtime's exceptions share no base below Exception, and each of them means that nothing was computed.
    except Exception as error:
        raise InvalidMeasurement(f"ONNX Runtime failed while running a diagnostic copy: {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class OnnxRuntimeFeed:
    """Inputs and outputs bound to memory of their own."""

    binding: Any
    outputs: tuple[str, ...]
    inputs: Tensors


class OnnxRuntimeSession:
    """One loaded ONNX file. `launch` returns when the outputs are there."""

    layer_clock = "ONNX Runtime's profiler"

    def __init__(self, session: Any, batch: BatchProfile, path: Path, threads: int | None) -> None:
        self._session = session
        self._batch = batch
        self._path, self._threads = path, threads
        self._ports = tuple(_input_port(port) for port in session.get_inputs())

    @property
    def ports(self) -> tuple[InputPort, ...]:
        """What the graph takes."""
        return self._ports

    def upload(self, inputs: Tensors) -> OnnxRuntimeFeed:
        """Copy the inputs, and bind outputs once, so that a launch allocates no more than ONNX Runtime itself does."""
        rows = require_inputs(inputs, self._ports, self._batch)
        ort = need("onnxruntime", extra=None, to="run ONNX files")
        session = self._opened()
        binding = session.io_binding()
        # The value shares the array's memory, hence a copy that only the feed holds.
        copies = {name: own_copy(array) for name, array in inputs.items()}
        for name, array in copies.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        for port in session.get_outputs():
            _bind_output(ort, binding, port, rows)
        return OnnxRuntimeFeed(binding, tuple(port.name for port in session.get_outputs()), copies)

    def launch(self, feed: OnnxRuntimeFeed) -> None:
        """Run once.

        Raises:
            InvalidMeasurement: ONNX Runtime failed while it ran, with its own words.
        """
        try:
            self._opened().run_with_iobinding(feed.binding)
        # ONNX Runtime's exceptions share no base below Exception, and each of them means that nothing was computed.
        except Exception as error:
            raise InvalidMeasurement(f"ONNX Runtime failed while running: {error}") from error

    def download(self, feed: OnnxRuntimeFeed) -> Tensors:
        """Outputs of the last launch, copied."""
        values = feed.binding.get_outputs()
        return {name: own_copy(value.numpy()) for name, value in zip(feed.outputs, values, strict=True)}

    def profile(self, feed: OnnxRuntimeFeed, launches: int) -> ProfiledLaunches:
        """Load the file once more, with the profiler, and run it so often. Each node is a layer.

        Raises:
            InvalidMeasurement: ONNX Runtime failed while it ran, or its profile is none.
        """
        with tempfile.TemporaryDirectory(prefix="enginegate-") as folder:
            session = _load(self._path, shown_as=self._path, threads=self._threads, profile=Path(folder) / "profile")
            try:
                for _ in range(launches):
                    session.run(None, dict(feed.inputs))
            # ONNX Runtime's exceptions share no base below Exception, and each of them means that nothing was computed.
            except Exception as error:
                raise InvalidMeasurement(f"ONNX Runtime failed while running with its profiler: {error}") from error
            finally:
                document = Path(session.end_profiling())
            return read_profile(document.read_bytes(), launches)

    def close(self) -> None:
        """Let the vendor's session go; feeds that are still held keep their own memory."""
        self._session = None

    def _opened(self) -> Any:
        if self._session is None:
            raise InvalidMeasurement("this ONNX Runtime session is closed; use it inside its `with` block")
        return self._session


def intra_op_threads() -> int:
    """Threads a session computes with, where nobody says how many.

    ONNX Runtime's own default counts the machine's physical cores, also when this process may use fewer of them, and so
    makes the same runner slower or faster with its neighbours. This counts the CPUs that this process may use.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _load(
    model: Path | bytes,
    *,
    shown_as: Path,
    threads: int | None = None,
    profile: Path | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    ort = need("onnxruntime", extra=None, to="run ONNX files")
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = threads or intra_op_threads()
    options.inter_op_num_threads = 1
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    # Threads that spin after a run take the CPU from the session that is timed next.
    for name, setting in {"session.intra_op.allow_spinning": "0", **settings}.items():
        options.add_session_config_entry(name, setting)
    try:
        return ort.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=list(PROVIDERS))
    # ONNX Runtime's exceptions share no base below Exception, and each of them means that the file does not load.
    except Exception as error:
        raise UnusableGraph(_refusal(shown_as, str(error))) from error


def _refusal(path: Path, words: str) -> str:
    if "trt:" in words or "domain trt" in words:
        return f"ONNX Runtime cannot load {path.name}: {_VENDOR_DOMAIN} (it said: {words})"
    return f"ONNX Runtime cannot load {path.name}; expected one ONNX file that holds its weights; it said: {words}"


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError as error:
        raise UnusableGraph(f"{source} is not there; expected an ONNX file") from error
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _input_port(port: Any) -> InputPort:
    if port.type not in _DTYPES:
        raise UnusableInputs(f"input {port.name!r} of the engine is {port.type}; expected one of {', '.join(_DTYPES)}")
    shape = tuple(length if isinstance(length, int) else None for length in port.shape)
    return InputPort(name=port.name, dtype=np.dtype(_DTYPES[port.type]), shape=shape)


def _bind_output(ort: Any, binding: Any, port: Any, rows: int) -> None:
    shape = _output_shape(port, rows)
    if shape is None:
        binding.bind_output(port.name, "cpu")  # ONNX Runtime allocates, since the graph does not say how much
    else:
        array = np.zeros(shape, _DTYPES[port.type])
        binding.bind_ortvalue_output(port.name, ort.OrtValue.ortvalue_from_numpy(array))


def _output_shape(port: Any, rows: int) -> tuple[int, ...] | None:
    """Shape of an output whose only dynamic axis is the first, which is then the batch; else None."""
    if not port.shape or port.type not in _DTYPES or not all(isinstance(length, int) for length in port.shape[1:]):
        return None
    first = port.shape[0] if isinstance(port.shape[0], int) else rows
    return (first, *port.shape[1:])
