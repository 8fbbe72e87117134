"""Prints which batch profiles full TensorRT can build of some ONNX encoders, a JSON line each, and how fast what it built runs.

TensorRT 10.6 refuses FP8 with some dynamic batches on SM90; what the `tensorrt` backend may promise there rests on this table.
Every build and every measurement is a process of its own, so one that aborts or hangs costs only its row. Measurements wait until
nothing builds. All goes to `results.jsonl` under --out at once, with the log, the plan and the layer table of each build beside it.

ENGINEGATE_TENSORRT_HOME names a folder with TensorRT's libraries in libs/ and its Python module in python/; without it, an
installed `tensorrt` is used.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib
import itertools
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

RESULTS = "results.jsonl"
HOME = "ENGINEGATE_TENSORRT_HOME"

WARM_UP_LAUNCHES = 20
WARM_UP_SECONDS = 0.5  # an idle GPU runs at a fraction of its clock, and takes a while to leave it
BLOCKS = 5
BLOCK_MS = 20.0
MEASURE_SECONDS = 5.0  # set aside for each engine: a process, a load, and the blocks
MEASURE_LIMIT = 60.0
LEAST_BUILD_SECONDS = 60.0  # a build takes 45 to 90 s; one that the budget would cut is not begun
TAIL_LINES = 12

# An end-of-text token closes each row: the text tower looks for the largest number, and this is it.
FIRST_TOKEN, LAST_TOKEN, END_OF_TEXT = 1, 49405, 49407


@dataclass(frozen=True, slots=True)
class Row:
    """One file and one profile: `MIN/OPT/MAX`, or `fixed:N`, which writes the batch into the file itself."""

    file: str
    profile: str

    @property
    def id(self) -> str:
        """How --only and the results name it."""
        return f"{self.file}@{self.profile}"

    @property
    def stem(self) -> str:
        """The id as part of a file name."""
        return re.sub(r"[^\w.-]", "_", self.id)

    @property
    def fixed(self) -> int | None:
        """The batch to write into the file; None leaves it open."""
        kind, _, rows = self.profile.partition(":")
        return int(rows) if kind == "fixed" else None

    @property
    def bounds(self) -> str:
        """`MIN/OPT/MAX`, whichever way the profile is written."""
        return self.profile if self.fixed is None else "/".join([str(self.fixed)] * 3)


def _of(file: str, *profiles: str) -> list[Row]:
    return [Row(file, profile) for profile in profiles]


# Most telling first.
PLAN = (
    # Which profiles does FP8 build with? A minimum of one, an exact batch, a lower bound near the upper one.
    *_of("ViT-B-32-image-linear", "128/128/128", "1/8/64", "1/1/1", "64/128/128", "1/8/8", "8/8/8"),
    *_of("ViT-B-32-text-linear", "1/8/64", "128/128/128", "8/8/8"),
    *_of("ViT-B-32-image-linear", "1/128/128", "32/32/32", "120/128/128"),
    # What is FP8 worth, like for like?
    *_of("ViT-B-32-image-fp16", "fixed:128"),
    *_of("ViT-B-32-image-linear", "fixed:128"),
    *_of("ViT-B-32-image-modelopt", "fixed:128"),
    *_of("ViT-B-32-text-fp16", "fixed:128"),
    *_of("ViT-B-32-text-linear", "fixed:128"),
    *_of("ViT-B-32-text-modelopt", "fixed:128"),
    *_of("ViT-B-32-image-attention", "fixed:128"),
    *_of("ViT-B-32-text-attention", "fixed:128"),
    # And in a larger tower?
    *_of("ViT-L-14-text-fp16", "fixed:128"),
    *_of("ViT-L-14-text-linear", "fixed:128"),
    *_of("ViT-L-14-image-fp16", "fixed:128"),
    *_of("ViT-L-14-image-linear", "fixed:128"),
    # What does an open batch cost FP16?
    *_of("ViT-B-32-image-fp16", "1/128/128", "1/8/64"),
    *_of("ViT-B-32-text-fp16", "1/128/128"),
)


def main() -> None:
    options = _options()
    _show_tensorrt_to_children()
    run = Run(options, _chosen(options), Journal(options.out), time.monotonic() + options.budget_seconds)
    run.journal.write({"kind": "machine", **_machine()})
    _build_all(run)
    _measure_all(run)
    _print_table(run)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path, required=True, metavar="DIR", help="the ONNX files, each <stem>.onnx")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results, logs, plans and layer tables")
    parser.add_argument("--profiles", help="MIN/OPT/MAX or fixed:N, separated by commas, for every file; default: a plan of its own")
    parser.add_argument("--only", default="", metavar="REGEX", help="rows whose FILE@PROFILE it matches anywhere")
    parser.add_argument("--budget-seconds", type=float, default=3600.0, help="when it is used up, nothing new starts")
    parser.add_argument("--build-limit", type=float, default=240.0, help="seconds after which a build counts as hung")
    parser.add_argument("--skip-done", action="store_true", help="keep the rows that --out has a verdict on")
    parser.add_argument("--jobs", type=int, default=1, help="builds side by side; over one, the kernels chosen are not worth timing")
    parser.add_argument("--passes", type=int, default=2, help="measurements of each engine, in turn with the others")
    return parser.parse_args()


def _show_tensorrt_to_children() -> None:
    """Set what a process reads when it starts; this one is past that, and loads no TensorRT."""
    home = os.environ.get(HOME)
    paths = {"PYTHONPATH": [str(Path(__file__).resolve().parents[1])]}
    if home:
        paths["LD_LIBRARY_PATH"] = [str(Path(home).resolve() / "libs")]
        paths["PYTHONPATH"].append(str(Path(home).resolve() / "python"))
    for name, folders in paths.items():
        os.environ[name] = os.pathsep.join(filter(None, [*folders, os.environ.get(name)]))
    # The children are fresh interpreters that copy this list; the variable alone would reach only what they start.
    sys.path[:0] = paths["PYTHONPATH"]


def _chosen(options: argparse.Namespace) -> list[Row]:
    if options.profiles:
        files = sorted(path.stem for path in options.onnx.glob("*.onnx"))
        rows = [row for file in files for row in _of(file, *options.profiles.split(","))]
    else:
        rows = list(PLAN)
    return [row for row in rows if re.search(options.only, row.id)]


# -- what is written ---------------------------------------------------------------------------------------------------------------


class Journal:
    """`results.jsonl`: one line a fact, on disk before the next begins. Builds side by side share it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / RESULTS
        self._writing = threading.Lock()

    def write(self, fact: dict[str, Any]) -> None:
        """Add one line, and show it."""
        line = json.dumps(fact)
        with self._writing, self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line if len(line) < 600 else f"{line[:600]}...", flush=True)

    def read(self) -> list[dict[str, Any]]:
        """Every line so far, of earlier runs too."""
        return [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]

    def verdicts(self) -> dict[str, dict[str, Any]]:
        """The last build of each row that ended by itself, or hung."""
        return {fact["row"]: fact for fact in self.read() if fact["kind"] == "build" and fact["ok"] is not None}

    def measured(self, row: Row) -> int:
        """How often this row's engine was measured."""
        return sum(fact["kind"] == "latency" and fact["row"] == row.id for fact in self.read())


