"""An ONNX graph as the judges see it: names, types and shapes, and the values of small constants only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxNode:
    """One node. An empty input name is an optional input left out."""

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnnxConstant:
    """One initializer.

    Attributes:
        dtype: ONNX's own word, such as `FLOAT16` or `FLOAT8E4M3FN`.
        nbytes: as stored, in bytes.
        value: float64 or int64 array of a small constant, such as a scale; None for a large one.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    value: NDArray[np.generic] | None = None

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxPort:
    """One input or output of the graph. A dynamic axis is its name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnnxGraph:
    """One ONNX graph, in the file's node order, which ONNX requires to be topological.

    Attributes:
        shapes: of every tensor that nodes make or inputs bring, for a batch of one; a first axis that inference leaves open counts as the
            batch, and a tensor whose other axes do not follow from the graph is absent.
    """

    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, OnnxConstant]
    inputs: tuple[OnnxPort, ...]
    outputs: tuple[OnnxPort, ...]
    opsets: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
