"""What one scale for a token table costs next to one scale a row: rounding error, and what the installed TensorRT-RTX keeps of it.

Takes the text tower as `enginegate build ViT-B-32/text --backend onnxruntime --out . --recipe R` leaves it under fp16 and compact.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from harness.backends.tensorrt_rtx import TensorRtRtxBackend
from harness.measure.layers import read_layer_table
from harness.measure.memory import read_build_memory
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, Recipe

E4M3_MAX = 448.0
TARGET = "SM89"
ONE_ROW = BatchProfile(minimum=1, optimum=1, maximum=1)  # activations are small, so that an unpacked table would show
SMALLER = (10, 100, 1000, 3000, 10_000)

Table = NDArray[np.float32]


@dataclass(frozen=True)
class Stored:
    """Codes of a table and its scale: a scalar, or [rows]."""

    codes: NDArray[np.generic]
    scale: NDArray[np.float16]

    def read(self) -> Table:
        """The table as an engine reads it."""
        scale = self.scale.astype(np.float32)
        return self.codes.astype(np.float32) * (scale[:, None] if scale.shape else scale)


def stored(table: Table, *, per_row: bool) -> Stored:
    """The table in FP8, scaled by the largest magnitude of each row or of all."""
    largest = np.abs(table).max(axis=1) if per_row else np.abs(table).max()
    scale = np.asarray(largest / E4M3_MAX, np.float16)
    wide = scale.astype(np.float32)
    return Stored((table / (wide[:, None] if per_row else wide)).astype(ml_dtypes.float8_e4m3fn), scale)


def snr_db(exact: Table, seen: Table) -> float:
    """Energy of the table over that of its rounding error, in dB."""
    return float(10 * np.log10(np.square(exact).sum() / np.square(seen - exact).sum()))


def gather_of(model: onnx.ModelProto) -> onnx.NodeProto:
    """The Gather that reads rows of the table by token."""
    return next(node for node in model.graph.node if node.op_type == "Gather" and node.input[1] == "tokens")


def table_of(path: Path) -> Table:
    """The float table of an FP16 encoder."""
    model = onnx.load(path)
    name = gather_of(model).input[0]
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name)).astype(np.float32)


def with_table(model: onnx.ModelProto, new: Stored, path: Path) -> None:
    """Save `model` with another FP8 table behind its DequantizeLinear."""
    graph = model.graph
    dequantize = next(node for node in graph.node if gather_of(model).input[0] in node.output)
    codes = next(tensor for tensor in graph.initializer if tensor.name == dequantize.input[0])
    codes.raw_data = new.codes.tobytes()
    graph.initializer.append(numpy_helper.from_array(new.scale, "token_table_scale"))
    dequantize.input[1] = "token_table_scale"
    if new.scale.shape:
        dequantize.attribute.append(helper.make_attribute("axis", 0))
    onnx.save(model, path)


def built(source: Path, folder: Path) -> tuple[int, int, int]:
    """Weight bytes, activation bytes and layers of the engine."""
    spec = EngineSpec(encoder=EncoderSpec.parse("table/text"), recipe=Recipe.COMPACT, backend="tensorrt_rtx", target=TARGET, batch=ONE_ROW)
    files = TensorRtRtxBackend().build(source, spec, folder)
    log = folder / str(files.log)
    memory = read_build_memory(log, (folder / files.engine).stat().st_size)
    return memory.weights_bytes or 0, memory.activation_bytes or 0, len(read_layer_table(log).rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fp16", type=Path)
    parser.add_argument("compact", type=Path)
    options = parser.parse_args()
    table = table_of(options.fp16)
    print(f"TensorRT-RTX {TensorRtRtxBackend().version}, {TARGET}, batch 1, table {list(table.shape)}")
    print("| scale | table SNR, dB | weight bytes | activation bytes | engine layers |\n| --- | --- | --- | --- | --- |")
    for name, per_row in (("one", False), ("one a row", True)):
        new = stored(table, per_row=per_row)
        with tempfile.TemporaryDirectory() as folder:
            with_table(onnx.load(options.compact), new, Path(folder, "m.onnx"))
            weights, activations, layers = built(Path(folder, "m.onnx"), Path(folder))
        print(f"| {name} | {snr_db(table, new.read()):.2f} | {weights:,} | {activations:,} | {layers} |")
    one = stored(table, per_row=False).scale.astype(np.float32)
    for times in SMALLER:
        small = table / np.float32(times)
        seen = (small / one).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * one
        print(f"rows {times} times smaller than those the one scale was made for: {snr_db(small, seen):.2f} dB")


if __name__ == "__main__":
    main()
