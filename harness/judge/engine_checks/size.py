"""E8: the engine keeps as many weight bytes as the shapes of its graph say. Needs no baseline."""

from __future__ import annotations

from math import prod

from harness.judge.engine_checks.evidence import EngineEvidence
from harness.judge.engine_rows import is_fp8
from harness.judge.onnx_checks.finding import Findings, finding
from harness.judge.onnx_checks.size import predicted_bytes
from harness.judge.structure import GraphView
from harness.records.graph import OnnxNode
from harness.records.policy import RecipePolicy

_CHANNELS = 4  # TensorRT stores kernels of three input channels, as patch embeddings have, with four (its tables list the fourth)
_HALF_BYTES = 2


def weights_as_predicted(seen: EngineEvidence, policy: RecipePolicy) -> Findings:
    """E8: weight bytes lie around what shapes predict. Of too many, the weights that a table lists as wider than FP8 are named."""
    observed = seen.memory.weights_bytes if seen.memory else None
    if observed is None:
        return ()
    floor, ceiling = weight_bounds(seen.view, policy)
    if floor <= observed <= ceiling:
        return ()
    why = (
        "a weight is kept wider than FP8, twice, or unfolded; look at the constants of its layer"
        if observed > ceiling
        else "weights are missing, or more of them are FP8 than the policy says"
    )
    places = _kept_wide(seen, policy) if observed > ceiling else []
    found, expected = f"{observed:,} weight bytes", f"{floor:,} to {ceiling:,}"
    return tuple(finding("E8", policy, seen.view, place, found=found, expected=expected, why=why) for place in places or [None])


def weight_bounds(view: GraphView, policy: RecipePolicy) -> tuple[int, int]:
    """Least and most weight bytes that the shapes allow."""
    predicted = predicted_bytes(view, policy) + _padding(view)
    slack = policy.limits.weights_relative * predicted + policy.limits.weights_overhead_bytes
    return round(predicted - slack), round(predicted + slack)


def _padding(view: GraphView) -> int:
    """Bytes of the input channels that the compiler adds to convolutions of fewer than four."""
    kernels = [view.constant_behind(node.inputs[1]) for node in view.of_type.get("Conv", ())]
    shapes = [kernel.shape for kernel in kernels if kernel is not None and len(kernel.shape) > 2]
    return sum(_HALF_BYTES * (_CHANNELS - shape[1]) * shape[0] * prod(shape[2:]) for shape in shapes if 1 < shape[1] < _CHANNELS)


def _kept_wide(seen: EngineEvidence, policy: RecipePolicy) -> list[OnnxNode]:
    """Block GEMMs none of whose layers holds a weight of one byte an element, where one is promised."""
    if not policy.block_gemms_fp8 or not seen.table.lists_constants:
        return []
    gemms = (gemm.node for block in seen.view.blocks for gemm in block.gemms)
    return [node for node in gemms if not _holds_fp8(seen, node)]


def _holds_fp8(seen: EngineEvidence, node: OnnxNode) -> bool:
    return any(is_fp8(constant) for row in seen.carriers.get(node.name, ()) for constant in row.constants)
