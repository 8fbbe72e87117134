"""Faults of what is computed: operators that are lost, swapped, or others than the encoder's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from harness.judge.structure import Block, WeightGemm
from harness.records.spec import Tower
from tests.helpers.accuracy_faults.exported import Edits, Exported

QUICK_GELU = 1.702  # x * sigmoid(1.702 x), OpenAI CLIP's own
OVERFLOWING = 0.5  # of the largest magnitude: what lies above it is taken to leave FP16's range, which ends at 65504


def swapped_q_and_k(graph: Exported) -> Edits:
    """The weights and biases of the query are the key's, and the other way round."""
    return {f"block {block.index}": partial(_swap_q_and_k, graph, block) for block in graph.sampled_blocks}


def _swap_q_and_k(graph: Exported, block: Block) -> None:
    q, k = (graph.gemms(block)[role] for role in ("q", "k"))
    nodes = [graph.node(gemm.node.name) for gemm in (q, k)]
    biases = [graph.node(_bias_of(graph, gemm)[0]) for gemm in (q, k)]
    nodes[0].input[1], nodes[1].input[1] = nodes[1].input[1], nodes[0].input[1]
    sides = [_bias_of(graph, gemm)[1] for gemm in (q, k)]
    names = [bias.input[side] for bias, side in zip(biases, sides, strict=True)]
    for bias, side, name in zip(biases, sides, reversed(names), strict=True):
        bias.input[side] = name


def _bias_of(graph: Exported, gemm: WeightGemm) -> tuple[str, int]:
    """The Add of a GEMM's bias, and which of its inputs the bias is."""
    (add,) = graph.view.consumers[gemm.node.outputs[0]]
    assert add.op_type == "Add", f"{gemm.node.name} has no bias"
    return add.name, 1 - list(add.inputs).index(gemm.node.outputs[0])


def lost_bias(graph: Exported) -> Edits:
    """A layer's bias is not added."""
    return {
        f"block {block.index} {role}": partial(_lose_bias, graph, gemm)
        for block in graph.sampled_blocks
        for role, gemm in graph.gemms(block).items()
        if role in ("v", "fc", "proj")
    }


def _lose_bias(graph: Exported, gemm: WeightGemm) -> None:
    graph.skip(_bias_of(graph, gemm)[0], to=gemm.node.outputs[0])


def quick_gelu(graph: Exported) -> Edits:
    """QuickGELU in place of GELU."""
    return {
        **{f"block {block.index}": partial(_make_quick, graph, [block]) for block in graph.sampled_blocks},
        "every block": partial(_make_quick, graph, graph.view.blocks),
    }


def _make_quick(graph: Exported, blocks: Sequence[Block]) -> None:
    for block in blocks:
        gelu = graph.node(_gelu_of(graph, block))
        own, made = gelu.input[0], f"{gelu.name}/planted"
        factor = graph.new_constant(f"{made}_factor", np.float16(QUICK_GELU))
        nodes = [
            ("Mul", [own, factor], f"{made}_wide"),
            ("Sigmoid", [f"{made}_wide"], f"{made}_gate"),
            ("Mul", [own, f"{made}_gate"], made),
        ]
        graph.read_instead(gelu.output[0], nodes)


def no_gelu(graph: Exported) -> Edits:
    """The activation between a block's two MLP layers is gone."""
    return {f"block {block.index}": partial(_lose_gelu, graph, block) for block in graph.sampled_blocks}


def _lose_gelu(graph: Exported, block: Block) -> None:
    gelu = _gelu_of(graph, block)
    graph.skip(gelu, to=graph.node(gelu).input[0])


def _gelu_of(graph: Exported, block: Block) -> str:
    return next(node.name for node in graph.view.readers(_biased(graph, graph.gemms(block)["fc"])) if node.op_type == "Gelu")


def _biased(graph: Exported, gemm: WeightGemm) -> str:
    return graph.view.consumers[gemm.node.outputs[0]][0].outputs[0]


def missing_causal_mask(graph: Exported) -> Edits:
    """Every token attends to those behind it too."""
    if graph.clean.engine.encoder.tower is not Tower.TEXT:
        return {}
    return {
        **{f"block {block.index}": partial(_lose_masks, graph, [block]) for block in graph.sampled_blocks},
        "every block": partial(_lose_masks, graph, graph.view.blocks),
    }


def _lose_masks(graph: Exported, blocks: Sequence[Block]) -> None:
    for block in blocks:
        assert block.core is not None, "faults are planted in transformers"
        masked = graph.view.producers[block.core.softmax.inputs[0]]
        assert masked.op_type == "Add", f"{masked.name} is no mask"
        graph.skip(masked.name, to=block.core.scores.outputs[0])


def lost_attention_scale(graph: Exported) -> Edits:
    """Queries are not divided by the square root of their width."""
    return {f"block {block.index}": partial(_lose_attention_scale, graph, block) for block in graph.sampled_blocks}


