"""Every kind of fault, in the order in which the report lists them."""

from __future__ import annotations

from tests.helpers.accuracy_faults import inputs, operators, scales
from tests.helpers.accuracy_faults.exported import GraphFault
from tests.helpers.accuracy_faults.fault import Fault

FAULTS: tuple[Fault, ...] = (
    *(scales.activation_scale(factor) for factor in (1 / 4, 4, 4096)),
    *(scales.weight_scale(factor) for factor in (1 / 4, 4)),
    *(scales.weight_scale_alone(factor) for factor in (1 / 4, 4)),
    inputs.blank_calibration(),
    inputs.noise_calibration(),
    inputs.one_sample_calibration(),
    GraphFault("q and k swapped", operators.swapped_q_and_k),
    GraphFault("bias lost", operators.lost_bias),
    GraphFault("QuickGELU for GELU", operators.quick_gelu),
    GraphFault("GELU lost", operators.no_gelu),
    GraphFault("causal mask lost", operators.missing_causal_mask),
    GraphFault("attention scale lost", operators.lost_attention_scale),
    GraphFault("pooled at another token", operators.wrong_token),
    GraphFault("normalisation skipped", operators.skipped_norm),
    GraphFault("gain of a normalisation lost", operators.lost_gain),
    inputs.wrong_mean(),
    inputs.swapped_channels(),
    GraphFault("FP16 overflow of a residual", operators.residual_overflow),
    GraphFault("FP16 overflow of an accumulation", operators.accumulation_overflow),
    GraphFault("projection transposed", operators.transposed_projection),
    inputs.corrupted_row(),
    inputs.truncated_text(),
)


def fault_of(kind: str) -> Fault:
    """The fault of that kind."""
    return next(fault for fault in FAULTS if fault.kind == kind)
