"""What is gated and how tightly, as gate.toml says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from harness.errors import BadGateFile
from harness.records.gate_lines import Bound, Margin, Waiver
from harness.records.spec import EncoderSpec, EngineSpec
from harness.records.verdict import Severity

Line = TypeVar("Line", Bound, Margin)


class NodeKind(StrEnum):
    """What can stay in FP16 on purpose while the blocks' Linear layers are quantized."""

    CONVOLUTION = "convolution"  # the patch embedding, or the stem before a ResNet's blocks
    EMBEDDING = "embedding"  # tables that rows are gathered from
    ATTENTION = "attention"  # the two MatMuls of activations
    PROJECTION = "projection"  # weight GEMMs outside the blocks and the pooling: the final projection
    POOLING = "pooling"  # the attention that makes one token of many after the last block, with its own weight GEMMs


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One kind of node that a recipe treats otherwise than the rest, with the reason."""

    kind: NodeKind
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptWide:
    """One ONNX operator that an engine may compute in FP32, with the reason."""

    op_type: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckLimits:
    """The numbers that graph and engine checks hold figures to, as table `[checks]` of gate.toml gives them, with its reasons.

    Attributes:
        largest_code: O7: the largest FP8 code of a weight lies above it.
        clipped, zeroed: O7: shares of a weight's codes at 448 and at zero above which they are reported, 0 to 1.
        cosine: O8: of an FP8 weight, times its scale, with the weight it was made of, at least.
        relative_error: O8: of one element of it, at most.
        coverage: E1: least share of Q/DQ nodes that some layer names, 0 to 1.
        weights_relative: E8: how far weight bytes may be from what shapes predict, as a share of it.
        weights_overhead_bytes: E8: and how far beyond that, in bytes.
    """

    largest_code: float = 224.0
    clipped: float = 0.06
    zeroed: float = 0.05
    cosine: float = 0.999
    relative_error: float = 0.075
    coverage: float = 0.98
    weights_relative: float = 0.02
    weights_overhead_bytes: float = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipePolicy:
    """What a recipe promises of every graph and engine made with it.

    Attributes:
        severity: `report` shows what a recipe loses without turning the run red.
        block_gemms_fp8: every weight GEMM of every block is FP8, from ONNX to the kernel.
        fused_attention: every block has one fused attention layer.
        attention_fp8: q, k, v and the softmax output are quantized as well, and that layer reads q, k and v in FP8.
        embedding_fp8: tables that the graph's input gathers rows from are stored in FP8, where the graph has one.
        unfused_qdq: how many engine layers may be nothing but Q/DQ, beside those fed by a graph input.
        kept_fp16: what stays in FP16 by intent.
        kept_fp32: operators whose numbers an engine may keep in FP32 between two kernels; one list for every recipe of a gate.toml.
        limits: of the checks; likewise.
        quantized_alone: before what the quantization may be an engine layer of its own, beside `unfused_qdq`.
    """

    severity: Severity
    block_gemms_fp8: bool
    fused_attention: bool
    unfused_qdq: int
    reason: str
    attention_fp8: bool = False
    embedding_fp8: bool = False
    kept_fp16: tuple[Kept, ...] = ()
    kept_fp32: tuple[KeptWide, ...] = ()
    limits: CheckLimits = CheckLimits()
    quantized_alone: tuple[Kept, ...] = ()

    def why_kept(self, kind: NodeKind) -> str | None:
        """Why nodes of this kind stay in FP16; None when the recipe does not say that they do."""
        return _reason_for(kind, self.kept_fp16)

    def why_alone(self, kind: NodeKind | None) -> str | None:
        """Why the quantization before nodes of this kind may stand alone; None when the recipe does not say that it may."""
        return _reason_for(kind, self.quantized_alone)

    def why_fp32(self, op_type: str) -> str | None:
        """Why an engine may compute this ONNX operator in FP32; None when the recipe does not say so."""
        return next((kept.reason for kept in self.kept_fp32 if kept.op_type == op_type), None)


def _reason_for(kind: NodeKind | None, exceptions: tuple[Kept, ...]) -> str | None:
    return next((one.reason for one in exceptions if one.kind is kind), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a run without options gates. `weights` are as the option has them, `ARCH=WEIGHTS`; encoders beside them are seeded."""

    encoders: tuple[str, ...]
    recipes: tuple[str, ...]
    backends: tuple[str, ...]
    targets: tuple[str, ...]
    weights: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRows:
    """How many evaluation inputs embeddings are compared on: of weights that have learnt nothing, and of trained ones."""

    seeded: int
    trained: int

    def of(self, encoder: EncoderSpec) -> int:
        """The rows of one encoder."""
        return self.trained if encoder.seed is None else self.seeded