@dataclass(frozen=True, slots=True)
class Run:
    """What one call of this script was asked for, and when it has to end."""

    options: argparse.Namespace
    rows: list[Row]
    journal: Journal
    deadline: float

    @property
    def seconds_left(self) -> float:
        """Until the budget is used up."""
        return self.deadline - time.monotonic()

    @property
    def seconds_for_a_build(self) -> float:
        """What is left when each engine that waits for its measurement, and the next one, has its time set aside."""
        waiting = sum(max(0, self.options.passes - self.journal.measured(row)) for row in self.built())
        return self.seconds_left - MEASURE_SECONDS * (waiting + self.options.passes)

    def built(self) -> list[Row]:
        """The rows that have an engine."""
        verdicts = self.journal.verdicts()
        return [row for row in self.rows if row.id in verdicts and verdicts[row.id]["ok"]]


def _machine() -> dict[str, Any]:
    version, error = _in_child(_version, (), limit=120.0, log=None)
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "gpu": _smi("name"), "driver": _smi("driver_version")} | (
        {"tensorrt": version} if error is None else {"tensorrt": None, "error": error}
    )


def _smi(field: str) -> str | None:
    """One figure of the first GPU; None without a driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    done = subprocess.run([tool, f"--query-gpu={field}", "--format=csv,noheader", "-i", "0"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _print_table(run: Run) -> None:
    verdicts = run.journal.verdicts()
    times = {fact["row"]: fact for fact in run.journal.read() if fact["kind"] == "latency" and fact.get("ms")}
    print(f"\n{'row':44} {'builds':>6} {'s':>5} {'weights':>11} {'plan':>11} {'activations':>11} {'ms':>8}")
    for row in run.rows:
        built = verdicts.get(row.id)
        if built is None:
            print(f"{row.id:44} {'-':>6}")
            continue
        figures = [built.get(name) for name in ("weights_bytes", "plan_bytes", "activation_bytes")]
        ms = f"{statistics.median(times[row.id]['ms']):.3f}" if row.id in times else "-"
        shown = " ".join(f"{'-' if figure is None else figure:>11}" for figure in figures)
        print(f"{row.id:44} {'yes' if built['ok'] else 'no':>6} {built['seconds']:5.0f} {shown} {ms:>8}")


# -- a process for each step -------------------------------------------------------------------------------------------------------


def _in_child(work: Callable[..., Any], arguments: tuple[Any, ...], *, limit: float, log: Path | None) -> tuple[Any, str | None]:
    """What `work` returned in a fresh process, and None; or None, and how the process ended without an answer.

    Args:
        log: file for what the process prints, its last words above all.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, log, work, arguments), daemon=True)
    child.start()
    sender.close()
    answer, ended = None, f"hung: no answer within {limit:.0f} s"
    if receiver.poll(max(limit, 0.0)):
        try:
            answer, ended = receiver.recv(), None
        except EOFError:
            child.join()
            ended = f"died with exit code {child.exitcode}"
    # An answer is kept even where TensorRT does not find its way out of the process.
    child.join(timeout=20.0 if ended is None else 0.0)
    if child.is_alive():
        child.kill()
        child.join()
    return answer, None if ended is None else "\n".join(filter(None, (ended, _tail(log))))


