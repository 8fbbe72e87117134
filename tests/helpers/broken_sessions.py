"""Engines that break a property: each wraps a real ONNX Runtime session and answers wrongly in one way.

Run as a module, it gates once with each of them, in one process; run directories are named after them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from harness.errors import InvalidMeasurement, OutsideProfile

Run = Callable[[np.ndarray], np.ndarray]
Broken = Callable[[Run, np.ndarray], np.ndarray]


def mixed_rows(run: Run, rows: np.ndarray) -> np.ndarray:
    """Each row gets the answer of the one before it."""
    return np.roll(run(rows), 1, axis=0)


def leaking_neighbours(run: Run, rows: np.ndarray) -> np.ndarray:
    """A third of every answer is the batch's mean."""
    seen = run(rows).astype(np.float32)
    return (seen + seen.mean(axis=0) / 2).astype(np.float16)


def dynamic_scale(run: Run, rows: np.ndarray) -> np.ndarray:
    """Pictures are rounded to 255 steps of the largest value in the batch, as a per-tensor scale found at run time does."""
    step = np.abs(np.nan_to_num(rows.astype(np.float32))).max() / 127 or 1
    return run((np.round(rows.astype(np.float32) / step) * step).astype(np.float16))


def spreading_nan(run: Run, rows: np.ndarray) -> np.ndarray:
    """One answer that is not finite takes all others with it."""
    seen = run(rows)
    return seen if np.isfinite(seen).all() else np.full_like(seen, np.nan)


def overflow(run: Run, rows: np.ndarray) -> np.ndarray:
    """A picture with a very bright pixel overflows."""
    seen = run(rows)
    seen[np.abs(np.nan_to_num(rows, nan=0)).reshape(len(rows), -1).max(axis=1) > 30_000] = np.inf
    return seen


def restless(run: Run, rows: np.ndarray) -> np.ndarray:
    """Every launch answers a little otherwise."""
    seen = run(rows)
    return seen + (np.random.default_rng().standard_normal(seen.shape) * 1e-3).astype(seen.dtype)


def alone_otherwise(run: Run, rows: np.ndarray) -> np.ndarray:
    """A row alone takes a path of its own, which is wrong."""
    seen = run(rows)
    return seen[:, ::-1] if len(rows) == 1 else seen


def by_place(run: Run, rows: np.ndarray) -> np.ndarray:
    """Every other place of a batch answers in another order."""
    seen = run(rows)
    seen[1::2] = seen[1::2, ::-1]
    return seen


def reads_on(run: Run, rows: np.ndarray) -> np.ndarray:
    """What follows the end of a caption counts."""
    seen = run(rows)
    tails = [row[row.argmax() + 1 :].sum() % 97 for row in rows]
    return (seen + np.array(tails, np.float32)[:, None] * 0.01 * np.arange(seen.shape[1]) / seen.shape[1]).astype(seen.dtype)


def truncated(run: Run, rows: np.ndarray) -> np.ndarray:
    """The last place of a caption is cut off."""
    cut = rows.copy()
    cut[:, -1] = 0
    return run(cut)


def clamped(run: Run, rows: np.ndarray) -> np.ndarray:
    """What does not fit is cut down until it does."""
    try:
        return run(rows)
    except OutsideProfile:
        return run(rows[:64]) if len(rows) else np.zeros((0, 32), np.float16)


def widening(run: Run, rows: np.ndarray) -> np.ndarray:
    """Values of another type are converted in silence."""
    return run(rows.astype(np.float16))


def unnamed_refusal(run: Run, rows: np.ndarray) -> np.ndarray:
    """A batch beyond the profile is refused by an assertion somewhere within."""
    if len(rows) > 64:
        raise RuntimeError("shape mismatch")
    return run(rows)


def memory_as_it_lies(run: Run, rows: np.ndarray) -> np.ndarray:
    """Values are read one after another, whatever the strides say."""
    whole = rows
    while not whole.flags.c_contiguous and whole.base is not None:
        whole = whole.base
    return run(whole.reshape(-1)[: rows.size].reshape(rows.shape))


def dying(run: Run, rows: np.ndarray) -> np.ndarray:
    """Any picture outside of the evaluation breaks the engine."""
    if not np.isfinite(rows.astype(np.float32)).all():
        raise InvalidMeasurement("the device was lost")
    return run(rows)


# Each with the tower it is tried on, and the properties that must notice.
FAULTS: dict[str, tuple[Broken, str, set[str]]] = {
    "mixed_rows": (mixed_rows, "image", {"property_batch_order", "property_neighbours"}),
    "leaking_neighbours": (leaking_neighbours, "image", {"property_neighbours"}),
    "dynamic_scale": (dynamic_scale, "image", {"property_neighbours"}),
    "spreading_nan": (spreading_nan, "image", {"property_neighbours"}),
    "overflow": (overflow, "image", {"property_special_values"}),
    "restless": (restless, "image", {"property_repeat", "property_reload"}),
    "alone_otherwise": (alone_otherwise, "image", {"property_batch_size"}),
    "by_place": (by_place, "image", {"property_batch_order", "property_duplicates"}),
    "reads_on": (reads_on, "text", {"property_after_eot"}),
    "truncated": (truncated, "text", {"property_lengths"}),
    "clamped": (clamped, "image", {"property_profile"}),
    "widening": (widening, "image", {"property_profile"}),
    "unnamed_refusal": (unnamed_refusal, "image", {"property_profile"}),
    "memory_as_it_lies": (memory_as_it_lies, "image", {"property_contiguity"}),
}


class Wrapped:
    """A session that answers through a broken function. It computes when it is launched."""

    def __init__(self, session: Any, broken: Broken) -> None:
        self._session = session
        self._broken = broken

    def upload(self, inputs: Any) -> dict[str, Any]:
        ((name, rows),) = inputs.items()
        feed = {"name": name, "rows": rows}
        if self._broken not in (clamped, widening, unnamed_refusal):
            self._session.upload(inputs)  # refuses what it must
        return feed

    def launch(self, feed: dict[str, Any]) -> None:
        feed["seen"] = self._broken(partial(self._run, feed["name"]), feed["rows"])

    def download(self, feed: dict[str, Any]) -> dict[str, np.ndarray]:
        return {"embedding": feed["seen"]}

    def _run(self, name: str, rows: np.ndarray) -> np.ndarray:
        inner = self._session.upload({name: rows})
        self._session.launch(inner)
        return self._session.download(inner)["embedding"]


def opening(clean: Any, broken: Broken) -> Any:
    """`OnnxRuntimeBackend.open_for_rows`, with every session wrapped."""

    @contextmanager
    def open_broken(backend: Any, engine: Any, *, threads: int | None = None) -> Iterator[Wrapped]:
        with clean(backend, engine, threads=threads) as session:
            yield Wrapped(session, broken)

    return open_broken


def main(arguments: list[str]) -> None:
    """Gate once with each fault, and once with an engine that dies."""
    from harness.backends.onnxruntime import OnnxRuntimeBackend
    from harness.cli import main as enginegate

    clean = OnnxRuntimeBackend.open_for_rows
    for name, (broken, tower, _) in {**FAULTS, "dying": (dying, "image", set())}.items():
        OnnxRuntimeBackend.open_for_rows = opening(clean, broken)  # type: ignore[method-assign]
        code = enginegate(["gate", *arguments, "--encoders", f"small-clip/{tower}", "--run-dir", name])
        print(f"{name}: exit code {code}")  # noqa: T201 (the caller reads it)


if __name__ == "__main__":
    main(sys.argv[1:])
