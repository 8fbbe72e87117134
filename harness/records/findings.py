"""What `check-graph` says about one ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.records.verdict import Finding

FINDINGS_SCHEMA = "enginegate/findings/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSummary:
    """A graph in figures.

    Attributes:
        blocks: transformer blocks found.
        weight_gemms: their products with constant weights; `quantized` of these on both sides, `folded` with weights in FP8.
        fp8_flop_share: of the work of all products, with a dynamic batch counted as 1; None where shapes are unknown.
        gate, report: findings of each severity.
    """

    blocks: int
    weight_gemms: int
    quantized: int
    folded: int
    fp8_flop_share: float | None
    gate: int
    report: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFindings:
    """All that the checks found.

    Attributes:
        model: the file, as it was named.
        policy: the recipe whose promise it was held to.
        not_judged: checks that lack what they would compare the file with, each with the words for it.
    """

    schema: str
    model: str
    policy: str
    summary: GraphSummary
    findings: tuple[Finding, ...]
    not_judged: Mapping[str, str] = field(default_factory=dict[str, str])