def _answer(sender: Any, log: Path | None, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if log is not None:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
    sender.send(work(*arguments))


def _tail(log: Path | None) -> str:
    if log is None or not log.exists():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])


def _tensorrt() -> ModuleType:
    """TensorRT's module; the bindings' own, where the package that only renames them is absent."""
    from harness.need import is_installed, need

    name = "tensorrt" if is_installed("tensorrt") else "tensorrt_bindings"
    return need(name, extra="tensorrt", to="build and run engines")


def _version() -> str:
    return str(_tensorrt().__version__)


# -- building ----------------------------------------------------------------------------------------------------------------------


def _build_all(run: Run) -> None:
    done = run.journal.verdicts() if run.options.skip_done else {}
    pending = iter([row for row in run.rows if row.id not in done])
    taking = threading.Lock()

    def work() -> None:
        while True:
            with taking:
                row = next(pending, None)
            if row is None:
                return
            run.journal.write(_built(row, run))

    with ThreadPoolExecutor(run.options.jobs) as pool:
        for worker in [pool.submit(work) for _ in range(run.options.jobs)]:
            worker.result()


def _built(row: Row, run: Run) -> dict[str, Any]:
    """What came of building one row. `ok` is None where the build itself gave no verdict."""
    options = run.options
    fact: dict[str, Any] = {"kind": "build", "row": row.id, "file": row.file, "profile": row.profile, "jobs": options.jobs}
    if not (options.onnx / f"{row.file}.onnx").is_file():
        return {**fact, "ok": None, "error": f"{row.file}.onnx is not in --onnx"}
    left = run.seconds_for_a_build
    if left < LEAST_BUILD_SECONDS:
        return {**fact, "ok": None, "error": "not begun: the budget is used up"}
    limit = min(options.build_limit, left)
    start = time.monotonic()
    said = options.out / f"{row.stem}.said"
    built, error = _in_child(_build, (row, options.onnx, options.out), limit=limit, log=said)
    fact["seconds"] = round(time.monotonic() - start, 1)
    log = _log_path(options.out, row)
    try:
        if built is not None:
            return {**fact, **built}
        if fact["seconds"] >= limit and limit < options.build_limit:
            return {**fact, "ok": None, "error": f"cut: the budget left it {limit:.0f} s"}
        return {**fact, "ok": False, "error": "\n".join(filter(None, (error, _telling_lines(log))))}
    finally:
        _compress(log)


def _build(row: Row, onnx: Path, out: Path) -> dict[str, Any]:
    """In a child: the plan and the layer table on disk, and what to note of them."""
    from harness.backends._nvinfer import build_plan
    from harness.errors import EnginegateError
    from harness.records.spec import BatchProfile

    trt = _tensorrt()
    log = _log_path(out, row)
    with _source(row, onnx) as source:
        try:
            plan = build_plan(trt, source, BatchProfile.parse(row.bounds), log, _nothing_more)
        except EnginegateError as error:
            return {"ok": False, "error": str(error)}
    path = _plan_path(out, row)
    path.write_bytes(plan.content)
    inspected, activation_bytes = _inspect(trt, path)
    table = out / f"{row.stem}.layers.json.gz"
    table.write_bytes(gzip.compress(inspected.encode()))
    return {
        "ok": True,
        "plan_bytes": path.stat().st_size,
        "weights_bytes": _weights_bytes(log, path.stat().st_size),
        "activation_bytes": activation_bytes,
        "layers": table.name,
        "error": None,
    }


