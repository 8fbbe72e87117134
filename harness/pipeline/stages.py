"""Runs the stages of one exported encoder on their own, each beside what FP32 torch makes of the same tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import InvalidMeasurement
from harness.judge.block_edges import BlockEdges, nodes_between
from harness.judge.localisation import AFTER, BEFORE, StageErrors, Trial, curve_snr_db, own_snr_db, ranked
from harness.judge.quantizers import Quantizer, quantizers_of
from harness.records.localisation import LeftOut, Stage
from harness.records.observations import Embeddings, EncoderInputs, Float32Array, Tensors
from harness.records.spec import EngineSpec, Recipe

if TYPE_CHECKING:
    from harness.judge.structure import GraphView
    from harness.pipeline.making import Maker
    from harness.prepare.diagnosis import DiagnosticCopy, Swaps
    from harness.prepare.hidden_states import HiddenStates

Originals = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """One stage of a tower, ready to be run alone.

    Attributes:
        start: the edge that it computes from; None before the blocks.
        entering: exact; None before the blocks.
        exact: what should come out.
    """

    name: str
    block: int | None
    start: str | None
    end: str
    nodes: tuple[str, ...]
    entering: Float32Array | None
    exact: Float32Array


class Stages:
    """The exact tensors of a few inputs, and the diagnostic copy that is held against them."""

    def __init__(
        self, view: GraphView, copy: DiagnosticCopy, inputs: EncoderInputs, parts: Sequence[_Part], originals: Callable[[], Originals]
    ) -> None:
        self._view = view
        self._copy = copy
        self._inputs = inputs
        self._parts = parts
        self._originals = originals
        self._seen = _run(copy.giving_out([part.end for part in parts]), {inputs.name: inputs.rows})

    @classmethod
    def of(cls, maker: Maker, spec: EngineSpec, view: GraphView, edges: BlockEdges, inputs: EncoderInputs) -> Stages:
        from harness.prepare.diagnosis import DiagnosticCopy
        from harness.prepare.hidden_states import hidden_states

        exact = hidden_states(spec.encoder, inputs, blocks=len(edges.tensors) - 1)
        copy = DiagnosticCopy(maker.onnx(spec.encoder, spec.recipe).path)
        return cls(view, copy, inputs, _parts(view, edges, exact), cache(lambda: _originals(maker, spec, view)))

    def measured(self) -> tuple[StageErrors, ...]:
        """The error of each stage: among the others, and on its own."""
        return tuple(
            StageErrors(
                name=part.name,
                block=part.block,
                curve_db=self._curve_db(part),
                own_db=self._own_db(part, {}),
                quantizers=len(quantizers_of(self._view, part.nodes)),
            )
            for part in self._parts
        )

    @property
    def graph_db(self) -> float | None:
        """SNR of the copy's embeddings, centred."""
        return self._curve_db(self._parts[-1])

    def without_quantizers(self, suspect: Stage) -> tuple[tuple[LeftOut, ...], float | None]:
        """What each of the suspect's quantizers takes, and what all together do."""
        part = next(part for part in self._parts if part.name == suspect.name)
        swaps = {quantizer: found for quantizer in quantizers_of(self._view, part.nodes) if (found := self._swaps(quantizer))}
        if not swaps:
            return (), None
        trials = [Trial(quantizer=quantizer, own_db=self._own_db(part, swap)) for quantizer, swap in swaps.items()]
        everything = {old: new for swap in swaps.values() for old, new in swap.items()}
        return ranked(suspect, trials), self._own_db(part, everything)

    def _swaps(self, quantizer: Quantizer) -> Swaps:
        """What is to be read in place of what a quantizer gives; nothing where a weight's original cannot be had."""
        if quantizer.product is None:
            return dict.fromkeys(quantizer.dequantized, quantizer.tensor)
        original = self._originals().get(quantizer.product)
        return dict.fromkeys(quantizer.dequantized, original) if original is not None else {}

    def _curve_db(self, part: _Part) -> float | None:
        seen, exact = _laid_out(self._seen[part.end], part.exact.shape, part.name), part.exact
        if part.name != AFTER:
            return curve_snr_db(seen, exact)
        return curve_snr_db(_unit_rows(seen), _unit_rows(exact))

    def _own_db(self, part: _Part, swaps: Swaps) -> float | None:
        starts = [part.start] if part.start is not None else []
        nodes = nodes_between(self._view, starts, part.end)
        content = self._copy.between([node.name for node in nodes], starts, part.end, swaps)
        feed: dict[str, NDArray[np.generic]] = {}
        if part.start is not None and part.entering is not None:
            entering = _laid_out(part.entering, self._seen[part.start].shape, part.name)
            with np.errstate(over="ignore"):  # what FP16 cannot hold becomes infinite, as it does in the graph
                feed[part.start] = np.ascontiguousarray(entering.astype(self._copy.dtype(part.start)))
        if any(self._inputs.name in node.inputs for node in nodes):
            feed[self._inputs.name] = self._inputs.rows
        seen = _run(content, feed)[part.end]
        return own_snr_db(_laid_out(seen, part.exact.shape, part.name), part.exact, part.entering)


