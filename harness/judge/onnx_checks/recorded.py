"""O15: the scales of activations are those that calibration found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest

import numpy as np

from harness.judge.onnx_checks.finding import Findings, finding
from harness.judge.onnx_checks.scales import scale_of
from harness.judge.structure import QUANTIZE, GraphView
from harness.records.graph import OnnxNode
from harness.records.policy import RecipePolicy
from harness.records.verdict import Finding

E4M3_MAX = 448.0  # largest finite E4M3 value
# A scale is rounded to FP16 and so may be its magnitude before, each by 2**-11 at most; a scale below 2**-14, by 2**-25.
_RELATIVE_TOLERANCE = 2.0**-9
_ABSOLUTE_TOLERANCE = 2.0**-24

NO_RECORD = "nobody recorded what calibration saw of this graph, so its scales have nothing to be compared with"


def scales_as_recorded(view: GraphView, policy: RecipePolicy, amax: Mapping[str, float] | None) -> Findings:
    """O15: of every quantized activation, scale times 448 is the largest magnitude that calibration saw.

    Too small a scale saturates, and accuracy shows it. One that is 4 or 4,096 times too large shows in no number: E4M3 spans 17 powers
    of two, and a trained encoder's activations need but a few of them.

    Args:
        amax: the largest magnitude that each quantizer saw, by its path; None where there is no such record.
    """
    if amax is None:
        return ()
    return tuple(found for node in quantized_activations(view) for found in _deviation(view, policy, node, amax))


def quantized_activations(view: GraphView) -> tuple[OnnxNode, ...]:
    """QuantizeLinear nodes of what is computed; those of weights are folded, or O4's to find."""
    return tuple(node for node in view.of_types(QUANTIZE) if node.inputs and view.constant_behind(node.inputs[0]) is None)


def quantizer_of(node: OnnxNode) -> str:
    """The path of the quantizer that a node was exported from: `blocks.0.fc.input_quantizer` of `/blocks/blocks.0/fc/input_quantizer/X`.

    The exporter names a node by the modules that it was called through, and says a list that was called itself twice.
    """
    modules = node.name.strip("/").split("/")[:-1]
    return ".".join(module for module, inner in zip_longest(modules, modules[1:], fillvalue="") if not inner.startswith(f"{module}."))


def _deviation(view: GraphView, policy: RecipePolicy, node: OnnxNode, amax: Mapping[str, float]) -> Iterator[Finding]:
    scale = scale_of(view, node)
    if scale is None or scale.value is None or scale.elements != 1:
        return  # O5 says so
    seen = amax.get(quantizer_of(node))
    if seen is None:
        found, expected = "calibration has no record of it", "one of its quantizers"
        why = "its scale comes from elsewhere; export again, and put in no quantizer by hand"
        yield finding("O15", policy, view, node, found=found, expected=expected, why=why)
        return
    largest = float(np.asarray(scale.value, np.float64).reshape(())) * E4M3_MAX
    tolerance = max(_RELATIVE_TOLERANCE * seen, _ABSOLUTE_TOLERANCE * E4M3_MAX)
    if not abs(largest - seen) <= tolerance:  # so that NaN is found too
        found = f"a range of {largest:.6g}, {largest / seen:.4g} times what calibration saw"
        why = "too small a range saturates, and too large a one loses small numbers with no metric to show it; export again"
        yield finding("O15", policy, view, node, found=found, expected=f"{seen:.6g}", why=why)
