"""Runs inputs through a session, in batches that its engine was built for."""

from __future__ import annotations

from concurrent.futures import Executor
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from harness.contracts import Feed, Session
from harness.errors import InvalidMeasurement, OutsideProfile
from harness.records.observations import Embeddings, EncoderInputs, Tensors
from harness.records.spec import BatchProfile

Rows = TypeVar("Rows", bound=NDArray[Any])


def embed(session: Session, inputs: EncoderInputs, *, profile: BatchProfile, made_by: str, launches: Executor | None = None) -> Embeddings:
    """Embeddings of all inputs, as the engine gives them.

    Args:
        session: an engine with one output, whatever its name.
        inputs: rows for one tower, any number of them.
        profile: the batches the engine accepts.
        made_by: who computes, for people.
        launches: where batches run side by side, if the session's backend takes several at once; None for one after the other.

    Returns:
        float32 [n, d], in the inputs' order.

    Raises:
        OutsideProfile: the inputs cannot be cut into batches that the engine accepts.
        InvalidMeasurement: the engine has several outputs, or gives another number of rows than it got.
    """
    given = in_whole_batches(inputs.rows, profile)
    edges = pairwise(accumulate(batch_sizes(len(given), profile), initial=0))
    batches = [{inputs.name: given[start:end]} for start, end in edges]
    # One after the other stays in this thread, which may be the only one with a device.
    parts = list((launches.map if launches else map)(partial(run_batch, session, made_by=made_by), batches))
    rows = np.concatenate(parts)[: len(inputs)].astype(np.float32)
    return Embeddings(rows=rows, ids=inputs.ids, inputs_digest=inputs.digest, made_by=made_by)


def in_whole_batches(rows: Rows, profile: BatchProfile) -> Rows:
    """For an engine that takes one length only, the rows with as many of the first ones again as fill the last batch; else the rows."""
    missing = -len(rows) % profile.maximum if profile.is_fixed else 0
    return cast("Rows", np.resize(rows, (len(rows) + missing, *rows.shape[1:]))) if missing else rows


def batch_sizes(rows: int, profile: BatchProfile) -> tuple[int, ...]:
    """Batches that cover `rows`, as even as they can be: near the profile's optimum, and none outside it.

    An uneven last batch could fall below the minimum; padding it would show a batch that nobody asked for, and only an engine of one
    length leaves no choice (`in_whole_batches`).
    """
    batches = max(1, min(-(-rows // profile.optimum), rows // profile.minimum))
    small, larger = divmod(rows, batches)
    sizes = (small + 1,) * larger + (small,) * (batches - larger)
    if sizes[0] not in profile or sizes[-1] not in profile:
        raise OutsideProfile(
            f"{rows} rows cannot be cut into batches of {profile.minimum} to {profile.maximum}; "
            "give another number of rows, or build the engine with a wider --batch"
        )
    return sizes


def run_batch(session: Session, inputs: Tensors, *, made_by: str) -> NDArray[np.floating]:
    """What one launch makes of one batch, in the type the engine gives: [n, d].

    Raises:
        OutsideProfile, UnusableInputs: the engine does not take this batch.
        InvalidMeasurement: the engine has several outputs, or gives another number of rows than it got.
    """
    feed = session.upload(inputs)
    session.launch(feed)
    return read_batch(session, feed, rows=len(next(iter(inputs.values()))), made_by=made_by)


def read_batch(session: Session, feed: Feed, *, rows: int, made_by: str) -> NDArray[np.floating]:
    """The embedding of the feed's last launch: [n, d].

    Raises:
        InvalidMeasurement: the engine has several outputs, or gives no floating numbers, or another number of rows than
            `rows`, which it got.
    """
    outputs = session.download(feed)
    if len(outputs) != 1:
        raise InvalidMeasurement(f"{made_by} has outputs {sorted(outputs)}; expected one, the embedding")
    (embedding,) = outputs.values()
    if embedding.ndim != 2 or len(embedding) != rows:
        raise InvalidMeasurement(f"{made_by} gave {list(embedding.shape)} for a batch of {rows}; expected [{rows}, d]")
    if not np.issubdtype(embedding.dtype, np.floating):
        raise InvalidMeasurement(f"{made_by} gave an embedding of {embedding.dtype}; expected floating numbers")
    return cast(NDArray[np.floating], embedding)