def _nothing_more(_config: Any) -> None:
    """The builder's own settings, beside those that every build here has."""


@contextlib.contextmanager
def _source(row: Row, onnx: Path) -> Iterator[Path]:
    """The ONNX file; where the batch is fixed, a copy that says so."""
    path = onnx / f"{row.file}.onnx"
    if row.fixed is None:
        yield path
        return
    from onnx import load, save

    with tempfile.TemporaryDirectory(prefix="enginegate-") as folder:
        model = load(path)
        for port in (*model.graph.input, *model.graph.output):
            port.type.tensor_type.shape.dim[0].dim_value = row.fixed
        # Shapes noted for inner tensors still say that the batch is open; the parser infers its own.
        model.graph.ClearField("value_info")
        save(model, Path(folder) / path.name)
        yield Path(folder) / path.name


def _inspect(trt: Any, path: Path) -> tuple[str, int]:
    """The layer table as JSON, and the bytes that a context of the engine needs."""
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(path.read_bytes())
    inspected = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return inspected, int(engine.device_memory_size_v2)


def _weights_bytes(log: Path, plan_bytes: int) -> int | None:
    from harness.errors import InvalidMeasurement
    from harness.measure.memory import read_build_memory

    try:
        return read_build_memory(log, plan_bytes).weights_bytes
    except InvalidMeasurement:
        return None


def _telling_lines(log: Path) -> str:
    """What the builder called an error before its process ended, or else its last lines."""
    if not log.exists():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith(("[ERROR]", "[INTERNAL_ERROR]"))]
    return "\n".join(line[:600] for line in (errors or lines)[-TAIL_LINES:])


def _log_path(out: Path, row: Row) -> Path:
    return out / f"{row.stem}.log"


def _plan_path(out: Path, row: Row) -> Path:
    return out / f"{row.stem}.plan"


def _compress(log: Path) -> None:
    if log.exists():
        with log.open("rb") as plain, gzip.open(log.with_suffix(".log.gz"), "wb", compresslevel=6) as small:
            shutil.copyfileobj(plain, small)
        log.unlink()


# -- measuring ---------------------------------------------------------------------------------------------------------------------


def _measure_all(run: Run) -> None:
    """Every engine once, then every engine once more: a slow minute of the machine then meets all of them."""
    verdicts = run.journal.verdicts()
    for turn in range(1, run.options.passes + 1):
        for row in run.built():
            if run.journal.measured(row) >= turn or run.seconds_left <= 0:
                continue
            optimum = int(row.bounds.split("/")[1])
            said = run.options.out / f"{row.stem}.said"
            found, error = _in_child(_measure, (_plan_path(run.options.out, row), optimum), limit=MEASURE_LIMIT, log=said)
            fact = {"kind": "latency", "row": row.id, "batch": optimum, "built_with_jobs": verdicts[row.id]["jobs"]}
            run.journal.write({**fact, **(found or {"ms": None, "error": error})})


def _measure(plan: Path, batch: int) -> dict[str, Any]:
    """In a child: milliseconds a launch of one engine, replayed as a CUDA graph; the median of each block."""
    trt = _tensorrt()
    gpu = _Gpu()
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan.read_bytes())
    context = engine.create_execution_context()
    outputs = _bind(trt, engine, context, gpu, batch)
    replay = gpu.captured(lambda stream: _require(context.execute_async_v3(stream), "TensorRT refused to launch the engine"))
    first_ms = _warm(gpu, replay)
    launches = max(3, round(BLOCK_MS / first_ms))
    blocks = [gpu.launch_ms(replay, launches) for _ in range(BLOCKS)]
    return {
        "ms": [round(statistics.median(block), 5) for block in blocks],
        "launches": launches,
        "sm_clock_mhz": _smi("clocks.sm"),
        "temperature": _smi("temperature.gpu"),
        "finite": gpu.all_finite(outputs),
        "error": None,
    }


def _require(fact: bool, otherwise: str) -> None:
    if not fact:
        raise SystemExit(otherwise)


