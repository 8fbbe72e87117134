"""Takes the large weights out of an ONNX file, and puts random ones of the same kind in their places elsewhere.

A compiler's choice of kernels rests on shapes, types, scales and small tensors, which stay as they are, so the engine of a refilled file
is as fast and as large as the original's. Its embeddings mean nothing: weights in FP8 are no random draw of a known seed but what
quantization made of one, so they cannot be had back without the libraries that made them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UnusablePrepared
from harness.records.prepared import TakenTensor

# Larger tensors are weights of products and tables. Biases, norms, scales and a mask of 77 x 77 are smaller, and tell a compiler something.
LARGEST_KEPT = 1 << 14
_TYPES = frozenset({"FLOAT", "FLOAT16", "BFLOAT16", "FLOAT8E4M3FN"})
_STORED_IN = ("raw_data", "float_data", "int32_data")


def strip(source: Path, target: Path) -> tuple[TakenTensor, ...]:
    """Write `source` without its large weights to `target`, and say what was taken: by name, shape, type, mean and deviation."""
    import onnx

    model = onnx.load(source)
    taken = [found for name, tensor in _tensors(model) if (found := _taken(name, tensor)) is not None]
    names = {one.name for one in taken}
    for name, tensor in _tensors(model):
        if name in names:
            for field in _STORED_IN:
                tensor.ClearField(field)
    onnx.save(model, target)
    return tuple(taken)


def refill(source: Path, target: Path, taken: Sequence[TakenTensor], *, seed: int) -> None:
    """Write `source` to `target` with a normal draw of each taken weight's mean and deviation; one seed gives the same file everywhere.

    Raises:
        UnusablePrepared: a weight that was taken has no place in the file.
    """
    import onnx

    model = onnx.load(source)
    places = dict(_tensors(model))
    for one in taken:
        if one.name not in places or list(places[one.name].dims) != list(one.shape):
            raise UnusablePrepared(f"{source} has no place for {one.name} {list(one.shape)}; expected the file that it was taken from")
        places[one.name].raw_data = _drawn(one, places[one.name].data_type, seed)
    onnx.save(model, target)


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """Every stored tensor by the name of the value that it gives."""
    yield from ((tensor.name, tensor) for tensor in model.graph.initializer)
    for node in model.graph.node:
        if node.op_type == "Constant":
            yield from ((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")


def _taken(name: str, tensor: Any) -> TakenTensor | None:
    """What is to be said of a weight that is taken; None for one that stays."""
    from onnx import TensorProto, numpy_helper

    dtype = TensorProto.DataType.Name(tensor.data_type)
    if int(np.prod(tensor.dims)) <= LARGEST_KEPT or dtype not in _TYPES:
        return None
    values = numpy_helper.to_array(tensor).astype(np.float32)
    mean, deviation = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    if not np.isfinite([mean, deviation]).all() or not deviation:  # a mask, or a table of one number: no draw is like it
        return None
    return TakenTensor(name=name, dtype=dtype, shape=tuple(tensor.dims), mean=mean, deviation=deviation)


def _drawn(one: TakenTensor, data_type: int, seed: int) -> bytes:
    import ml_dtypes
    from onnx import helper

    dtype = helper.tensor_dtype_to_np_dtype(data_type)
    rng = np.random.default_rng([seed, zlib.crc32(one.name.encode())])
    values = rng.standard_normal(one.shape, dtype=np.float32) * np.float32(one.deviation) + np.float32(one.mean)
    largest = float(ml_dtypes.finfo(dtype).max)  # FP8 has no infinity: what lies beyond its range would become NaN
    return np.clip(values, -largest, largest).astype(dtype).tobytes()
