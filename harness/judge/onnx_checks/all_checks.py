"""All checks of an ONNX graph, in the order of their ids, and each as one judgement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.judge.checked import Looked, judged
from harness.judge.onnx_checks.blocks import blocks_alike, compared_blocks, counts_match
from harness.judge.onnx_checks.finding import Findings
from harness.judge.onnx_checks.format import node_names, standard_format
from harness.judge.onnx_checks.placement import kept_by_intent, no_idle_quantization
from harness.judge.onnx_checks.products import both_operands_quantized, no_half_quantized_product, weights_stored_in_fp8
from harness.judge.onnx_checks.recorded import NO_RECORD, quantized_activations, scales_as_recorded
from harness.judge.onnx_checks.scales import pairs_agree, shared_inputs_share_scales, sound_scales
from harness.judge.onnx_checks.size import bytes_as_predicted, quantized_flop_share
from harness.judge.onnx_checks.unchanged import NOTHING_TO_COMPARE, kept_constants, rest_is_the_references
from harness.judge.onnx_checks.weights import NO_REFERENCE, fp8_weights, scale_agrees_with_data, weights_survive_rounding
from harness.judge.onnx_graph import why_not_folded
from harness.judge.structure import PRODUCTS, QDQ, QUANTIZE, GraphView
from harness.records.findings import GraphSummary
from harness.records.graph import OnnxConstant, OnnxGraph, RoundTrip, WeightStatistics
from harness.records.policy import RecipePolicy
from harness.records.verdict import Judgement, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was measured of one graph.

    Attributes:
        statistics: of its FP8 constants, by name; None for one that cannot be read.
        reference: the graph before quantization, where there is one.
        trips: with a reference, each weight GEMM's and token table's distance from it, by node name; None for what cannot be compared.
        digests: with a reference, of the float constants of both, rounded to FP16; None for one not stored as plain bytes.
        as_read: the graph before its nodes were given names of their own; None where the view is of the graph as it was read.
        amax: the largest magnitude that each quantizer saw while it was calibrated, by its path; None where nobody recorded it.
    """

    view: GraphView
    statistics: Mapping[str, WeightStatistics | None] = field(default_factory=dict[str, "WeightStatistics | None"])
    reference: GraphView | None = None
    trips: Mapping[str, RoundTrip | None] | None = None
    digests: Mapping[OnnxConstant, str | None] = field(default_factory=dict[OnnxConstant, "str | None"])
    as_read: OnnxGraph | None = None
    amax: Mapping[str, float] | None = None


CHECKS: Mapping[str, Callable[[Evidence, RecipePolicy], Findings]] = {
    "O1": lambda seen, policy: (*node_names(seen.as_read or seen.view.graph, seen.view, policy), *standard_format(seen.view, policy)),
    "O2": lambda seen, policy: both_operands_quantized(seen.view, policy),
    "O3": lambda seen, policy: no_half_quantized_product(seen.view, policy),
    "O4": lambda seen, policy: weights_stored_in_fp8(seen.view, policy),
    "O5": lambda seen, policy: sound_scales(seen.view, policy),
    "O6": lambda seen, policy: pairs_agree(seen.view, policy),
    "O7": lambda seen, policy: scale_agrees_with_data(seen.view, policy, seen.statistics),
    "O8": lambda seen, policy: weights_survive_rounding(seen.view, policy, seen.trips),
    "O9": lambda seen, policy: no_idle_quantization(seen.view, policy),
    "O10": lambda seen, policy: kept_by_intent(seen.view, policy),
    "O11": lambda seen, policy: blocks_alike(seen.view, policy),
    "O12": lambda seen, policy: counts_match(seen.view, policy, seen.reference),
    "O13": lambda seen, policy: shared_inputs_share_scales(seen.view, policy),
    "O14": lambda seen, policy: bytes_as_predicted(seen.view, policy),
    "O15": lambda seen, policy: scales_as_recorded(seen.view, policy, seen.amax),
    "O16": lambda seen, policy: rest_is_the_references(seen.view, policy, seen.reference, seen.digests),
}


# How many things each check looks at. A check that looked at nothing has shown nothing.
_LOOKED_AT: Mapping[str, Callable[[Evidence], int]] = {
    "O1": lambda seen: len(seen.view.graph.nodes),
    "O2": lambda seen: sum(len(block.gemms) for block in seen.view.blocks),
    "O3": lambda seen: len(seen.view.of_types(PRODUCTS)),
    "O4": lambda seen: len(seen.view.of_types(QDQ)),
    "O5": lambda seen: len(seen.view.of_types(QDQ)),
    "O6": lambda seen: len(seen.view.of_types(QUANTIZE)),
    "O7": lambda seen: len(list(fp8_weights(seen.view))),
    "O8": lambda seen: len(seen.trips or {}),
    "O9": lambda seen: len(seen.view.of_types(QDQ)),
    "O10": lambda seen: len(seen.view.of_types(PRODUCTS | {"Gather"})),
    "O11": lambda seen: len(compared_blocks(seen.view)),
    "O12": lambda seen: len(seen.view.graph.nodes),
    "O13": lambda seen: len(seen.view.of_types(QUANTIZE)),
    "O14": lambda seen: len(seen.view.graph.constants) if seen.view.graph.file_bytes and seen.view.blocks else 0,
    "O15": lambda seen: len(quantized_activations(seen.view)),
    "O16": lambda seen: len(kept_constants(seen.view, seen.reference)) if seen.reference is not None else 0,
}


def judgement(check: str, seen: Evidence, policy: RecipePolicy) -> Judgement:
    """One check, `O1` to `O16`, as a judgement of metric `check_O1` to `check_O16`; INVALID where it has nothing to look at."""
    looked = Looked(n=_LOOKED_AT[check](seen), findings=CHECKS[check](seen, policy), why_not=why_not_judged(seen).get(check))
    return judged(check, looked, policy)


def why_not_judged(seen: Evidence) -> Mapping[str, str]:
    """Checks that lack what they compare a graph with, each with the words for it."""
    quantizes = bool(seen.view.of_types(QDQ))
    missing = {
        "O8": NO_REFERENCE if seen.trips is None else None,
        "O15": NO_RECORD if seen.amax is None else None,
        "O16": NOTHING_TO_COMPARE if seen.reference is None else None,
    }
    return {check: words for check, words in missing.items() if words is not None and quantizes}


def all_findings(seen: Evidence, policy: RecipePolicy) -> Findings:
    """What every check finds. Of a graph without any Q/DQ node, O12 says so: the rest would say it once a node."""
    is_bare = policy.block_gemms_fp8 and seen.view.blocks and not seen.view.of_types(QDQ)
    checks = {check: CHECKS[check] for check in ("O1", "O12")} if is_bare else CHECKS
    return tuple(found for check in checks.values() for found in check(seen, policy))


def summary_of(view: GraphView, findings: Findings) -> GraphSummary:
    """The graph and its findings in figures."""
    gemms = [gemm for block in view.blocks for gemm in block.gemms]
    gates = sum(one.severity is Severity.GATE for one in findings)
    return GraphSummary(
        blocks=len(view.blocks),
        weight_gemms=len(gemms),
        quantized=sum(view.is_quantized(gemm.node) == (True, True) for gemm in gemms),
        folded=sum(why_not_folded(view, gemm) is None for gemm in gemms),
        fp8_flop_share=quantized_flop_share(view),
        gate=gates,
        report=len(findings) - gates,
    )
