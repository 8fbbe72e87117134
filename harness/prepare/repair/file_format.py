"""Faults of the file: what its nodes and notes are called and typed, not what they compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.prepare.onnx_edit import Wiring, inferred_types
from harness.prepare.repair.originals import Originals
from harness.records.artifacts import Repair

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

_VENDOR_DOMAIN = "trt"


def standard_domain(model: ModelProto, _: Originals) -> Repair | None:
    """QuantizeLinear and DequantizeLinear left in the exporter's own domain `trt`, where only TensorRT finds them."""
    strays = [node for node in model.graph.node if node.domain == _VENDOR_DOMAIN and node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    if not strays:
        return None
    for node in strays:
        node.domain = ""
    _drop_unused_opset(model, _VENDOR_DOMAIN)
    detail = f"{len(strays)} Q/DQ nodes were in domain 'trt', which ONNX does not define; moved to ai.onnx"
    return Repair(name="standard_domain", count=len(strays), detail=detail)


def scalar_zero_point(model: ModelProto, _: Originals) -> Repair | None:
    """Zero points of shape [1] beside scales of shape []; ONNX wants one shape for both."""
    wiring = Wiring(model.graph)
    wrong = {node.input[2]: node for node in model.graph.node if _zero_point_outgrows_scale(node, wiring)}
    if not wrong:
        return None
    for name in wrong:
        wiring.initializer[name].ClearField("dims")
    detail = f"{len(wrong)} zero points had shape [1] beside a scalar scale; made scalar"
    return Repair(name="scalar_zero_point", count=len(wrong), detail=detail)


def stale_types(model: ModelProto, _: Originals) -> Repair | None:
    """Element types noted for tensors before the exporter changed what makes them; ONNX Runtime refuses the contradiction."""
    inferred = inferred_types(model)
    noted = list(model.graph.value_info)
    stale = [info.name for info in noted if info.name in inferred and _elem(info) not in (0, _elem(inferred[info.name]))]
    if not stale:
        return None
    del model.graph.value_info[:]
    model.graph.value_info.extend(inferred[info.name] for info in noted if info.name in inferred)
    detail = f"{len(stale)} of {len(noted)} noted tensor types contradicted the nodes that make them; inferred again"
    return Repair(name="stale_types", count=len(stale), detail=detail)


def _drop_unused_opset(model: ModelProto, domain: str) -> None:
    if any(node.domain == domain for node in model.graph.node):
        return
    kept = [opset for opset in model.opset_import if opset.domain != domain]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _zero_point_outgrows_scale(node: NodeProto, wiring: Wiring) -> bool:
    if node.op_type not in {"QuantizeLinear", "DequantizeLinear"} or len(node.input) < 3:
        return False
    scale, zero_point = (wiring.initializer.get(name) for name in node.input[1:3])
    return scale is not None and zero_point is not None and not scale.dims and list(zero_point.dims) == [1]


def _elem(info: ValueInfoProto) -> int:
    return info.type.tensor_type.elem_type
