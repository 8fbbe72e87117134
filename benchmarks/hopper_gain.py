"""Makes profiles of what `hopper_layer_times.py` left, which `enginegate explain` reads.

    python benchmarks/hopper_gain.py TIMES --onnx ONNX --out docs/data/hopper-trt-10.6/profiles
    enginegate explain docs/.../ViT-B-32-image-fp16.profile.json.gz docs/.../ViT-B-32-image-linear.profile.json.gz

TIMES is the folder that script wrote. ONNX holds the graphs that the plans were built from, as `<stem>.onnx` or `<stem>.onnx.gz`;
a plan whose graph is not there has a profile without blocks and operations.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

from harness.judge.engine_nodes import engine_nodes
from harness.judge.flops import flops_a_row
from harness.judge.structure import GraphView
from harness.measure.layers import read_layer_table
from harness.measure.onnx_graph import read_onnx_graph
from harness.pipeline.profiling import NO_GRAPH
from harness.records.profile import Ceilings, EngineProfile, LayerTime, LayerTimes
from harness.store.profiles import SUFFIX, write_profile

_WAYS = {
    "copy_gbps": "copies of 1 GiB within the GPU, bytes read and bytes written",
    "fp16_tflops": "torch.matmul of 8192 by 8192 matrices",
    "fp8_tflops": "torch._scaled_mm of 8192 by 8192 E4M3 matrices into FP16",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("times", type=Path)
    parser.add_argument("--onnx", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    ceilings = _ceilings(json.loads((options.times / "ceilings.json").read_text()))
    for file in sorted(options.times.glob("*.times.json")):
        told = json.loads(file.read_text())
        stem = file.name.removesuffix(".times.json")
        if told["error"] is not None:
            print(f"{stem}: {told['error']}")
            continue
        write_profile(options.out / f"{stem}{SUFFIX}", _profile(stem, told, options.times, _view(options.onnx, stem), ceilings))
        print(f"{stem}: {len(told['layers'])} layers")


def _ceilings(told: dict[str, Any]) -> Ceilings:
    figures = {name: told[name] for name in _WAYS if isinstance(told[name], float)}
    words = {name: way if name in figures else f"not measured: {told[name]['error']}" for name, way in _WAYS.items()}
    return Ceilings(**figures, words=words)


def _view(folder: Path, stem: str) -> GraphView | None:
    plain, packed = folder / f"{stem}.onnx", folder / f"{stem}.onnx.gz"
    if plain.is_file():
        return GraphView(read_onnx_graph(plain))
    if not packed.is_file():
        return None
    with tempfile.TemporaryDirectory() as unpacked:
        path = Path(unpacked) / plain.name
        path.write_bytes(gzip.decompress(packed.read_bytes()))
        return GraphView(read_onnx_graph(path))


def _profile(stem: str, told: dict[str, Any], folder: Path, view: GraphView | None, ceilings: Ceilings) -> EngineProfile:
    table = read_layer_table(folder / f"{stem}.layers.json")
    arch, tower, recipe = stem.rsplit("-", 2)
    times = LayerTimes(
        layers=tuple(LayerTime(name=name, ms=tuple(ms)) for name, ms in told["layers"]),
        rows=told["batch"],
        warm_up=told["warm_up"],
        clock=told["clock"],
        launch_ms=tuple(told["launch_ms"]),
        launched=told["launched"],
        sm_clock_mhz=tuple(told["sm_clock_mhz"]),
    )
    return EngineProfile(
        engine=f"{arch}/{tower}-{recipe}-tensorrt",
        run=f"{stem}, {told['about']['at']}",
        encoder=f"{arch}/{tower}",
        recipe=recipe,
        backend="tensorrt",
        backend_version=told["tensorrt"],
        batch="/".join([str(told["batch"])] * 3),
        sha256=None,
        device=told["gpu"],
        times=times,
        layers=table.rows,
        nodes=engine_nodes(table, view),
        lists_constants=table.lists_constants,
        flops=flops_a_row(view) if view is not None else {},
        ceilings=ceilings,
        notes=() if view is not None else (NO_GRAPH,),
    )


if __name__ == "__main__":
    main()
