"""E10: what is worth knowing of an engine, and gates nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from harness.judge.engine_checks.coverage import coverage
from harness.judge.engine_checks.evidence import EngineEvidence
from harness.judge.engine_checks.moves import moves_by_block
from harness.judge.engine_rows import is_product
from harness.judge.onnx_checks.finding import Findings
from harness.records.policy import RecipePolicy
from harness.records.verdict import Finding, Severity

_ATTENTION = re.compile(r"_?(gem[mv]_mha(_v\d+)?)")
_STUB = "STUB"  # what TensorRT-RTX calls every kernel when it compiles ahead of time
_FAMILY_PARTS = 4  # `sm90_xmma_gemm_e4m3f16`: GPU, generator, operation, operand types


def engine_facts(seen: EngineEvidence, policy: RecipePolicy) -> Findings:
    """E10: one report of layers, streams, memory, attention kernels, product kernels by family, and coverage."""
    del policy  # a report is the same under every promise
    found = "; ".join(_facts(seen))
    return (Finding(check="E10", severity=Severity.REPORT, node=None, block=None, found=found, expected="", message=found),)


def _facts(seen: EngineEvidence) -> Iterator[str]:
    rows = seen.table.rows
    streams = {row.stream for row in rows if row.stream is not None}
    yield f"{len(rows)} layers" + (f" on {len(streams)} stream{'s' if len(streams) > 1 else ''}" if streams else "")
    if seen.memory is not None:
        known = (("weight", seen.memory.weights_bytes), ("activation", seen.memory.activation_bytes))
        yield from (f"{count:,} {word} bytes" for word, count in known if count is not None)
    attention = Counter(match[1] for row in rows if (match := _ATTENTION.match(row.name)) is not None)
    yield f"fused attention {_counted(attention)}"
    yield f"products {_counted(Counter(_family(row.tactic) for row in rows if is_product(row)))}"
    yield f"layers that only move {_moves(seen)}"
    yield f"layers name {coverage(seen).words()}"


def _family(tactic: str) -> str:
    if not tactic or _STUB in tactic:
        return "left to the device"
    return "_".join(tactic.strip("_").split("_")[:_FAMILY_PARTS])


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} x {count}" for name, count in counts.most_common()) or "none"


def _moves(seen: EngineEvidence) -> str:
    found = moves_by_block(seen)
    ordered = sorted(found.items(), key=lambda item: -1 if item[0] is None else item[0])
    spelled = (f"{count} of {size:,} bytes a row {_where(block)}" for block, (count, size) in ordered)
    return ", ".join(spelled) or "none"


def _where(block: int | None) -> str:
    return "outside the blocks" if block is None else f"in block {block}"
