"""O2, O3, O4: both factors of a product are quantized, and weights are stored in FP8."""

from __future__ import annotations

from collections.abc import Iterator

from harness.judge.onnx_checks.finding import Findings, finding
from harness.judge.onnx_graph import FP8, why_not_folded
from harness.judge.structure import DEQUANTIZE, MOVES, PRODUCTS, QUANTIZE, GraphView, WeightGemm
from harness.judge.token_tables import stored_weights
from harness.records.graph import OnnxNode
from harness.records.policy import RecipePolicy
from harness.records.verdict import Finding


def both_operands_quantized(view: GraphView, policy: RecipePolicy) -> Findings:
    """O2: both operands of every block's weight GEMM end at a DequantizeLinear, and no block has escaped being found."""
    if not policy.block_gemms_fp8:
        return ()
    if view.irregularity:
        why = "a block that is not found is not judged, so the graph does not pass; export its attention or its sum as the others have it"
        return (finding("O2", policy, view, None, found=view.irregularity, expected="blocks that repeat", why=why), *_bare(view, policy))
    if not view.blocks:
        found = "no block: neither two MatMuls around a Softmax with weight GEMMs before and after, nor residual blocks of convolutions"
        why = "nothing of this graph can be judged, so nothing of it passes; name a policy that quantizes nothing, or another file"
        return (finding("O2", policy, view, None, found=found, expected="at least one", why=why),)
    return _bare(view, policy)


def _bare(view: GraphView, policy: RecipePolicy) -> Findings:
    gemms = (gemm for block in view.blocks for gemm in block.gemms)
    return tuple(_not_quantized(view, policy, gemm, words) for gemm in gemms if (words := " and ".join(_floats(view, gemm))))


def _not_quantized(view: GraphView, policy: RecipePolicy, gemm: WeightGemm, words: str) -> Finding:
    why = "a GEMM with a float side runs in half precision, whatever the file's size says"
    return finding("O2", policy, view, gemm.node, found=words, expected="DequantizeLinear on both sides", why=why)


def _floats(view: GraphView, gemm: WeightGemm) -> Iterator[str]:
    for side, tensor in (("activation", gemm.activation), ("weight", gemm.weight)):
        dequantize = view.dequantized(tensor)
        if dequantize is None:
            yield f"{side} from {_origin(view, tensor)}"
        elif side == "activation" and _quantize_behind(view, dequantize) is None:
            yield f"{side} from {dequantize.name}, which no QuantizeLinear feeds"


def _origin(view: GraphView, tensor: str) -> str:
    node = view.source(tensor, MOVES)
    walked = _walked(view, tensor)
    past = f" past {', '.join(walked)}" if walked else ""
    return f"{node.op_type} {node.name}{past}" if node is not None else f"a float tensor{past}"


def _walked(view: GraphView, tensor: str) -> list[str]:
    walked: list[str] = []
    node = view.producers.get(tensor)
    while node is not None and node.op_type in MOVES and node.inputs:
        walked.append(node.op_type)
        node = view.producers.get(node.inputs[0])
    return walked


def _quantize_behind(view: GraphView, dequantize: OnnxNode) -> OnnxNode | None:
    node = view.source(dequantize.inputs[0], MOVES)
    return node if node is not None and node.op_type in QUANTIZE else None


def no_half_quantized_product(view: GraphView, policy: RecipePolicy) -> Findings:
    """O3: no MatMul, Gemm or Conv has Q/DQ on one side only."""
    halves = ((node, view.is_quantized(node)) for node in view.of_types(PRODUCTS) if len(node.inputs) > 1)
    return tuple(_half(view, policy, node, is_first=sides[0]) for node, sides in halves if sides[0] != sides[1])


def _half(view: GraphView, policy: RecipePolicy, node: OnnxNode, *, is_first: bool) -> Finding:
    scores = {core.scores.name for core in view.cores}
    contexts = {core.context.name: core for core in view.cores}
    why = "one quantized side costs accuracy and kernels and wins no FP8 product; quantize both sides or neither"
    if node.name in contexts:
        found = "the softmax side is quantized, V is not" if is_first else "V is quantized, the softmax side is not"
        why = "it costs the fused attention and wins no FP8 product; quantize both sides or neither"
    elif node.name in scores:
        found = f"{'Q' if is_first else 'K'} is quantized, {'K' if is_first else 'Q'} is not"
    elif node.op_type.startswith("Conv"):
        found = "its input is quantized, its weight is not" if is_first else "its weight is quantized, its input is not"
    else:
        found = f"operand {0 if is_first else 1} is quantized, operand {1 if is_first else 0} is not"
    return finding("O3", policy, view, node, found=found, expected="both sides quantized, or neither", why=why)


def weights_stored_in_fp8(view: GraphView, policy: RecipePolicy) -> Findings:
    """O4: a quantized weight is an initializer of one byte an element behind its DequantizeLinear, and no pair is torn."""
    return (*_unfolded(view, policy), *_torn(view, policy))


def _unfolded(view: GraphView, policy: RecipePolicy) -> Iterator[Finding]:
    for stored in stored_weights(view).values():
        words = why_not_folded(view, stored) if view.dequantized(stored.weight) is not None else None
        if words is not None:
            why = "a weight that is quantized at build time doubles the file and depends on the builder; fold its QuantizeLinear"
            yield finding("O4", policy, view, stored.node, found=words, expected=f"one {FP8} initializer behind DequantizeLinear", why=why)


def _torn(view: GraphView, policy: RecipePolicy) -> Iterator[Finding]:
    for node in view.of_types(QUANTIZE):
        readers = view.readers(node.outputs[0])
        if not any(reader.op_type in DEQUANTIZE for reader in readers):
            found = f"read by {', '.join(reader.op_type for reader in readers) or 'nothing'}"
            yield finding("O4", policy, view, node, found=found, expected="a DequantizeLinear", why=_PAIR)
    for node in view.of_types(DEQUANTIZE):
        if view.constant_behind(node.inputs[0]) is None and _quantize_behind(view, node) is None:
            maker = view.source(node.inputs[0], MOVES)
            found = f"its codes come from {maker.op_type if maker else 'an input of the graph'}"
            yield finding("O4", policy, view, node, found=found, expected="a QuantizeLinear or an FP8 initializer", why=_PAIR)


_PAIR = "DequantizeLinear nodes must outnumber QuantizeLinear nodes by exactly the FP8 weights; export again"