def _run(content: bytes, feed: Tensors) -> Tensors:
    from harness.backends.onnxruntime import run_once

    return run_once(content, feed)


def _parts(view: GraphView, edges: BlockEdges, exact: HiddenStates) -> tuple[_Part, ...]:
    ends = (*edges.tensors, view.graph.outputs[0].name)
    states = (*exact.edges, exact.embedding)
    blocks = range(len(edges.tensors) - 1)
    names = (BEFORE, *(f"block {index}" for index in blocks), AFTER)
    return tuple(
        _Part(
            name=names[place],
            block=place - 1 if 0 < place <= len(blocks) else None,
            start=ends[place - 1] if place else None,
            end=ends[place],
            nodes=tuple(node.name for node in nodes_between(view, ends[place - 1 : place] if place else (), ends[place])),
            entering=states[place - 1] if place else None,
            exact=states[place],
        )
        for place in range(len(ends))
    )


def _originals(maker: Maker, spec: EngineSpec, view: GraphView) -> Originals:
    """For each product with a stored weight, that weight in the FP16 export, laid out as it is stored here."""
    from harness.judge.onnx_checks.weights import originals
    from harness.judge.structure import GraphView
    from harness.judge.token_tables import stored_weights
    from harness.measure.onnx_graph import read_onnx_graph
    from harness.measure.onnx_weights import float_weight

    reference = GraphView(read_onnx_graph(maker.onnx(spec.encoder, Recipe.FP16).path))
    stored = stored_weights(view)
    found = {name: float_weight(constant, stored[name].constant.shape) for name, constant in originals(view, reference).items()}
    return {name: weight for name, weight in found.items() if weight is not None}


def _laid_out(array: NDArray[Any], shape: tuple[int, ...], where: str) -> NDArray[Any]:
    """The same numbers as `shape`: rows and tokens may change places, or be one axis."""
    if array.shape == shape:
        return array
    if array.ndim == len(shape) == 3 and (array.shape[1], array.shape[0], array.shape[2]) == shape:
        return array.swapaxes(0, 1)
    if array.ndim != len(shape) and array.shape[-1:] == shape[-1:] and array.size == np.prod(shape):
        return array.reshape(shape)
    raise InvalidMeasurement(
        f"{where}: PyTorch and the ONNX graph hold {list(array.shape)} and {list(shape)} there, so they cannot be compared; "
        "expected one layout, or rows and tokens exchanged"
    )


def _unit_rows(rows: NDArray[Any]) -> Float32Array:
    return Embeddings(rows=rows.astype(np.float32), ids=("",) * len(rows), inputs_digest="", made_by="").unit_rows
