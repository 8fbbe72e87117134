"""Arrays of torch, cupy and others on the GPU, taken and given by DLPack without a copy.

Only their addresses pass; who computes when is settled between streams, as the protocol has it: the producer makes the consumer's stream
wait for what it has begun.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from harness.errors import MissingLibrary, UnusableInputs
from harness.need import is_installed, need

# Device types of the DLPack header: memory of a GPU, and memory that a GPU and the host share.
_ON_GPU = frozenset({2, 13})
_ON_HOST = frozenset({1, 3})
# What DLPack and CUDA both call the default stream of old; a consumer that names none means it.
_LEGACY_STREAM = 1
_NO_ORDER = -1


@dataclass(frozen=True, slots=True, eq=False)
class GivenArray:
    """An array on the GPU that somebody else owns. `view` keeps it alive."""

    view: Any
    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]


def taken(name: str, array: Any, stream: int) -> Any:
    """What a session takes of an input: a `GivenArray` where it lies on the GPU, else an array of numpy.

    Args:
        name: of the input, for errors.
        array: of numpy, or anything that speaks DLPack.
        stream: that will read it; the array's owner makes it wait for what it has begun.

    Raises:
        UnusableInputs: on another device, of a type that numpy has no name for, or with gaps.
        MissingLibrary: cuda-core is not installed.
    """
    if isinstance(array, np.ndarray) or not hasattr(array, "__dlpack_device__"):
        return array
    kind, index = map(int, array.__dlpack_device__())
    if kind in _ON_HOST:
        return np.from_dlpack(array)
    if kind not in _ON_GPU or index != 0:
        raise UnusableInputs(
            f"input {name!r} lies on device {index} of DLPack's kind {kind}; expected the first GPU that CUDA shows, or the host; move it"
        )
    try:
        view = _core("utils").StridedMemoryView(array, stream_ptr=stream)
        dtype = view.dtype
    except (BufferError, NotImplementedError) as error:
        raise UnusableInputs(f"input {name!r} cannot be taken as it is ({error}); expected one piece of memory of a plain type") from error
    shape = tuple(map(int, view.shape))
    if not _is_in_c_order(shape, view.strides):
        raise UnusableInputs(
            f"input {name!r} of shape {list(shape)} has gaps or another order; expected one piece in C order; copy it first"
        )
    return GivenArray(view, int(view.ptr), shape, np.dtype(dtype))


class SharedArray:
    """An output of a session, where it lies: `torch.from_dlpack` and `cupy.from_dlpack` take it without a copy.

    The next launch of its feed writes over it, and the session's end frees it.

    Args:
        owner: kept alive with it.
        after: makes a stream, by its handle, wait for what the session has begun.
    """

    def __init__(
        self, owner: object, address: int, shape: tuple[int, ...], dtype: np.dtype[np.generic], after: Callable[[int], None]
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._after = after
        nbytes = max(1, int(np.prod(shape)) * dtype.itemsize)
        view = _core("utils").StridedMemoryView
        if not hasattr(view, "from_buffer") or not hasattr(view, "__dlpack__"):
            raise MissingLibrary("this cuda-core gives no arrays by DLPack; it is needed to share outputs; run: pip install -U cuda-core")
        buffer = _core().Buffer.from_handle(address, nbytes, owner=owner)
        self._view = view.from_buffer(buffer, shape, dtype=dtype)

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's kind of device, and its number."""
        return (2, 0)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule, once the consumer's stream waits for the session's; a stream of -1 wants no order.

        Raises:
            BufferError: on another device, or a copy, was asked for.
        """
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("an output of an engine is shared where it lies; copy it, or move it, once it is taken")
        if stream != _NO_ORDER:
            self._after(_LEGACY_STREAM if stream is None else stream)
        return self._view.__dlpack__(max_version=max_version)


def _core(part: str = "") -> ModuleType:
    """cuda-core, or a part of it; its first releases had all of it under another name."""
    root = "cuda.core" if is_installed("cuda.core.utils") else "cuda.core.experimental"
    return need(f"{root}.{part}" if part else root, extra="gpu", to="pass arrays on the GPU without a copy")


def _is_in_c_order(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> bool:
    if strides is None:
        return True
    expected = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True
