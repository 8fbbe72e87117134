"""ONNX checks on convolutional trunks: clean ones give no finding, and each finding names its convolution."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.judge.onnx_checks.all_checks import CHECKS, Evidence
from harness.judge.structure import GraphView
from harness.store.gatefile import read_gate_file
from tests.helpers.trunks import TrunkMaker

POLICIES = read_gate_file(Path(__file__).parents[2] / "gate.toml").policies
STRUCTURAL = ("O2", "O3", "O4", "O6", "O9", "O10", "O11", "O12")  # the others look at bytes, which these graphs do not have


def found_in(maker, policy="linear"):
    seen = Evidence(view=GraphView(maker.graph()))
    return [(one.check, one.node) for check in STRUCTURAL for one in CHECKS[check](seen, POLICIES[policy])]


@pytest.mark.parametrize("policy", ["linear", "fp16"])
def test_a_clean_trunk_gives_no_finding(policy):
    assert found_in(TrunkMaker(quantized=policy == "linear"), policy) == []


def test_a_convolution_left_in_half_precision_is_named():
    assert ("O2", "b1/conv2") in found_in(TrunkMaker(float_gemms=frozenset({"b1/conv2"})))


def test_a_convolution_whose_weight_is_not_folded_is_named():
    assert ("O4", "b2/conv1") in found_in(TrunkMaker(unfolded=frozenset({"b2/conv1"})))


def test_a_quantized_stem_is_unasked():
    class Everything(TrunkMaker):
        def _convolution(self, name, tensor, *, quantized=None):
            return super()._convolution(name, tensor)

    assert [("O10", "stem"), ("O12", "stem/weight_dq")] == [found for found in found_in(Everything()) if found[0] in ("O10", "O12")]


def test_a_policy_of_fp8_attention_is_not_kept_by_a_tower_without_any():
    assert found_in(TrunkMaker(), "attention") == [("O12", None)]


def test_a_trunk_that_lost_a_block_is_not_what_the_reference_has():
    seen = Evidence(view=GraphView(TrunkMaker(blocks=2).graph()), reference=GraphView(TrunkMaker(blocks=3, quantized=False).graph()))

    [one] = CHECKS["O12"](seen, replace(POLICIES["linear"]))

    assert (one.found, one.expected) == ("2 blocks with 5 weight GEMMs", "the reference's 3 blocks with 7 weight GEMMs")
