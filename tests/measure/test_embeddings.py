from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import InvalidMeasurement, OutsideProfile
from harness.measure.embeddings import batch_sizes, embed
from harness.records.observations import EncoderInputs, Tensors
from harness.records.spec import BatchProfile

Compute = Callable[[np.ndarray], Tensors]


class _Session:
    """Computes when it is launched, and remembers its batches."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self.batches: list[int] = []

    def upload(self, inputs: Tensors) -> dict[str, Tensors]:
        return {"in": inputs}

    def launch(self, feed: dict[str, Tensors]) -> None:
        self.batches.append(len(feed["in"]["tokens"]))
        feed["out"] = self._compute(feed["in"]["tokens"])

    def download(self, feed: dict[str, Tensors]) -> Tensors:
        return feed["out"]


def _inputs(rows: int) -> EncoderInputs:
    tokens = np.arange(rows * 2).reshape(rows, 2)
    return EncoderInputs(name="tokens", rows=tokens, ids=tuple(f"row {index}" for index in range(rows)), digest="d")


def _profile(minimum: int, optimum: int, maximum: int) -> BatchProfile:
    return BatchProfile(minimum=minimum, optimum=optimum, maximum=maximum)


def test_rows_come_back_in_order_as_float32_whatever_the_output_is_called() -> None:
    session = _Session(lambda rows: {"out": rows.astype(np.float16) * 2})
    seen = embed(session, _inputs(5), profile=_profile(1, 2, 4), made_by="me")
    assert session.batches == [2, 2, 1]
    assert seen.rows.dtype == np.float32
    np.testing.assert_array_equal(seen.rows, np.arange(10).reshape(5, 2) * 2)
    assert (seen.ids[4], seen.inputs_digest, seen.made_by) == ("row 4", "d", "me")


def test_batches_side_by_side_come_back_in_order() -> None:
    both_there = threading.Barrier(2, timeout=60)

    def compute(rows: np.ndarray) -> Tensors:
        both_there.wait()
        time.sleep(0.02 if rows[0, 0] == 0 else 0)  # the first batch ends last
        return {"out": rows.astype(np.float16)}

    with ThreadPoolExecutor(2) as launches:
        seen = embed(_Session(compute), _inputs(4), profile=_profile(1, 2, 4), made_by="me", launches=launches)

    np.testing.assert_array_equal(seen.rows, np.arange(8).reshape(4, 2))


def test_batches_one_at_a_time_stay_in_the_callers_thread() -> None:
    threads: set[int] = set()

    def compute(rows: np.ndarray) -> Tensors:
        threads.add(threading.get_ident())
        return {"out": rows.astype(np.float16)}

    embed(_Session(compute), _inputs(4), profile=_profile(1, 2, 4), made_by="me")

    assert threads == {threading.get_ident()}


def test_an_engine_of_one_length_gets_the_first_rows_again_where_its_last_batch_is_not_full() -> None:
    session = _Session(lambda rows: {"out": rows.astype(np.float16)})
    seen = embed(session, _inputs(5), profile=_profile(4, 4, 4), made_by="me")
    assert session.batches == [4, 4]
    np.testing.assert_array_equal(seen.rows, np.arange(10).reshape(5, 2))


@given(rows=st.integers(1, 500), ends=st.tuples(st.integers(1, 64), st.integers(0, 64), st.integers(0, 64)))
def test_batches_cover_the_rows_and_lie_in_the_profile_or_cannot(rows: int, ends: tuple[int, int, int]) -> None:
    minimum, more, most = ends
    profile = _profile(minimum, minimum + more, minimum + more + most)
    possible = any(k * profile.minimum <= rows <= k * profile.maximum for k in range(1, rows + 1))
    if possible:
        sizes = batch_sizes(rows, profile)
        assert sum(sizes) == rows
        assert all(size in profile for size in sizes)
    else:
        with pytest.raises(OutsideProfile):
            batch_sizes(rows, profile)


def test_a_static_batch_that_does_not_divide_the_rows_is_told_in_words() -> None:
    with pytest.raises(OutsideProfile, match="300 rows cannot be cut into batches of 128 to 128"):
        batch_sizes(300, _profile(128, 128, 128))


@pytest.mark.parametrize(
    ("compute", "words"),
    [
        (lambda rows: {"a": rows, "b": rows}, r"outputs \['a', 'b'\]; expected one"),
        (lambda rows: {}, r"outputs \[\]"),
        (lambda rows: {"a": rows[1:]}, r"gave \[1, 2\] for a batch of 2"),
        (lambda rows: {"a": rows[:, 0]}, r"gave \[2\] for a batch of 2"),
    ],
    ids=["two outputs", "no output", "a row lost", "no dimension"],
)
def test_an_answer_that_is_no_embedding_is_refused(compute: Compute, words: str) -> None:
    with pytest.raises(InvalidMeasurement, match=words):
        embed(_Session(compute), _inputs(2), profile=_profile(1, 2, 2), made_by="me")
