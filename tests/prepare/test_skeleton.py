"""Large weights leave an ONNX file, and random ones of the same kind take their places, the same everywhere."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from harness.errors import UnusablePrepared
from harness.prepare.skeleton import LARGEST_KEPT, refill, strip
from tests.helpers.models import half, model

SIDE = 256


@pytest.fixture
def source(tmp_path):
    """A product with a large FP16 weight of mean 1 and deviation 0.5, a large FP8 table, a mask with infinities, and a small bias."""
    rng = np.random.default_rng(3)
    weight = half("weight", rng.normal(1.0, 0.5, (SIDE, SIDE)))
    codes = np.clip(rng.normal(0, 200, (SIDE, SIDE)), -448, 448).astype(ml_dtypes.float8_e4m3fn)
    table = helper.make_tensor("table", onnx.TensorProto.FLOAT8E4M3FN, [SIDE, SIDE], codes.tobytes(), raw=True)
    mask = half("mask", np.triu(np.full((SIDE, SIDE), -np.inf), 1))
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["h"], "m"), helper.make_node("Add", ["h", "bias"], ["y"], "a")]
    path = tmp_path / "source.onnx"
    onnx.save(model(nodes, [weight, table, mask, half("bias", np.arange(SIDE))], shape=[2, SIDE]), path)
    return path


def _stored(path):
    return {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}


def test_large_weights_are_taken_and_what_tells_a_compiler_something_stays(source, tmp_path):
    taken = strip(source, tmp_path / "skeleton.onnx")

    assert {one.name for one in taken} == {"weight", "table"}
    left = _stored(tmp_path / "skeleton.onnx")
    assert not left["weight"].raw_data
    assert not left["table"].raw_data
    for name in ("mask", "bias"):
        assert left[name].SerializeToString() == _stored(source)[name].SerializeToString()
    assert SIDE <= LARGEST_KEPT < SIDE * SIDE


def test_what_is_said_of_a_weight_is_its_type_its_shape_its_mean_and_its_deviation(source, tmp_path):
    weight = next(one for one in strip(source, tmp_path / "skeleton.onnx") if one.name == "weight")

    assert (weight.dtype, weight.shape) == ("FLOAT16", (SIDE, SIDE))
    assert weight.mean == pytest.approx(1.0, abs=0.01)
    assert weight.deviation == pytest.approx(0.5, abs=0.01)


def test_a_refilled_file_has_the_types_and_shapes_of_the_original_and_numbers_of_its_kind(source, tmp_path):
    taken = strip(source, tmp_path / "skeleton.onnx")
    refill(tmp_path / "skeleton.onnx", tmp_path / "full.onnx", taken, seed=0)

    before, after = _stored(source), _stored(tmp_path / "full.onnx")
    for name in ("weight", "table"):
        assert (after[name].data_type, list(after[name].dims)) == (before[name].data_type, list(before[name].dims))
        one, other = (numpy_helper.to_array(which[name]).astype(np.float32) for which in (before, after))
        assert np.isfinite(other).all()
        assert not np.array_equal(one, other)
        assert other.std() == pytest.approx(one.std(), rel=0.05)
    assert (tmp_path / "full.onnx").stat().st_size == pytest.approx(source.stat().st_size, rel=0.01)


def test_one_seed_gives_one_file_and_another_seed_another(source, tmp_path):
    taken = strip(source, tmp_path / "skeleton.onnx")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        refill(tmp_path / "skeleton.onnx", tmp_path / name, taken, seed=seed)

    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_weights_of_another_file_are_refused(source, tmp_path):
    taken = strip(source, tmp_path / "skeleton.onnx")
    onnx.save(model([helper.make_node("Identity", ["x"], ["y"], "i")]), tmp_path / "other.onnx")

    with pytest.raises(UnusablePrepared, match="has no place for weight"):
        refill(tmp_path / "other.onnx", tmp_path / "full.onnx", taken, seed=0)