NO_ROWS = EvaluationRows(seeded=1, trained=1)  # for who looks at graphs and engines, and never at embeddings


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePolicy:
    """A whole gate.toml. Of several lines about one metric, the last that covers an engine holds: narrower lines go below.

    Attributes:
        blobs: folder of the engines that latency baselines name; None where nobody names one.
    """

    defaults: Defaults
    evaluation_rows: EvaluationRows
    policies: Mapping[str, RecipePolicy]
    bounds: tuple[Bound, ...]
    margins: tuple[Margin, ...] = ()
    checks: CheckLimits = CheckLimits()
    kept_fp32: tuple[KeptWide, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    blobs: Path | None = None

    def limit(self, metric: str, engine: EngineSpec) -> float:
        """The absolute limit of `metric` for `engine`.

        Raises:
            BadGateFile: no bound covers it.
        """
        return _last(self.bounds, metric, engine, "bound").limit

    def margin(self, metric: str, engine: EngineSpec, machine_class: str | None = None) -> float:
        """How far `metric` may be from what it is compared with, relative or in its unit as the line says.

        Args:
            machine_class: where it was observed; None where that is unknown.

        Raises:
            BadGateFile: no margin covers it, or the one that does says that it is not gated.
        """
        line = self.margin_line(metric, engine, machine_class)
        if not line.gated:
            raise BadGateFile(f"{metric} of {engine.id} is not gated on {machine_class}: {line.reason}")
        return line.size

    def same_graph_margin(self, metric: str, engine: EngineSpec, machine_class: str | None = None) -> float:
        """How far `metric`, in bytes, may be from that of the very same graph: nothing, unless the line says that it holds there too."""
        line = self.margin_line(metric, engine, machine_class)
        return line.size if line.gated and line.same_graph else 0.0

    def margin_line(self, metric: str, engine: EngineSpec, machine_class: str | None = None) -> Margin:
        """The whole line that holds. Arguments and errors as of `margin`; a line may also say that nothing is gated."""
        covering = tuple(line for line in self.margins if line.covers_on(engine, machine_class))
        return _last(covering, metric, engine, "margin")

    def waiver(self, metric: str, engine: EngineSpec) -> Waiver | None:
        """The waiver of `metric` for `engine`; None when nobody wrote one."""
        covering = [line for line in self.waivers if line.metric == metric and line.covers(engine)]
        return covering[-1] if covering else None

    def policy(self, recipe: str) -> RecipePolicy:
        """What `recipe` promises.

        Raises:
            BadGateFile: no table says.
        """
        if recipe not in self.policies:
            raise BadGateFile(f"no [policy.{recipe}] table; expected one for every recipe that is gated, with a reason")
        return replace(self.policies[recipe], kept_fp32=self.kept_fp32, limits=self.checks)


def _last(lines: tuple[Line, ...], metric: str, engine: EngineSpec, kind: str) -> Line:
    covering = [line for line in lines if line.metric == metric and line.covers(engine)]
    if not covering:
        raise BadGateFile(f"no [[{kind}]] of {metric} covers {engine.id}; add one with its reason to gate.toml")
    return covering[-1]
