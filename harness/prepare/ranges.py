"""What the quantizers of an encoder are fed while it runs, as shares of the ranges that calibration gave them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import InvalidMeasurement
from harness.prepare.quantize import activation_quantizers
from harness.records.observations import Float32Array

if TYPE_CHECKING:
    from torch import nn


class RangeWatch:
    """Largest magnitudes by quantizer, one a row, of everything that an encoder has run since it is watched."""

    def __init__(self) -> None:
        self._seen: dict[str, list[Any]] = {}

    def note(self, quantizer: str, amax: float, tensor: Any) -> None:
        """Remember one batch at one quantizer, whose first axis is the rows."""
        self._seen.setdefault(quantizer, []).append(tensor.detach().abs().flatten(1).amax(dim=1) / amax)

    @property
    def quantizers(self) -> tuple[str, ...]:
        """Module paths, in the order in which the encoder runs them."""
        return tuple(self._seen)

    def shares(self, rows: int) -> Float32Array:
        """float32 [rows, quantizers], as in `RangeUse`.

        Raises:
            InvalidMeasurement: a quantizer was not fed one row an input.
        """
        columns = {name: np.concatenate([part.numpy() for part in parts]) for name, parts in self._seen.items()}
        odd = next((name for name, column in columns.items() if len(column) != rows), None)
        if odd is not None:
            raise InvalidMeasurement(f"{odd} was fed {len(columns[odd])} rows of {rows} inputs; expected the batch to be its first axis")
        return np.stack(list(columns.values()), axis=1).astype(np.float32) if columns else np.empty((rows, 0), np.float32)


@contextmanager
def watched(encoder: nn.Module) -> Iterator[RangeWatch]:
    """Watch a quantized encoder for as long as the context lasts. What it computes is not changed."""
    watch = RangeWatch()
    hooks = [module.register_forward_pre_hook(_noting(watch, path, amax)) for path, module, amax in activation_quantizers(encoder)]
    try:
        yield watch
    finally:
        for hook in hooks:
            hook.remove()


def _noting(watch: RangeWatch, path: str, amax: float) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def note(_module: nn.Module, given: tuple[Any, ...]) -> None:
        watch.note(path, amax, given[0])

    return note