def _bind(trt: Any, engine: Any, context: Any, gpu: _Gpu, batch: int) -> list[tuple[int, tuple[int, ...], str]]:
    """Give every tensor its memory, inputs filled from a seed; returns address, shape and type of each output."""
    import numpy as np

    rng = np.random.default_rng(0)
    types = {"HALF": "float16", "FLOAT": "float32", "INT64": "int64", "INT32": "int32"}
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    for name in inputs:
        shape = (batch, *tuple(engine.get_tensor_shape(name))[1:])
        dtype = types[engine.get_tensor_dtype(name).name]
        if dtype.startswith("int"):
            content = rng.integers(FIRST_TOKEN, LAST_TOKEN + 1, shape).astype(dtype)
            content[:, -1] = END_OF_TEXT
        else:
            content = rng.standard_normal(shape, dtype=np.float32).astype(dtype)
        _require(context.set_input_shape(name, shape), f"TensorRT refused {name} of shape {shape}")
        context.set_tensor_address(name, gpu.memory_with(content))
    outputs: list[tuple[int, tuple[int, ...], str]] = []
    for name in (name for name in names if name not in inputs):
        shape, dtype = tuple(context.get_tensor_shape(name)), types[engine.get_tensor_dtype(name).name]
        address = gpu.memory_with(np.full(shape, np.nan, dtype=dtype))
        context.set_tensor_address(name, address)
        outputs.append((address, shape, dtype))
    return outputs


def _warm(gpu: _Gpu, replay: Any) -> float:
    """Milliseconds a launch, once the GPU has left its idle clock."""
    end = time.monotonic() + WARM_UP_SECONDS
    ms = gpu.launch_ms(replay, WARM_UP_LAUNCHES)
    while time.monotonic() < end:
        ms = gpu.launch_ms(replay, WARM_UP_LAUNCHES)
    return statistics.median(ms)


class _Gpu:
    """The first GPU through the CUDA runtime: memory, one stream, graphs and events."""

    def __init__(self) -> None:
        runtime = importlib.import_module("cuda.bindings.runtime")
        self._cuda = runtime
        self._call(runtime.cudaSetDevice(0))
        self._call(runtime.cudaFree(0))  # makes the context
        self._stream = self._call(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))

    def memory_with(self, content: Any) -> int:
        """Address of a copy of a NumPy array."""
        address = self._call(self._cuda.cudaMalloc(content.nbytes))
        to_device = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(self._cuda.cudaMemcpy(address, content.ctypes.data, content.nbytes, to_device))
        return int(address)

    def all_finite(self, tensors: list[tuple[int, tuple[int, ...], str]]) -> bool:
        """Whether every number at these addresses is finite; what was never written is not."""
        import numpy as np

        to_host = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        finite = True
        for address, shape, dtype in tensors:
            content = np.empty(shape, dtype=dtype)
            self._call(self._cuda.cudaMemcpy(content.ctypes.data, address, content.nbytes, to_host))
            finite &= bool(np.isfinite(content).all())
        return finite

    def captured(self, launch: Callable[[int], None]) -> Any:
        """What `launch` puts on the stream, as a graph to replay."""
        cuda, stream = self._cuda, self._stream
        launch(int(stream))  # the first launch does work that no graph can hold
        self._call(cuda.cudaStreamSynchronize(stream))
        self._call(cuda.cudaStreamBeginCapture(stream, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed))
        launch(int(stream))
        graph = self._call(cuda.cudaStreamEndCapture(stream))
        return self._call(cuda.cudaGraphInstantiate(graph, 0))

    def launch_ms(self, graph: Any, launches: int) -> list[float]:
        """Milliseconds of each of `launches` replays in a row, between events on the stream."""
        cuda, stream = self._cuda, self._stream
        events = [self._call(cuda.cudaEventCreate()) for _ in range(launches + 1)]
        self._call(cuda.cudaEventRecord(events[0], stream))
        for event in events[1:]:
            self._call(cuda.cudaGraphLaunch(graph, stream))
            self._call(cuda.cudaEventRecord(event, stream))
        self._call(cuda.cudaStreamSynchronize(stream))
        ms = [self._call(cuda.cudaEventElapsedTime(start, end)) for start, end in itertools.pairwise(events)]
        for event in events:
            self._call(cuda.cudaEventDestroy(event))
        return ms

    @staticmethod
    def _call(answer: tuple[Any, ...]) -> Any:
        error, *found = answer
        _require(int(error) == 0, f"the CUDA runtime answered {error}")
        return found[0] if found else None


if __name__ == "__main__":
    main()
