from __future__ import annotations

import math
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.errors import UnusableGraph
from harness.measure.onnx_graph import read_onnx_graph
from harness.measure.onnx_weights import round_trip, weight_statistics

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(size=(40, 24)).astype(np.float16)


def _codes(values: np.ndarray) -> TensorProto:
    codes = values.astype(ml_dtypes.float8_e4m3fn)
    return helper.make_tensor("w", TensorProto.FLOAT8E4M3FN, codes.shape, codes.tobytes(), raw=True)


def _constant(folder: Path, tensor: TensorProto, name: str = "m.onnx"):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="/relu")],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["batch"])],
        [tensor],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), folder / name)
    return read_onnx_graph(folder / name).constants[tensor.name]


def _quantized(scale: np.ndarray) -> np.ndarray:
    return np.clip(WEIGHT.astype(np.float32) / scale, -448, 448)


def test_codes_are_counted_without_their_scale(tmp_path: Path) -> None:
    values = np.zeros(100, np.float32)
    values[:5] = [448, -448, 127, 2, np.nan]

    statistics = weight_statistics(_constant(tmp_path, _codes(values)))

    assert statistics is not None
    assert (statistics.largest_code, statistics.nan_codes, statistics.clipped, statistics.zeroed) == (448.0, 1, 0.02, 0.95)


def test_a_float_weight_has_no_codes(tmp_path: Path) -> None:
    assert weight_statistics(_constant(tmp_path, numpy_helper.from_array(WEIGHT, "w"))) is None


@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_a_good_scale_keeps_a_weight_within_half_a_step(axis: int | None, is_transposed: bool, tmp_path: Path) -> None:
    scale = np.abs(WEIGHT).max(axis=None if axis is None else 1 - axis).astype(np.float32) / 448
    shaped = scale if axis is None else np.expand_dims(scale, 1 - axis)
    stored = _constant(tmp_path, _codes(_quantized(shaped)))
    original = WEIGHT.T.copy() if is_transposed else WEIGHT

    trip = round_trip(stored, scale, 0 if axis is None else axis, _constant(tmp_path, numpy_helper.from_array(original, "o"), "o.onnx"))

    assert trip is not None
    assert trip.cosine > 0.999
    assert trip.max_relative_error <= 1 / 16 + 1e-4  # half a step of a number with three bits behind the point


def test_a_scale_of_half_clips_and_shows(tmp_path: Path) -> None:
    scale = np.abs(WEIGHT).max().astype(np.float32) / 896
    original = _constant(tmp_path, numpy_helper.from_array(WEIGHT, "o"), "o.onnx")

    trip = round_trip(_constant(tmp_path, _codes(_quantized(scale))), np.array(scale), 0, original)

    assert trip is not None
    assert trip.max_relative_error > 0.4


def test_a_weight_of_nan_or_zero_agrees_with_nothing(tmp_path: Path) -> None:
    original = _constant(tmp_path, numpy_helper.from_array(WEIGHT, "o"), "o.onnx")
    broken = np.full(WEIGHT.shape, np.nan, np.float32)

    trips = [round_trip(_constant(tmp_path, _codes(values)), np.array(1.0), 0, original) for values in (broken, np.zeros_like(broken))]

    assert [(trip.cosine, trip.max_relative_error) for trip in trips if trip] == [(0.0, math.inf), (0.0, 1.0)]


def test_weights_of_other_shapes_are_not_compared(tmp_path: Path) -> None:
    original = _constant(tmp_path, numpy_helper.from_array(WEIGHT[:20], "o"), "o.onnx")

    assert round_trip(_constant(tmp_path, _codes(WEIGHT)), np.array(1.0), 0, original) is None


def test_codes_beside_the_file_are_read_where_they_lie(tmp_path: Path) -> None:
    _constant(tmp_path, _codes(np.array([448.0, 2.0] * 100, np.float32)))
    path = tmp_path / "m.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.data", size_threshold=0)

    statistics = weight_statistics(read_onnx_graph(path).constants["w"])

    assert statistics is not None
    assert statistics.clipped == 0.5


def test_a_file_beyond_protobufs_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)

    with pytest.raises(UnusableGraph, match="more than a protobuf file may; save its weights as external data"):
        read_onnx_graph(path)


def test_an_initializer_given_twice_is_refused(tmp_path: Path) -> None:
    _constant(tmp_path, _codes(WEIGHT))
    model = onnx.load(tmp_path / "m.onnx")
    model.graph.initializer.append(model.graph.initializer[0])
    onnx.save(model, tmp_path / "m.onnx")

    with pytest.raises(UnusableGraph, match="initializer 'w' twice"):
        read_onnx_graph(tmp_path / "m.onnx")


def test_shapes_are_inferred_for_one_row(tmp_path: Path) -> None:
    _constant(tmp_path, _codes(WEIGHT))

    assert read_onnx_graph(tmp_path / "m.onnx").tensors["y"].shape == (1,)
