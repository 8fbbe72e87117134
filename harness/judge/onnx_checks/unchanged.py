"""O16: beside its Q/DQ nodes and the weights in FP8, the graph is the reference's, number by number and operator by operator.

A bias or the gain of a normalisation that an exporter lost costs a trained encoder less than 1 dB, and another activation function in every
block makes no block unlike the others: no bound on accuracy tells these from chance, and no other check compares what is not quantized.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from harness.judge.onnx_checks.finding import Findings, finding
from harness.judge.onnx_checks.weights import originals
from harness.judge.onnx_graph import FP8
from harness.judge.structure import MOVES, QDQ, GraphView
from harness.judge.token_tables import stored_weights
from harness.records.graph import OnnxConstant
from harness.records.policy import RecipePolicy
from harness.records.verdict import Finding

# Nodes that work out shapes, or put numbers elsewhere: an exporter needs as many as the graph around them asks for.
_SHAPING = frozenset({"Concat", "Constant", "ConstantOfShape", "Expand", "Gather", "Range", "Shape", "Size", "Slice", "Split"})
NOTHING_TO_COMPARE = "no file of the encoder before quantization was given, so what is not quantized has nothing to be compared with"
_FLOATS = frozenset({"DOUBLE", "FLOAT", "FLOAT16"})


def unquantized_constants(view: GraphView) -> Mapping[str, OnnxConstant]:
    """Float constants that the graph computes with as they are: no scale of a Q/DQ node is one of them."""
    read = {name for node in view.graph.nodes if node.op_type not in QDQ for name in node.inputs}
    return {name: one for name, one in view.graph.constants.items() if name in read and one.dtype in _FLOATS and one.elements}


def kept_constants(view: GraphView, reference: GraphView) -> Mapping[str, OnnxConstant]:
    """The reference's float constants that quantization does not touch: all but those that `view` stores in FP8."""
    own = stored_weights(view)
    quantized = {one.name for name, one in originals(view, reference).items() if own[name].constant.dtype == FP8}
    return {name: one for name, one in unquantized_constants(reference).items() if name not in quantized}


def rest_is_the_references(
    view: GraphView, policy: RecipePolicy, reference: GraphView | None, digests: Mapping[OnnxConstant, str | None]
) -> Findings:
    """O16: every float constant of the reference that is not quantized is in the graph, and so is each operator, as often.

    Args:
        reference: the graph before quantization; without one nothing is found.
        digests: of the float constants of both, rounded to FP16; None for one that is not stored as plain bytes.
    """
    if reference is None:
        return ()
    return (*_lost_constants(view, policy, reference, digests), *_other_operators(view, policy, reference))


def _lost_constants(
    view: GraphView, policy: RecipePolicy, reference: GraphView, digests: Mapping[OnnxConstant, str | None]
) -> Iterator[Finding]:
    kept = kept_constants(view, reference)
    lost = list(_lost(kept, Counter(digests.get(one) for one in unquantized_constants(view).values()), digests))
    if lost and len(lost) == len(kept):
        found = f"none of the reference's {len(kept)} float constants"
        why = "the reference is of other weights; name the one that this was made of"
        yield finding("O16", policy, view, None, found=found, expected="those that are not quantized, as they were", why=why)
        return
    for constant in lost:
        reader = next(node for node in reference.graph.nodes if constant.name in node.inputs)
        shape = "x".join(map(str, constant.shape)) or "a scalar"
        found = f"nothing equals the reference's {constant.name} ({shape}), which {reader.name} reads there"
        why = "it was lost or altered where nothing was to be quantized, which accuracy may hardly show; export again"
        expected = "every number that is not quantized, as it was"
        yield finding("O16", policy, view, view.by_name.get(reader.name), found=found, expected=expected, why=why)


def _lost(
    kept: Mapping[str, OnnxConstant], left: Counter[str | None], digests: Mapping[OnnxConstant, str | None]
) -> Iterator[OnnxConstant]:
    """What is in `kept` more often than in `left`, whose counts it takes; and what cannot be read."""
    for constant in kept.values():
        digest = digests.get(constant)
        if digest is None or not left[digest]:
            yield constant
        left[digest] -= 1


def _other_operators(view: GraphView, policy: RecipePolicy, reference: GraphView) -> Iterator[Finding]:
    own, theirs = (_computing(one) for one in (view, reference))
    for op_type in sorted(own | theirs):
        if own[op_type] != theirs[op_type]:
            nodes = view.of_type.get(op_type, ())
            why = "the graph computes something else than the encoder; compare the two files at this operator"
            expected = f"{theirs[op_type]}, as in the reference"
            found = f"{own[op_type]} {op_type} nodes"
            yield finding("O16", policy, view, nodes[0] if nodes else None, found=found, expected=expected, why=why)


def _computing(view: GraphView) -> Counter[str]:
    return Counter(node.op_type for node in view.graph.nodes if node.op_type not in MOVES | QDQ | _SHAPING)
