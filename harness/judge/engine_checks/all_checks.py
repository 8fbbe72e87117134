"""All checks of an engine, in the order of their ids, and each as one judgement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from harness.judge.checked import Looked, judged
from harness.judge.engine_checks.coverage import coverage, nodes_are_named, why_not_judged
from harness.judge.engine_checks.evidence import EngineEvidence
from harness.judge.engine_checks.facts import engine_facts
from harness.judge.engine_checks.moves import moves_no_more, moving_rows
from harness.judge.engine_checks.quantization import (
    attention_is_one_layer,
    no_quantization_is_emulated,
    no_quantization_is_left_over,
    pairs,
    products_run_in_fp8,
    work_is_fp8,
)
from harness.judge.engine_checks.size import weights_as_predicted
from harness.judge.engine_checks.types import types_are_kept, why_ports_are_unknown
from harness.judge.engine_flops import fp8_flop_share
from harness.judge.engine_graph import block_gemms_fp8, fused_attention
from harness.judge.onnx_checks.finding import Findings
from harness.records.policy import RecipePolicy
from harness.records.verdict import Judgement, Status

CHECKS: Mapping[str, Callable[[EngineEvidence, RecipePolicy], Findings]] = {
    "E1": nodes_are_named,
    "E2": products_run_in_fp8,
    "E3": work_is_fp8,
    "E4": attention_is_one_layer,
    "E5": no_quantization_is_left_over,
    "E6": no_quantization_is_emulated,
    "E7": moves_no_more,
    "E8": weights_as_predicted,
    "E9": types_are_kept,
    "E10": engine_facts,
}


def all_findings(seen: EngineEvidence, policy: RecipePolicy) -> Findings:
    """What every check finds. Of a table that names too little of the graph, E1 alone speaks: no other check can be believed."""
    checks = {"E1": CHECKS["E1"]} if why_not_judged(seen, policy) else CHECKS
    return tuple(found for check in checks.values() for found in check(seen, policy))


def judgement(check: str, seen: EngineEvidence, policy: RecipePolicy) -> Judgement:
    """One gate check, `E1` to `E9`, as a judgement of metric `check_E1` to `check_E9`.

    INVALID where the table names too little of the graph, or where the check lacks what it needs, and says which.
    """
    if check == "E7":
        return _moves(seen, policy)
    looked = Looked(n=_LOOKED_AT[check](seen, policy), findings=CHECKS[check](seen, policy), why_not=_why_not(check, seen, policy))
    return judged(check, looked, policy)


_LOOKED_AT: Mapping[str, Callable[[EngineEvidence, RecipePolicy], int]] = {
    "E1": lambda seen, policy: coverage(seen).looked_at,
    "E2": lambda seen, policy: _promised_in_fp8(seen, policy),
    "E3": lambda seen, policy: len(coverage(seen).products),
    "E4": lambda seen, policy: len(seen.view.attention_blocks),
    "E5": lambda seen, policy: len(coverage(seen).groups),
    "E6": lambda seen, policy: len(list(pairs(seen))),
    "E8": lambda seen, policy: 1,
    "E9": lambda seen, policy: sum(len(row.outputs) + len(row.constants) for row in seen.table.rows),
}


def _promised_in_fp8(seen: EngineEvidence, policy: RecipePolicy) -> int:
    gemms = sum(len(block.gemms) for block in seen.view.blocks) if policy.block_gemms_fp8 else 0
    return gemms + (len(seen.view.attention_blocks) if policy.attention_fp8 else 0)


def _why_not(check: str, seen: EngineEvidence, policy: RecipePolicy) -> str | None:
    """Why a check cannot be judged of this engine."""
    unseen = why_not_judged(seen, policy)
    if unseen:
        return unseen
    if check == "E8" and (seen.memory is None or seen.memory.weights_bytes is None):
        return "cannot judge: the builder does not say how many weight bytes the engine keeps; keep its log"
    if check == "E9":
        return why_ports_are_unknown(seen, policy)
    metric = {"E2": block_gemms_fp8, "E4": fused_attention}.get(check)
    found = metric(seen.view, seen.table, policy) if metric else None
    if check == "E3":
        found = fp8_flop_share(seen.view, seen.table, policy, floor=seen.flop_floor)
    return found.reason if found is not None and found.status is Status.INVALID else None


def _moves(seen: EngineEvidence, policy: RecipePolicy) -> Judgement:
    """E7 is held to a stored figure, so it says how many layers move, not how many findings that makes."""
    looked = Looked(n=len(seen.table.rows), findings=moves_no_more(seen, policy), why_not=why_not_judged(seen, policy))
    found = judged("E7", looked, policy)
    if found.status is Status.INVALID:
        return replace(found, bound=None, unit="layers")
    found = replace(found, observed=len(moving_rows(seen)), bound=seen.approved_moves, unit="layers")
    if seen.approved_moves is None:
        words = "no baseline of this key; run with --baselines=create to store one"
        return replace(found, status=Status.NO_BASELINE, reason=words)
    return found
