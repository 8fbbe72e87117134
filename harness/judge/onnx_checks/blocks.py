"""O11, O12: every block looks like the others, and the graph holds as many Q/DQ nodes as its recipe makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from harness.judge.onnx_checks.finding import Findings, finding, quantizes
from harness.judge.onnx_checks.scales import scale_of
from harness.judge.structure import DEQUANTIZE, MOVES, QDQ, QUANTIZE, AttentionCore, Block, GraphView
from harness.judge.token_tables import token_tables
from harness.records.graph import OnnxNode
from harness.records.policy import RecipePolicy
from harness.records.verdict import Finding

SOFTMAX_SCALE = 1 / 448  # a softmax output is at most 1, and 448 is E4M3's largest number
_SCALE_TOLERANCE = 1e-3  # FP16 spells 1/448 with an error of 2.4e-4

Part = tuple[str, ...]


def blocks_alike(view: GraphView, policy: RecipePolicy) -> Findings:
    """O11: all blocks have the same products, of the same shapes, quantized alike and fed by the same operators."""
    blocks = compared_blocks(view)
    if not blocks:
        return ()
    signatures = [dict(_signature(view, block, core)) for block, core in blocks]
    common = Counter(tuple(signature.values()) for signature in signatures).most_common(1)[0][0]
    return tuple(
        _differing(view, policy, core, signature, common)
        for (_, core), signature in zip(blocks, signatures, strict=True)
        if tuple(signature.values()) != common
    )


def compared_blocks(view: GraphView) -> tuple[tuple[Block, AttentionCore], ...]:
    """The blocks that are to look alike; none where there is only one.

    Blocks of convolutions differ by design, wider and smaller from stage to stage; O2 judges each of theirs.
    """
    return view.attention_blocks if len(view.attention_blocks) > 1 else ()


def _differing(view: GraphView, policy: RecipePolicy, core: AttentionCore, signature: dict[str, Part], common: tuple[Part, ...]) -> Finding:
    pairs = zip(signature.items(), common, strict=False)
    name, own, usual = next(((name, own, usual) for (name, own), usual in pairs if own != usual), (core.softmax.name, (), ()))
    node = next(node for node in view.graph.nodes if node.name == name)
    found = " ".join(own) or f"{len(signature)} products"
    why = "one block unlike the rest is an exporter's accident as a rule; compare it with its neighbours"
    return finding("O11", policy, view, node, found=found, expected=f"as in other blocks: {' '.join(usual) or len(common)}", why=why)


def _signature(view: GraphView, block: Block, core: AttentionCore) -> Iterator[tuple[str, Part]]:
    """Node name to what is to repeat: operator, weight shape, which sides are quantized, and the operators before it."""
    for gemm in block.gemms:
        shape = "x".join(map(str, gemm.constant.shape))
        yield gemm.node.name, (gemm.node.op_type, shape, _sides(view, gemm.node), *_before(view, gemm.activation))
    for node in (core.scores, core.context):
        yield node.name, (node.op_type, _sides(view, node))


def _sides(view: GraphView, node: OnnxNode) -> str:
    return "with Q/DQ on " + {(True, True): "both sides", (False, False): "neither side"}.get(view.is_quantized(node), "one side")


def _before(view: GraphView, tensor: str) -> Iterator[str]:
    """Operators upstream of a GEMM's activation, as far as the next product, norm or sum of two activations."""
    node = view.producers.get(tensor)
    while node is not None and node.op_type != "MatMul" and node.op_type != "Gemm":
        if node.op_type not in MOVES:
            yield f"<- {node.op_type}"
        activations = [name for name in node.inputs if name and view.constant_behind(name) is None]
        if len(activations) != 1 or "Normalization" in node.op_type:
            return
        node = view.producers.get(activations[0])


def counts_match(view: GraphView, policy: RecipePolicy, reference: GraphView | None) -> Findings:
    """O12: Q/DQ nodes in the numbers that the recipe makes, softmax scaled by 1/448, tables in FP8, and blocks as in the reference."""
    return (
        *_counts(view, policy),
        *_attention(view, policy),
        *_softmax_scales(view, policy),
        *_tables(view, policy),
        *_against(view, policy, reference),
    )


def _counts(view: GraphView, policy: RecipePolicy) -> Iterator[Finding]:
    quantize, dequantize = len(view.of_types(QUANTIZE)), len(view.of_types(DEQUANTIZE))
    if not policy.block_gemms_fp8:
        if quantize or dequantize:
            first = (view.of_types(QDQ))[0]
            found = f"{quantize} QuantizeLinear and {dequantize} DequantizeLinear"
            yield finding("O12", policy, view, first, found=found, expected="none", why="this policy quantizes nothing; name another one")
        return
    if not quantize and not dequantize:
        gemms = sum(len(block.gemms) for block in view.blocks)
        found, why = "no quantized node", "this is no FP8 graph; name the quantized file, or --policy fp16"
        yield finding("O12", policy, view, None, found=found, expected=f"Q/DQ on {gemms} block GEMMs", why=why)
        return
    if not view.blocks:
        return  # O2 says so
    gemms = [gemm for block in view.blocks for gemm in block.gemms]
    tensors = {_unquantized(view, gemm.activation) for gemm in gemms}
    more = 4 * len(view.attention_blocks) if policy.attention_fp8 else 0
    fewest, most = len(tensors) + more, len(gemms) + more
    weights = len(gemms) + (len(token_tables(view)) if policy.embedding_fp8 else 0)
    node = _odd_one(view, policy)
    if node is not None or not (fewest <= quantize <= most and fewest + weights <= dequantize <= most + weights):
        shared = f" ({fewest} and {fewest + weights} where readers of one tensor share)" if fewest < most else ""
        expected = f"{most} QuantizeLinear and {most + weights} DequantizeLinear{shared}"
        found = f"{quantize} QuantizeLinear and {dequantize} DequantizeLinear in the graph"
        why = "something is quantized that should not be, or the other way round; this is the first such node"
        yield finding("O12", policy, view, node, found=found, expected=expected, why=why)