def _lose_attention_scale(graph: Exported, block: Block) -> None:
    assert block.core is not None, "faults are planted in transformers"
    tensor = block.core.scores.inputs[0]
    while graph.view.producers[tensor].op_type != "Mul":
        tensor = graph.view.producers[tensor].inputs[0]
    scaled = graph.view.producers[tensor]
    graph.skip(scaled.name, to=scaled.inputs[0])


def wrong_token(graph: Exported) -> Edits:
    """The embedding is made of another token than the class token, or than the one that ends the text."""
    if graph.clean.engine.encoder.tower is Tower.TEXT:
        last = graph.clean.inputs.rows.shape[1] - 1
        moves = {"the token before": (1, -1), "the first token": (0, 0), "the last position": (0, last)}
        return {place: partial(_move_pooled_text, graph, *move) for place, move in moves.items()}
    tokens = {"the first patch": 1, "the last patch": -1}
    return {place: partial(_move_pooled_image, graph, token) for place, token in tokens.items()}


def _move_pooled_text(graph: Exported, factor: int, shift: int) -> None:
    (found,) = graph.view.of_type["ArgMax"]
    factor_name, shift_name = (graph.new_constant(f"planted_{what}", np.int64(n)) for what, n in (("factor", factor), ("shift", shift)))
    token = found.outputs[0]
    nodes = [("Mul", [token, factor_name], f"{token}/planted_scaled"), ("Add", [f"{token}/planted_scaled", shift_name], f"{token}/planted")]
    graph.read_instead(token, nodes)


def _move_pooled_image(graph: Exported, token: int) -> None:
    gather = next(node for node in reversed(graph.view.graph.nodes) if node.op_type == "Gather")
    graph.node(gather.name).input[1] = graph.new_constant("planted_token", np.int64(token))


def skipped_norm(graph: Exported) -> Edits:
    """A normalisation is not done at all."""
    return {place: partial(_skip_norm, graph, name) for place, name in _norms(graph).items()}


def _skip_norm(graph: Exported, norm: str) -> None:
    graph.skip(norm, to=graph.node(norm).input[0])


def lost_gain(graph: Exported) -> Edits:
    """A normalisation's gain is one in every channel."""
    return {place: partial(_lose_gain, graph, name) for place, name in _norms(graph).items()}


def _lose_gain(graph: Exported, norm: str) -> None:
    node = graph.node(norm)
    gain = graph.numbers(node.input[1])
    node.input[1] = graph.new_constant(f"{norm}/planted_gain", np.ones_like(gain))


def _norms(graph: Exported) -> dict[str, str]:
    inside = {f"block {block.index} {role}": name for block in graph.sampled_blocks for role, name in graph.norms(block).items()}
    return inside | graph.norms_outside()


def transposed_projection(graph: Exported) -> Edits:
    """A projection is stored the other way round: a block's, or the last one, which makes the embedding."""
    gemms = {f"block {block.index} out": graph.gemms(block)["out"] for block in graph.sampled_blocks}
    last = list(graph.view.weight_gemms.values())[-1]
    return {place: partial(_transpose, graph, gemm) for place, gemm in (gemms | {"the last projection": last}).items()}


def _transpose(graph: Exported, gemm: WeightGemm) -> None:
    stored = graph.numbers(gemm.constant.name)
    graph.set_numbers(gemm.constant.name, np.ascontiguousarray(stored.T).reshape(stored.shape))


def residual_overflow(graph: Exported) -> Edits:
    """The sum of a block and its input leaves FP16's range in its largest channels, and becomes infinite there.

    ONNX Runtime computes in FP32 between FP16 nodes on a CPU, where nothing overflows; so what FP16 does is spelled out by nodes.
    """
    return {f"block {block.index} residual": partial(_overflow, graph, _residual_after(graph, block)) for block in graph.sampled_blocks}


def accumulation_overflow(graph: Exported) -> Edits:
    """A product sums up to more than FP16 holds, and becomes infinite there."""
    return {
        f"block {block.index} {role}": partial(_overflow, graph, graph.gemms(block)[role].node.outputs[0])
        for block in graph.sampled_blocks
        for role in ("fc", "proj")
    }


def _residual_after(graph: Exported, block: Block) -> str:
    bias = _biased(graph, graph.gemms(block)["proj"])
    (add,) = graph.view.consumers[bias]
    return add.outputs[0]


def _overflow(graph: Exported, tensor: str) -> None:
    """The largest numbers of a batch, those above half of its maximum, become infinite with their sign."""
    name = f"{tensor}/planted"
    share = graph.new_constant(f"{name}_share", np.float16(OVERFLOWING))
    huge = graph.new_constant(f"{name}_huge", np.float16(np.inf))
    graph.read_instead(
        tensor,
        [
            ("Abs", [tensor], f"{name}_size"),
            ("ReduceMax", [f"{name}_size"], f"{name}_largest"),
            ("Mul", [f"{name}_largest", share], f"{name}_bound"),
            ("Greater", [f"{name}_size", f"{name}_bound"], f"{name}_beyond"),
            ("Sign", [tensor], f"{name}_sign"),
            ("Mul", [f"{name}_sign", huge], f"{name}_infinite"),
            ("Where", [f"{name}_beyond", f"{name}_infinite", tensor], name),
        ],
    )
