"""Finds the tables that an encoder's input gathers rows from, such as a token embedding, by what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.judge.structure import MOVES, GraphView, WeightGemm
from harness.records.graph import OnnxConstant, OnnxNode


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTable:
    """A Gather of a constant's rows by an input of the graph.

    Attributes:
        weight: name of the tensor that is gathered from.
        constant: the initializer at the end of its chain.
    """

    node: OnnxNode
    weight: str
    constant: OnnxConstant


StoredWeight = WeightGemm | TokenTable  # what a recipe may store in FP8: both have a node, a tensor and its initializer


def token_tables(view: GraphView) -> Mapping[str, TokenTable]:
    """Node name to table, in graph order; empty for an image tower."""
    inputs = {port.name for port in view.graph.inputs}
    gathers = (node for node in view.of_type.get("Gather", ()) if _first_made(view, node.inputs[1]) in inputs)
    return {node.name: table for node in gathers if (table := _table(view, node)) is not None}


def stored_weights(view: GraphView) -> Mapping[str, StoredWeight]:
    """Node name to every weight GEMM, convolution and token table."""
    return {**view.weight_products, **token_tables(view)}


def _first_made(view: GraphView, tensor: str) -> str:
    """The tensor that `tensor` is a moved or retyped form of."""
    node = view.producers.get(tensor)
    while node is not None and node.op_type in MOVES and node.inputs:
        tensor = node.inputs[0]
        node = view.producers.get(tensor)
    return tensor


def _table(view: GraphView, node: OnnxNode) -> TokenTable | None:
    constant = view.constant_behind(node.inputs[0])
    if constant is None or len(constant.shape) != 2 or node.attributes.get("axis", 0) != 0:
        return None
    return TokenTable(node=node, weight=node.inputs[0], constant=constant)
