"""What every session asks of the inputs it is given, so that all backends refuse the same things in the same words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.contracts import InputPort
from harness.errors import OutsideProfile, UnusableInputs
from harness.records.observations import Tensors
from harness.records.spec import BatchProfile, EncoderSpec, Tower


def tower_port(encoder: EncoderSpec) -> InputPort:
    """The input of an encoder whose picture size or context length is not known here."""
    if encoder.tower is Tower.IMAGE:
        return InputPort(name="image", dtype=np.dtype(np.float16), shape=(None, 3, None, None))
    return InputPort(name="tokens", dtype=np.dtype(np.int64), shape=(None, None))


def require_inputs(inputs: Tensors, ports: Sequence[InputPort], batch: BatchProfile) -> int:
    """Rows of `inputs`, once they are known to be what the ports and the profile take.

    Raises:
        UnusableInputs: a name, dtype or shape that no port takes, or inputs of different lengths.
        OutsideProfile: a batch that the engine was not built for.
    """
    if set(inputs) != {port.name for port in ports}:
        raise UnusableInputs(f"inputs are named {sorted(inputs)}; this engine takes {_listed(ports)}")
    for port in ports:
        _require_fit(inputs[port.name], port)
    lengths = {name: len(array) for name, array in inputs.items()}
    if len(set(lengths.values())) != 1:
        raise UnusableInputs(f"inputs differ in rows: {lengths}; expected one batch")
    rows = next(iter(lengths.values()))
    fixed = next((port.shape[0] for port in ports if port.shape[0] not in (None, rows)), None)
    if fixed is not None:
        raise OutsideProfile(
            f"a batch of {rows} lies outside the engine's profile, which is {fixed} rows and no other number; send {fixed}, "
            f"or build an engine with --batch {rows}/{rows}/{rows}"
        )
    if rows not in batch:
        raise OutsideProfile(
            f"a batch of {rows} lies outside the engine's profile {batch}; send {batch.minimum} to {batch.maximum} rows, "
            "or build the engine with a wider --batch"
        )
    return rows


def own_copy(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """The array in C order and in memory of its own, so that the caller may reuse theirs."""
    return np.array(array, order="C", copy=True)


def _require_fit(array: NDArray[np.generic], port: InputPort) -> None:
    # The first axis is the batch: another length of it is outside the profile, which is an event of its own.
    inner = list(zip(array.shape, port.shape, strict=False))[1:]
    fits = array.ndim == len(port.shape) and all(want in (None, have) for have, want in inner)
    if array.dtype != port.dtype or not fits:
        raise UnusableInputs(f"input {port.name!r} is {array.dtype} {list(array.shape)}; this engine takes {port}")


def _listed(ports: Sequence[InputPort]) -> str:
    return " and ".join(map(str, ports))