def _unquantized(view: GraphView, tensor: str) -> str:
    """The float tensor that an activation was quantized from."""
    node = view.producers.get(tensor)
    while node is not None and node.op_type in MOVES | QDQ and node.inputs:
        tensor = node.inputs[0]
        node = view.producers.get(tensor)
    return tensor


def _odd_one(view: GraphView, policy: RecipePolicy) -> OnnxNode | None:
    """The first block GEMM without Q/DQ, else the first Q/DQ node that belongs to no promised product."""
    promised = [gemm.node for block in view.blocks for gemm in block.gemms]
    bare = next((node for node in promised if view.is_quantized(node) != (True, True)), None)
    if bare is not None:
        return bare
    promised += _attention_products(view) if policy.attention_fp8 else []
    promised += [table.node for table in token_tables(view).values() if policy.embedding_fp8]
    known: set[str] = set()
    for node in promised:
        for tensor in node.inputs[:2]:
            dequantize = view.dequantized(tensor)
            before = view.source(dequantize.inputs[0], MOVES) if dequantize else None
            known |= {one.name for one in (dequantize, before) if one is not None}
    return next((node for node in view.graph.nodes if node.op_type in QDQ and node.name not in known), None)


def _attention_products(view: GraphView) -> list[OnnxNode]:
    return [node for _, core in view.attention_blocks for node in (core.scores, core.context)]


def _attention(view: GraphView, policy: RecipePolicy) -> Iterator[Finding]:
    """Attention MatMuls that the policy promises in FP8 and that are not quantized on both sides."""
    if not policy.attention_fp8 or not view.of_types(QDQ):
        return
    if view.blocks and not view.attention_blocks:
        found, expected = "blocks of convolutions, without attention", "attention in every block, for its products are promised in FP8"
        why = "this policy is for transformers; hold this encoder to a policy that promises no FP8 attention"
        yield finding("O12", policy, view, None, found=found, expected=expected, why=why)
    for node in _attention_products(view):
        if view.is_quantized(node) != (True, True):
            why = "attention in FP8 is one kernel only with q, k, v and the softmax output quantized; quantize all four"
            yield finding("O12", policy, view, node, found=_sides(view, node), expected="Q/DQ on both sides", why=why)


def _tables(view: GraphView, policy: RecipePolicy) -> Iterator[Finding]:
    """Token tables that the policy promises in FP8 and that nothing de-quantizes before they are read."""
    if not policy.embedding_fp8 or not view.of_types(QDQ):
        return
    for table in token_tables(view).values():
        if view.dequantized(table.weight) is None:
            found = f"it gathers from {table.constant.name}, which is {table.constant.dtype} and not de-quantized"
            why = "the table keeps two bytes an element, or its codes are read as numbers; put one DequantizeLinear before the Gather"
            yield finding("O12", policy, view, table.node, found=found, expected="a table in FP8 behind DequantizeLinear", why=why)


def _softmax_scales(view: GraphView, policy: RecipePolicy) -> Iterator[Finding]:
    for core in view.cores:
        if view.is_quantized(core.context) != (True, True):
            continue
        for node in view.readers(core.softmax.outputs[0]):
            scale = scale_of(view, node) if node.op_type in QUANTIZE else None
            if scale is not None and scale.value is not None and not np.allclose(scale.value, SOFTMAX_SCALE, rtol=_SCALE_TOLERANCE, atol=0):
                why = "a softmax output is at most 1, so any other scale clips it or wastes E4M3's range"
                found = f"a softmax scale of {float(np.asarray(scale.value, np.float64).reshape(-1)[0]):.6g}"
                yield finding("O12", policy, view, node, found=found, expected=f"1/448 = {SOFTMAX_SCALE:.6g}", why=why)


def _against(view: GraphView, policy: RecipePolicy, reference: GraphView | None) -> Iterator[Finding]:
    if reference is None or not quantizes(view, policy):
        return
    own, theirs = ([len(one.blocks), sum(len(block.gemms) for block in one.blocks)] for one in (view, reference))
    if own != theirs:
        found, expected = (f"{blocks} blocks with {gemms} weight GEMMs" for blocks, gemms in (own, theirs))
        why = "the two files are of different encoders, or one lost a layer"
        yield finding("O12", policy, view, None, found=found, expected=f"the reference's {expected}", why=why)
