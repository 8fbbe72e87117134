"""Judges an ONNX graph: is every weight GEMM of every block quantized, and is its weight stored in FP8?"""

from __future__ import annotations

from collections.abc import Callable

from harness.judge.structure import DEQUANTIZE, MOVES, QUANTIZE, Block, GraphView, WeightGemm
from harness.judge.token_tables import StoredWeight
from harness.records.graph import OnnxNode
from harness.records.policy import RecipePolicy
from harness.records.verdict import Direction, Finding, Judgement, Severity, Status

FP8 = "FLOAT8E4M3FN"


def block_gemms_quantized(view: GraphView, policy: RecipePolicy) -> Judgement:
    """Whether both operands of every block GEMM end at a DequantizeLinear, or none does where the recipe says so.

    A GEMM with one quantized side runs in half precision, whatever the file's size says.
    """
    return _count(view, policy, metric="block_gemms_quantized", check="O2", defect=_why_not_quantized)


def block_weights_folded(view: GraphView, policy: RecipePolicy) -> Judgement:
    """Whether every block GEMM's weight is an FP8 initializer of one byte an element behind one DequantizeLinear."""
    return _count(view, policy, metric="block_weights_folded", check="O4", defect=why_not_folded)


Defect = Callable[[GraphView, WeightGemm], str | None]


def _count(view: GraphView, policy: RecipePolicy, *, metric: str, check: str, defect: Defect) -> Judgement:
    gemms = [(block, gemm) for block in view.blocks for gemm in block.gemms]
    if not gemms or view.irregularity:
        return unjudged_blocks(metric, view)
    defects = [(block, gemm, defect(view, gemm)) for block, gemm in gemms]
    good = sum(words is None for *_, words in defects)
    expected = len(gemms) if policy.block_gemms_fp8 else 0
    findings = tuple(
        _finding(check, policy.severity, block, gemm, words) for block, gemm, words in defects if words and policy.block_gemms_fp8
    )
    return Judgement(
        metric=metric,
        status=Status.PASS if good == expected else Status.FAIL,
        observed=good,
        bound=expected,
        unit="nodes",
        direction=Direction.EQUAL,
        n=len(gemms),
        reason="" if good == expected else _reason(good, expected, findings),
        severity=policy.severity,
        findings=findings,
    )


def unjudged_blocks(metric: str, view: GraphView) -> Judgement:
    """The answer for a graph whose transformer blocks were not all found: nothing was judged, so nothing passes."""
    found = view.irregularity or "no block found"
    return Judgement(
        metric=metric,
        status=Status.INVALID,
        observed=None,
        bound=None,
        unit="nodes",
        direction=Direction.EQUAL,
        n=0,
        reason=f"cannot judge this graph: {found}; expected blocks of MatMul-Softmax-MatMul with the same weight GEMMs around each, "
        "or residual blocks of convolutions",
    )


def _reason(good: int, expected: int, findings: tuple[Finding, ...]) -> str:
    if not findings:
        return f"{good} nodes are quantized in a graph that should have {expected}"
    first, *others = findings
    return f"{first.message} ({len(findings)} such nodes)" if others else first.message


def _finding(check: str, severity: Severity, block: Block, gemm: WeightGemm, words: str) -> Finding:
    return Finding(
        check=check,
        severity=severity,
        node=gemm.node.name,
        block=block.index,
        found=words,
        expected="both operands behind DequantizeLinear, weights stored in FP8",
        message=f"block {block.index}: {gemm.node.name}: {words}",
    )


def _why_not_quantized(view: GraphView, gemm: WeightGemm) -> str | None:
    activation = _quantized_by(view, gemm.activation)
    weight = view.source(gemm.weight, MOVES)
    sides = {"activation": activation is not None, "weight": weight is not None and weight.op_type in DEQUANTIZE}
    floats = [side for side, is_quantized in sides.items() if not is_quantized]
    return f"its {' and '.join(floats)} side is not quantized" if floats else None


def _quantized_by(view: GraphView, tensor: str) -> OnnxNode | None:
    """The QuantizeLinear behind an activation that ends at a DequantizeLinear; None when there is no such pair."""
    dequantize = view.source(tensor, MOVES)
    if dequantize is None or dequantize.op_type not in DEQUANTIZE:
        return None
    quantize = view.source(dequantize.inputs[0], MOVES)
    return quantize if quantize is not None and quantize.op_type in QUANTIZE else None


def why_not_folded(view: GraphView, stored: StoredWeight) -> str | None:
    """Why the weight is not stored in FP8; None when it is."""
    constant = stored.constant
    dequantize = view.source(stored.weight, MOVES)
    if dequantize is None or dequantize.op_type not in DEQUANTIZE:
        return f"its weight {constant.name} is {constant.dtype} and nothing de-quantizes it"
    if dequantize.inputs[0] != constant.name:
        return f"its weight {constant.name} is {constant.dtype} behind a QuantizeLinear: it was not folded"
    if constant.dtype != FP8 or constant.nbytes != constant.elements:
        return f"its weight {constant.name} is {constant.dtype} with {constant.nbytes} bytes for {constant.elements} elements"
    return None
