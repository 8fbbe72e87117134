"""How much arithmetic each product of a graph is, from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from harness.judge.structure import PRODUCTS, GraphView
from harness.records.graph import OnnxNode

_OPERATIONS = 2  # a multiplication and an addition


def products(view: GraphView) -> Mapping[str, OnnxNode]:
    """Node name to every product of an activation with weights or with another activation, in graph order."""
    nodes = (node for node in view.graph.nodes if node.op_type in PRODUCTS)
    return {node.name: node for node in nodes if any(view.constant_behind(name) is None for name in node.inputs[:2])}


def product_flops(view: GraphView, node: OnnxNode) -> int | None:
    """FLOPs of one product for one row of the batch; None where a shape is unknown."""
    output, first, second = (_shape(view, name) for name in (node.outputs[0], *node.inputs[:2]))
    if not output or not first or not second:
        return None
    if node.op_type == "ConvTranspose":
        return _OPERATIONS * prod(first) * prod(second[1:])
    if node.op_type == "Conv":
        terms = prod(second[1:])  # [output channels, input channels a group, height, width]
    else:
        terms = second[-1] if node.attributes.get("transB", 0) == 1 else second[-2 if len(second) > 1 else -1]
    return _OPERATIONS * prod(output) * terms


def flops_a_row(view: GraphView) -> Mapping[str, int]:
    """FLOPs of each product for one row of the batch, where they are known; also of a graph whose batch is written into it."""
    batches = {port.shape[0] for port in view.graph.inputs if port.shape}
    written = batches.pop() if len(batches) == 1 else 1
    rows = written if isinstance(written, int) and written > 0 else 1
    found = {name: product_flops(view, node) for name, node in products(view).items()}
    return {name: count // rows for name, count in found.items() if count is not None}


def _shape(view: GraphView, tensor: str) -> tuple[int, ...] | None:
    constant = view.graph.constants.get(tensor)
    if constant is not None:
        return constant.shape
    port = view.graph.tensors.get(tensor)
    sizes = tuple(size for size in port.shape if isinstance(size, int)) if port is not None else ()
    return sizes if port is not None and len(sizes) == len(port.shape) else None
