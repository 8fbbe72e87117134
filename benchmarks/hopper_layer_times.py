"""Times every layer of TensorRT plans on the GPU that is here, and what this GPU reaches at best, for `enginegate explain` elsewhere.

    ENGINEGATE_TENSORRT_HOME=FOLDER PYTHONPATH=CHECKOUT python benchmarks/hopper_layer_times.py --out TIMES PLANS/*.plan

A plan was built with a fixed batch by this TensorRT, on this kind of GPU. TIMES gets `<stem>.times.json` (layers, whole launches, clocks)
and `<stem>.layers.json` (the engine inspector's table) of each, and `ceilings.json`: the rate of copies within the GPU, and, where torch is
installed, of square matrix products of 8192 in FP16 and FP8. Each plan has a process of its own. What went wrong is in the files too.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hopper_profiles import _in_child, _machine, _show_tensorrt_to_children

PLAN_LIMIT = 120.0
SIDE = 8192
PRODUCTS = 20
BLOCKS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", type=Path, nargs="+", metavar="PLAN")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--launches", type=int, default=30)
    options = parser.parse_args()
    _show_tensorrt_to_children()
    options.out.mkdir(parents=True, exist_ok=True)
    about = _machine()
    for plan in options.plans:
        found, error = _in_child(
            _profile, (plan, options.batch, options.launches, options.out), limit=PLAN_LIMIT, log=options.out / f"{plan.stem}.said"
        )
        _write(options.out / f"{plan.stem}.times.json", {"about": about, "plan": plan.name, **(found or {}), "error": error})
    ceilings: dict[str, Any] = {"about": about}
    for name, measure in {"copy_gbps": _copy, "fp16_tflops": _half_products, "fp8_tflops": _fp8_products}.items():
        found, error = _in_child(measure, (), limit=PLAN_LIMIT, log=options.out / f"{name}.said")
        ceilings[name] = found if error is None else {"error": error}
    _write(options.out / "ceilings.json", ceilings)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
    layers = content.get("layers")
    told = f"{len(layers)} layers, {sum(statistics.median(ms) for _, ms in layers):.3f} ms" if layers else content.get("error") or content
    print(f"{path.name}: {told}", flush=True)


def _profile(plan: Path, batch: int, launches: int, out: Path) -> dict[str, Any]:
    """In a child: the layers of one plan as [name, [ms, ...]] in launch order, and whole launches beside them."""
    from harness.backends import _tensorrt_library
    from harness.backends._cuda import find_gpu
    from harness.backends._cuda_session import TensorRtSession
    from harness.backends.tensorrt import _deserialized
    from harness.measure.layer_times import layer_times
    from harness.records.spec import BatchProfile, BuildOptions
    from harness.workers.serving import seeded_rows

    gpu = find_gpu()
    if gpu.gpu is None:
        raise SystemExit(gpu.why_not)
    trt = _tensorrt_library.load()
    engine = _deserialized(trt, plan, plan.read_bytes(), BuildOptions())
    inspected = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    (out / f"{plan.stem}.layers.json").write_text(inspected, encoding="utf-8")
    session = TensorRtSession(trt, engine, BatchProfile(minimum=batch, optimum=batch, maximum=batch), gpu.gpu.uuid)
    feed = session.upload(seeded_rows(session.ports, batch, 0))
    times = layer_times(session, feed, name=plan.stem, rows=batch, launches=launches)
    return {
        "gpu": str(gpu.gpu),
        "tensorrt": str(trt.__version__),
        "batch": batch,
        "layers": [[layer.name, [round(ms, 6) for ms in layer.ms]] for layer in times.layers],
        "warm_up": times.warm_up,
        "clock": times.clock,
        "launch_ms": [round(ms, 5) for ms in times.launch_ms],
        "launched": times.launched,
        "sm_clock_mhz": times.sm_clock_mhz,
    }


def _copy() -> float:
    from harness.backends._copy_rate import copy_gbps

    return copy_gbps()


def _half_products() -> float:
    torch = importlib.import_module("torch")
    first, second = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.float16) for _ in range(2))
    return _tflops(torch, lambda: torch.matmul(first, second))


def _fp8_products() -> float:
    """Of E4M3 by E4M3 with one scale each, added in FP32, out in FP16."""
    torch = importlib.import_module("torch")
    first, second = (torch.randn(SIDE, SIDE, device="cuda").to(torch.float8_e4m3fn) for _ in range(2))
    scale = torch.ones((), device="cuda")
    return _tflops(torch, lambda: torch._scaled_mm(first, second.t(), scale_a=scale, scale_b=scale, out_dtype=torch.float16))


def _tflops(torch: Any, product: Callable[[], Any]) -> float:
    """10^12 operations a second, of the fastest of five blocks."""
    found: list[float] = []
    for _ in range(BLOCKS + 1):  # the first warms up
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(PRODUCTS):
            product()
        end.record()
        torch.cuda.synchronize()
        found.append(2 * SIDE**3 * PRODUCTS / start.elapsed_time(end) / 1e9)
    return max(found[1:])


if __name__ == "__main__":
    main()
