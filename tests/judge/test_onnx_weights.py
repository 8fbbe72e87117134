"""O7: codes that are small because the scale is wrong, and codes that are small because FP16 has no smaller scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.judge.onnx_checks.scales import SMALLEST_FP16_SCALE
from harness.judge.onnx_checks.weights import scale_agrees_with_data
from harness.judge.structure import GraphView
from harness.prepare.repair.zero_scales import SMALLEST_SCALE
from harness.records.graph import WeightStatistics
from harness.records.policy import RecipePolicy
from harness.records.verdict import Severity
from tests.helpers.graphs import GraphMaker

LINEAR = RecipePolicy(severity=Severity.GATE, block_gemms_fp8=True, fused_attention=True, unfused_qdq=0, reason="test")
SOUND, TINY = (WeightStatistics(largest_code=code, nan_codes=0, clipped=0, zeroed=0) for code in (448.0, 3.0))


@pytest.mark.parametrize(
    ("scale", "dtype", "is_clean"),
    [(SMALLEST_FP16_SCALE, "FLOAT16", True), (SMALLEST_FP16_SCALE * 2, "FLOAT16", False), (SMALLEST_FP16_SCALE, "FLOAT", False)],
)
def test_small_codes_are_a_finding_unless_fp16_has_no_smaller_scale(scale, dtype, is_clean):
    graph = GraphMaker().graph()
    small = replace(graph.constants["b1/fc/weight_scale"], value=np.array(scale), dtype=dtype)
    view = GraphView(replace(graph, constants={**graph.constants, "b1/fc/weight_scale": small}))
    statistics = {**dict.fromkeys(graph.constants, SOUND), "b1/fc/weight": TINY}

    findings = scale_agrees_with_data(view, LINEAR, statistics)

    assert [one.node for one in findings] == ([] if is_clean else ["b1/fc"])


def test_the_repair_writes_the_scale_that_the_check_knows():
    assert SMALLEST_SCALE == SMALLEST_FP16_SCALE
