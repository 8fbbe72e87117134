"""An ONNX graph as the judges see it: names, types and shapes, and the values of small constants only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxNode:
    """One node. An empty input name is an optional input left out.

    Attributes:
        attributes: those that are whole numbers or lists of them, such as `axis` and `perm`; no check reads another.
    """

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict[str, "int | tuple[int, ...]"], hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteSpan:
    """Where bytes lie in a file.

    Attributes:
        offset, nbytes: from the file's start, in bytes.
    """

    path: Path
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnnxConstant:
    """One initializer.

    Attributes:
        dtype: ONNX's own word, such as `FLOAT16` or `FLOAT8E4M3FN`.
        nbytes: as stored, in bytes.
        value: float64 or int64 array of a small constant, such as a scale; None for a large one.
        span: where its bytes lie; None when the file spells them number by number.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    value: NDArray[np.generic] | None = None
    span: ByteSpan | None = None

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
        tensors: what nodes compute, by name, with every dynamic axis counted as 1, where ONNX's own inference knows it.
        file_bytes: the file and the external data it names; 0 when unknown.
    """

    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, OnnxConstant]
    inputs: tuple[OnnxPort, ...]
    outputs: tuple[OnnxPort, ...]
    opsets: Mapping[str, int]
    tensors: Mapping[str, OnnxPort] = field(default_factory=dict[str, OnnxPort])
    file_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightStatistics:
    """What the stored codes of one FP8 (E4M3) weight say without their scale.

    Attributes:
        largest_code: largest magnitude of a code that is a number; 448 is the largest there is.
        nan_codes: how many codes are NaN (bytes 0x7F and 0xFF).
        clipped, zeroed: share of codes at plus or minus 448, and at zero; 0 to 1.
    """

    largest_code: float
    nan_codes: int
    clipped: float
    zeroed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """One weight after quantization, beside what it was.

    Attributes:
        cosine: of the two as vectors; 1 is the same direction, 0 when one of them is zero or not finite.
        max_relative_error: largest error over the original's magnitude, which counts as at least the smallest normal E4M3
            number times the scale, since below it E4M3's step no longer shrinks. Infinite when something is not finite.
    """

    cosine: float
    max_relative_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRole:
    """What one node is. `block` is None outside the transformer blocks."""

    name: str
    op_type: str
    block: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphRoles:
    """What the nodes of an exported graph are, without tensors and weights. A run keeps it, so that two can be compared later.

    Attributes:
        inputs: names of the graph's inputs.
        attentions: names of the scores MatMul, the Softmax and the context MatMul of every attention.
    """

    nodes: tuple[NodeRole, ...]
    inputs: tuple[str, ...]
    attentions: tuple[tuple[str, str, str], ...]
    schema: Literal["enginegate/graph/1"] = "enginegate/graph/1"
