import numpy as np
import pytest

from harness.errors import InvalidMeasurement, UnusableInputs
from harness.records.baseline import BaselineKey
from harness.records.observations import Embeddings, EncoderInputs


def inputs(rows, ids=None):
    array = np.asarray(rows, dtype=np.float16)
    return EncoderInputs(name="image", rows=array, ids=ids or tuple(map(str, range(len(array)))), digest="0")


def test_inputs_without_rows_are_refused():
    with pytest.raises(UnusableInputs, match="no rows"):
        inputs(np.zeros((0, 3)))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_inputs_that_are_not_finite_are_refused_and_named(broken):
    with pytest.raises(UnusableInputs, match="1 of 2 rows, first 'b'"):
        inputs([[0, 1], [0, broken]], ids=("a", "b"))


def test_inputs_need_an_id_a_row():
    with pytest.raises(UnusableInputs, match="2 rows and 1 ids"):
        inputs([[0], [1]], ids=("a",))


def test_embeddings_need_a_row_an_input():
    with pytest.raises(InvalidMeasurement, match=r"expected \[2, d\]"):
        Embeddings(rows=np.zeros((3, 4), np.float32), ids=("a", "b"), inputs_digest="0", made_by="a test")


def test_unit_rows_have_norm_one_and_a_zero_row_stays_zero():
    seen = Embeddings(rows=np.array([[3, 4], [0, 0]], np.float32), ids=("a", "b"), inputs_digest="0", made_by="a test")

    assert seen.unit_rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]


def test_a_baseline_lies_where_its_key_says():
    key = BaselineKey(
        machine_class="aot-SM89",
        arch="ViT-B-32",
        tower="image",
        recipe="linear",
        backend="tensorrt_rtx",
        backend_version="1.7.1.116",
        weights="seeded:0",
        batch="1/8/64",
    )

    assert str(key.path) == "aot-SM89/ViT-B-32/image/linear/tensorrt_rtx-1.7.1.116.json"
