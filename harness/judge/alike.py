"""Which Q/DQ nodes do the same: they quantize or de-quantize one tensor with one scale, and compilers merge them into one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from harness.judge.onnx_checks.scales import scale_of
from harness.judge.structure import QDQ, QUANTIZE, GraphView
from harness.records.graph import OnnxNode

Group = tuple[OnnxNode, ...]


def alike(view: GraphView) -> Mapping[Hashable, Group]:
    """Q/DQ nodes by what they do: those with one key quantize or de-quantize one tensor with one scale."""
    groups: dict[Hashable, list[OnnxNode]] = {}
    for node in view.graph.nodes:
        if node.op_type in QDQ:
            groups.setdefault(_does(view, node), []).append(node)
    return {key: tuple(nodes) for key, nodes in groups.items()}


def _does(view: GraphView, node: OnnxNode) -> Hashable:
    maker = view.producers.get(node.inputs[0])
    read = _does(view, maker) if maker is not None and maker.op_type in QUANTIZE and node.op_type not in QUANTIZE else node.inputs[0]
    return node.op_type in QUANTIZE, read, _scale_key(view, node)


def _scale_key(view: GraphView, node: OnnxNode) -> Hashable:
    scale = scale_of(view, node)
    if scale is None:
        return node.inputs[1] if len(node.inputs) > 1 else None
    return scale.name if scale.value is None else (scale.dtype, scale.value.tobytes())
