"""E9: an engine takes and gives the types that its FP16 twin does, and FP32 is where the policy declares it only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.judge.engine_checks.evidence import EngineEvidence
from harness.judge.engine_rows import is_product
from harness.judge.onnx_checks.finding import Findings, finding
from harness.judge.structure import PRODUCTS, GraphView
from harness.records.graph import OnnxNode
from harness.records.observations import LayerRow, LayerTable, LayerTensor
from harness.records.policy import RecipePolicy
from harness.records.verdict import Finding


def types_are_kept(seen: EngineEvidence, policy: RecipePolicy) -> Findings:
    """E9: inputs and outputs have the FP16 engine's types, and no other tensor is FP32 than those of declared operators.

    Accumulators stay inside kernels and show only as the scalars and vectors that a product scales its result with; those are
    constants, and no matrices.
    """
    return (*_other_ports(seen, policy), *_wide_tensors(seen, policy))


def port_types(view: GraphView, table: LayerTable) -> Mapping[str, str]:
    """Types of the engine's inputs and outputs by name: as the source lists them, else as the layers that touch them say."""
    if table.ports:
        return {port.name: port.datatype for port in table.ports}
    names = {port.name for port in (*view.graph.inputs, *view.graph.outputs)}
    tensors = (tensor for row in table.rows for tensor in (*row.inputs, *row.outputs))
    return {tensor.name: tensor.datatype for tensor in tensors if tensor.name in names}


def why_ports_are_unknown(seen: EngineEvidence, policy: RecipePolicy) -> str | None:
    """Why the types of inputs and outputs cannot be compared; None when they can, or when the engine is the FP16 one itself."""
    if seen.reference is None:
        return "cannot judge: the layers of the FP16 engine are not at hand; give them as the reference" if policy.block_gemms_fp8 else None
    wanted = {port.name for port in (*seen.view.graph.inputs, *seen.view.graph.outputs)}
    for word, table in (("the engine", seen.table), ("its FP16 twin", seen.reference)):
        missing = sorted(wanted - set(port_types(seen.view, table)))
        if missing:
            return f"cannot judge: the layer table of {word} does not say the type of {missing[0]}; keep its list of I/O tensors"
    return None


def _other_ports(seen: EngineEvidence, policy: RecipePolicy) -> Iterator[Finding]:
    if seen.reference is None:
        return
    own, before = port_types(seen.view, seen.table), port_types(seen.view, seen.reference)
    for name in own:
        if name in before and own[name] != before[name]:
            why = "whoever feeds the engine has to change with it; keep the graph's inputs and outputs as they were"
            found, expected = f"{name} is {own[name]}", f"{before[name]}, as in the FP16 engine"
            yield finding("E9", policy, seen.view, _beside(seen, name), found=found, expected=expected, why=why)


def _beside(seen: EngineEvidence, port: str) -> OnnxNode | None:
    """The node that makes an output of the graph, or the first that reads an input."""
    return seen.view.producers.get(port) or next(iter(seen.view.consumers.get(port, ())), None)


def _wide_tensors(seen: EngineEvidence, policy: RecipePolicy) -> Iterator[Finding]:
    for row in seen.table.rows:
        wide = [*filter(is_fp32, row.outputs), *filter(_is_wide_matrix, row.constants)]
        if wide and not _is_declared(seen, policy, row):
            found = f"layer {row.name} holds {wide[0].name} in {wide[0].datatype}"
            declared = ", ".join(kept.op_type for kept in policy.kept_fp32) or "nothing"
            why = "FP32 between kernels doubles what they move; find the Cast or the float constant it comes from, or declare it"
            yield finding("E9", policy, seen.view, _computing(seen, row), found=found, expected=f"FP32 in {declared} only", why=why)


def is_fp32(tensor: LayerTensor) -> bool:
    """Whether a tensor is single precision, in any compiler's spelling: `Float`, or a sentence that says FP32."""
    return tensor.datatype == "Float" or "FP32" in tensor.datatype.upper()


def _is_wide_matrix(constant: LayerTensor) -> bool:
    return is_fp32(constant) and len(constant.shape) > 1 and min(constant.shape[-2:]) > 1


def _is_declared(seen: EngineEvidence, policy: RecipePolicy, row: LayerRow) -> bool:
    """Whether a layer carries an operator that the policy keeps in FP32. A product's own output is never meant by that."""
    if is_product(row):
        return False
    return any(policy.why_fp32(node.op_type) is not None for node in seen.nodes_of(row))


def _computing(seen: EngineEvidence, row: LayerRow) -> OnnxNode | None:
    """The node that a layer is there for: its product where it has one."""
    place = seen.place_of(row)
    return next((node for node in seen.nodes_of(row) if node.op_type in PRODUCTS), place)
