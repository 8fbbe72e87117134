"""Runs plans that hopper_profiles.py built on real inputs, and keeps their embeddings for judges elsewhere.

    python benchmarks/hopper_profiles.py --onnx ONNX --out PLANS --profiles fixed:128
    python benchmarks/hopper_accuracy.py --plans PLANS --inputs INPUTS --out ROWS

INPUTS holds `image.npz` and `tokens.npz`, each with the array `rows`; a plan takes the one that its input is named after. ROWS gets
one `<plan>.npz` each, `rows` float32 [n, d] as the engine gave them. Plans have one fixed batch: the last one is filled up by repeating
its last row, and what that gives is dropped. Each plan runs in a process of its own, and twice: `repeated` says whether both runs gave
the same bytes.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from hopper_profiles import MEASURE_LIMIT, _Gpu, _in_child, _machine, _require, _show_tensorrt_to_children, _tensorrt

_TYPES = {"HALF": "float16", "FLOAT": "float32", "INT64": "int64", "INT32": "int32"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", type=Path, required=True, metavar="DIR")
    parser.add_argument("--inputs", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    _show_tensorrt_to_children()
    options.out.mkdir(parents=True, exist_ok=True)
    facts: list[dict[str, Any]] = [_machine()]
    for plan in sorted(options.plans.glob("*.plan")):
        out = options.out / f"{plan.stem}.npz"
        found, error = _in_child(_embed, (plan, options.inputs, out), limit=MEASURE_LIMIT, log=options.out / f"{plan.stem}.said")
        facts.append({"plan": plan.stem, **(found or {"error": error})})
        print(json.dumps(facts[-1]), flush=True)
    (options.out / "accuracy.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _embed(plan: Path, inputs: Path, out: Path) -> dict[str, Any]:
    """In a child: all rows through one engine, twice."""
    engine = _Engine(plan)
    with np.load(inputs / f"{engine.input}.npz", allow_pickle=False) as arrays:
        rows = arrays["rows"]
    first, again = engine.embed(rows), engine.embed(rows)
    np.savez(out, rows=first)
    finite = bool(np.isfinite(first).all())
    return {"input": engine.input, "batch": engine.batch, "rows": len(rows), "finite": finite, "repeated": bool((first == again).all())}


class _Engine:
    """A plan of one input, one output and one batch, on the first GPU."""

    def __init__(self, plan: Path) -> None:
        self._cuda, self._gpu = importlib.import_module("cuda.bindings.runtime"), _Gpu()
        trt = _tensorrt()
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        _require(len(names) == 2, f"{plan.name} has the tensors {names}; expected one input and one output")
        (self.input,) = (name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)
        self._held = {name: self._empty(name) for name in names}
        self._address = {name: self._gpu.memory_with(array) for name, array in self._held.items()}
        for name, address in self._address.items():
            self._context.set_tensor_address(name, address)
        self._output = next(name for name in names if name != self.input)
        self.batch = len(self._held[self.input])

    def _empty(self, name: str) -> np.ndarray:
        return np.zeros(tuple(self._engine.get_tensor_shape(name)), _TYPES[self._engine.get_tensor_dtype(name).name])

    def embed(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, d]."""
        parts = [self._launch(rows[start : start + self.batch]) for start in range(0, len(rows), self.batch)]
        return np.concatenate(parts).astype(np.float32)

    def _launch(self, part: np.ndarray) -> np.ndarray:
        feed = np.ascontiguousarray(part[np.minimum(np.arange(self.batch), len(part) - 1)], dtype=self._held[self.input].dtype)
        cuda, gpu = self._cuda, self._gpu
        kind = cuda.cudaMemcpyKind
        gpu._call(cuda.cudaMemcpy(self._address[self.input], feed.ctypes.data, feed.nbytes, kind.cudaMemcpyHostToDevice))
        _require(self._context.execute_async_v3(int(gpu._stream)), "TensorRT refused to launch the engine")
        gpu._call(cuda.cudaStreamSynchronize(gpu._stream))
        made = np.empty_like(self._held[self._output])
        gpu._call(cuda.cudaMemcpy(made.ctypes.data, self._address[self._output], made.nbytes, kind.cudaMemcpyDeviceToHost))
        return made[: len(part)]


if __name__ == "__main__":
    main()
