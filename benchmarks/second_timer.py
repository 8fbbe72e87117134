"""Times one TensorRT engine by this project's timer and by PyTorch's, in turns, and prints how far they are apart.

    enginegate build --onnx ViT-B-32-image-fp16.onnx --backend tensorrt --batch 128/128/128 --out engines
    python benchmarks/second_timer.py engines/ViT-B-32-image-fp16.engine [--json]

`ours` is `time_launches` of a session, which replays its CUDA graph between events of its own, as every verdict is timed. Beside it:

- `torch events`: `torch.cuda.Event` around replays of the same graph on the same stream;
- `torch graph`: `torch.cuda.Event` around replays of a `torch.cuda.CUDAGraph` that PyTorch captured of a second execution context, with
  PyTorch's buffers on PyTorch's stream: nothing of this project is between the events;
- `host`: the host's clock around so many replays of the same graph and one wait, a launch's share of it.

Blocks of about 20 ms take turns, A B B A, with `ours` as A, so that a clock that drifts is in both. A group gives one ratio; the median
over groups and their quartiles are printed. All timers are within half a percent, or the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from harness.backends.tensorrt import TensorRtBackend
from harness.store.left_engine import read_left_engine
from harness.workers.serving import seeded_rows

BLOCK_MS = 20.0
ALLOWED = 0.005  # what the two timers may be apart
_WARM_SECONDS = 2.0

Timer = Callable[[int], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", type=Path, help="engine file of enginegate build --out")
    parser.add_argument("--groups", type=int, default=50, help="groups A B B A for each timer (default %(default)s)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = compare(options.engine, groups=options.groups)
    print(json.dumps(found, indent=2) if options.json else text(found))
    sys.exit(0 if all(abs(timer["ratio"] - 1) <= ALLOWED for timer in found["timers"].values()) else 1)


def compare(path: Path, *, groups: int) -> dict[str, Any]:
    """Medians of every timer and their ratios to ours, by name."""
    import torch

    engine = read_left_engine(path)
    rows = engine.spec.batch.optimum
    with TensorRtBackend().open(engine) as session:
        feed = session.upload(seeded_rows(session.ports, rows, 0))
        if why_not := session.capture(feed):
            sys.exit(f"{path}: {why_not}; expected a graph to be replayed")
        stream = torch.cuda.ExternalStream(session._handle)
        own = _TorchGraph(torch, session._engine, feed)

        def ours(launches: int) -> list[float]:
            session.launch(feed)
            return list(session.time_launches(feed, launches, cold=False))

        timers: dict[str, Timer] = {
            "torch events": lambda launches: _torch_ms(torch, stream, lambda: session.launch(feed), launches),
            "torch graph": lambda launches: _torch_ms(torch, own.stream, own.graph.replay, launches),
            "host": lambda launches: _host_ms(stream, lambda: session.launch(feed), launches),
        }
        launches = _warm(ours)
        for timer in timers.values():
            timer(launches)
        compared = {name: _in_turns(ours, timer, launches, groups) for name, timer in timers.items()}
    return {
        "engine": engine.spec.id,
        "batch": rows,
        "device": torch.cuda.get_device_name(),
        "tensorrt": engine.backend_version,
        "torch": torch.__version__,
        "launches_a_block": launches,
        "groups": groups,
        "timers": compared,
    }


def text(found: dict[str, Any]) -> str:
    """For people: a Markdown table."""
    lines = [
        f"{found['engine']}, batch {found['batch']}, {found['device']}, TensorRT {found['tensorrt']}, torch {found['torch']}; "
        f"{found['groups']} groups A B B A of {found['launches_a_block']} launches a block",
        "",
        "| timer | ours, ms | it, ms | ratio, median | its quartiles |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, one in found["timers"].items():
        low, high = one["quartiles"]
        lines.append(f"| {name} | {one['ours_ms']:.4f} | {one['ms']:.4f} | {one['ratio']:.5f} | {low:.5f} to {high:.5f} |")
    return "\n".join(lines)


class _TorchGraph:
    """The same engine captured by PyTorch: another context, with buffers and a stream of PyTorch's own."""

    def __init__(self, torch: Any, engine: Any, feed: Any) -> None:
        self._context = engine.create_execution_context()
        dtypes = {"HALF": torch.float16, "FLOAT": torch.float32, "INT64": torch.int64, "INT32": torch.int32}
        self._held: dict[str, Any] = {}
        for name, shape in feed.shapes.items():
            dtype = dtypes[engine.get_tensor_dtype(name).name]
            random = torch.randn(shape, device="cuda") if dtype.is_floating_point else torch.randint(1, 256, shape, device="cuda")
            self._held[name] = random.to(dtype)
            if name not in feed.outputs:
                self._context.set_input_shape(name, shape)
            self._context.set_tensor_address(name, self._held[name].data_ptr())
        self.stream = torch.cuda.Stream()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self.stream):
            self._launch()  # the first launch does work that no graph can hold
            self.stream.synchronize()
            with torch.cuda.graph(self.graph, stream=self.stream):
                self._launch()

    def _launch(self) -> None:
        if not self._context.execute_async_v3(self.stream.cuda_stream):
            sys.exit("TensorRT refused to launch the engine on PyTorch's stream")


def _torch_ms(torch: Any, stream: Any, launch: Callable[[], None], launches: int) -> list[float]:
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(launches)]
    with torch.cuda.stream(stream):
        launch()
        for start, end in events:
            start.record(stream)
            launch()
            end.record(stream)
    stream.synchronize()
    return [start.elapsed_time(end) for start, end in events]


def _host_ms(stream: Any, launch: Callable[[], None], launches: int) -> list[float]:
    launch()
    stream.synchronize()
    began = time.perf_counter()
    for _ in range(launches):
        launch()
    stream.synchronize()
    return [(time.perf_counter() - began) * 1e3 / launches]


def _warm(timer: Timer) -> int:
    """Launches a block, once the clocks are up."""
    end = time.monotonic() + _WARM_SECONDS
    while True:
        launch_ms = median(timer(10))
        if time.monotonic() >= end:
            return max(3, round(BLOCK_MS / launch_ms))


def _in_turns(ours: Timer, other: Timer, launches: int, groups: int) -> dict[str, Any]:
    logs: list[float] = []
    mine: list[float] = []
    its: list[float] = []
    for _ in range(groups):
        first, one, two, last = (median(timer(launches)) for timer in (ours, other, other, ours))
        logs.append((math.log(one) + math.log(two) - math.log(first) - math.log(last)) / 2)
        mine += [first, last]
        its += [one, two]
    low, middle, high = quantiles(logs, n=4)
    return {"ours_ms": median(mine), "ms": median(its), "ratio": math.exp(middle), "quartiles": [math.exp(low), math.exp(high)]}


if __name__ == "__main__":
    main()
