"""The quantizers of a graph, each named by what it feeds, and the tensors to wire past to leave one out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from harness.judge.alike import alike
from harness.judge.structure import DEQUANTIZE, MOVES, QUANTIZE, Block, GraphView
from harness.judge.token_tables import token_tables
from harness.records.graph import OnnxNode

_AFTER_ATTENTION = ("out", "fc1", "fc2")
_FEEDING = ("q", "k", "v")
_INTO_ATTENTION = (("q into the attention scores", "k into the attention scores"), ("softmax into the context", "v into the context"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantizer:
    """One rounding to FP8: an activation's Q/DQ pair, or a stored weight with its DequantizeLinear.

    Attributes:
        node: its first QuantizeLinear; the DequantizeLinear of a stored weight.
        tensor: what it rounds; of a stored weight, the initializer.
        feeds: in words, such as `input of fc2`.
        dequantized: the tensors that it gives; several where several pairs do the same to one tensor.
        product: for a weight, the node that computes with it; None for an activation.
    """

    node: str
    tensor: str
    feeds: str
    dequantized: tuple[str, ...]
    product: str | None = None


def quantizers_of(view: GraphView, nodes: Collection[str]) -> tuple[Quantizer, ...]:
    """The quantizers among the nodes of these names, in graph order.

    Pairs that do the same to one tensor are one quantizer, as compilers merge them.
    """
    words = operand_words(view)
    return (*_of_activations(view, nodes, words), *_of_weights(view, nodes, words))


def operand_words(view: GraphView) -> Mapping[tuple[str, int], str]:
    """For each operand of a product, by node name and position, what it is: `input of fc2`, `weight of q`, `v into the context`."""
    found: dict[tuple[str, int], str] = {}
    names = _product_names(view)
    for name, gemm in view.weight_products.items():
        side = gemm.node.inputs.index(gemm.weight)
        known = names.get(name, name)
        found[name, side], found[name, 1 - side] = f"weight of {known}", f"input of {known}"
    for _, core in view.attention_blocks:
        for product, pair in zip((core.scores, core.context), _INTO_ATTENTION, strict=True):
            found |= {(product.name, position): what for position, what in enumerate(pair)}
    return found | {(name, 0): "token table" for name in token_tables(view)}


def _product_names(view: GraphView) -> dict[str, str]:
    return {name: word for block in view.blocks for name, word in _names_in(view, block).items()}


def _names_in(view: GraphView, block: Block) -> dict[str, str]:
    """`q`, `k`, `v`, `out`, `fc1` and `fc2`, where a block's products are these; else `product 1` and so on."""
    numbered = {gemm.node.name: f"product {place}" for place, gemm in enumerate(block.gemms, start=1)}
    if block.core is None:
        return numbered
    operands = (*block.core.scores.inputs[:2], block.core.context.inputs[1])
    feeding: dict[str, list[str]] = {}
    for word, tensor in zip(_FEEDING, operands, strict=True):
        behind = _weight_gemm_behind(view, tensor, set(numbered))
        if behind is not None:
            feeding.setdefault(behind, []).append(word)
    after = [name for name in numbered if name not in feeding]
    named = {name: "".join(words) for name, words in feeding.items()}
    if len(after) == len(_AFTER_ATTENTION):
        named |= dict(zip(after, _AFTER_ATTENTION, strict=True))
    return numbered | named


def _weight_gemm_behind(view: GraphView, tensor: str, among: set[str]) -> str | None:
    """The nearest of the products `among` that a tensor is computed from."""
    pending, seen = [tensor], set[str]()
    while pending:
        node = view.producers.get(pending.pop(0))
        if node is None or node.name in seen:
            continue
        if node.name in among:
            return node.name
        seen.add(node.name)
        pending.extend(node.inputs)
    return None


def _of_activations(view: GraphView, nodes: Collection[str], words: Mapping[tuple[str, int], str]) -> tuple[Quantizer, ...]:
    found: list[Quantizer] = []
    for group in alike(view).values():
        first = group[0]
        if first.op_type not in QUANTIZE or first.name not in nodes or view.constant_behind(first.inputs[0]) is not None:
            continue
        given = tuple(reader.outputs[0] for one in group for reader in _dequantizing(view, one))
        if given:
            found.append(Quantizer(node=first.name, tensor=first.inputs[0], feeds=_fed(view, given, words), dequantized=given))
    return tuple(found)


def _dequantizing(view: GraphView, quantize: OnnxNode) -> list[OnnxNode]:
    return [reader for reader in view.consumers.get(quantize.outputs[0], ()) if reader.op_type in DEQUANTIZE]


def _of_weights(view: GraphView, nodes: Collection[str], words: Mapping[tuple[str, int], str]) -> tuple[Quantizer, ...]:
    found: list[Quantizer] = []
    for node in view.graph.nodes:
        constant = view.constant_behind(node.inputs[0]) if node.op_type in DEQUANTIZE and node.name in nodes else None
        if constant is None:
            continue
        given = node.outputs[:1]
        product = next((reader.name for reader in view.readers(given[0])), None)
        found.append(Quantizer(node=node.name, tensor=constant.name, feeds=_fed(view, given, words), dequantized=given, product=product))
    return tuple(found)


def _fed(view: GraphView, tensors: Collection[str], words: Mapping[tuple[str, int], str]) -> str:
    """What reads these tensors, in words; `input of q, k and v` where several do alike."""
    fed = [
        words.get((reader.name, position), f"operand {position + 1} of {reader.name}")
        for tensor in tensors
        for reader in view.readers(tensor)
        for position, name in enumerate(reader.inputs)
        if name == tensor or _is_moved(view, name, tensor)
    ]
    whole = list(dict.fromkeys(fed))
    inputs = [word.removeprefix("input of ") for word in whole if word.startswith("input of ")]
    if len(inputs) == len(whole) > 1:
        return f"input of {', '.join(inputs[:-1])} and {inputs[-1]}"
    return ", ".join(whole) or "nothing"


def _is_moved(view: GraphView, tensor: str, original: str) -> bool:
    node = view.producers.get(tensor)
    while node is not None and node.op_type in MOVES and node.inputs:
        if node.inputs[0] == original:
            return True
        node = view.producers.get(node.inputs[0])
    return False
