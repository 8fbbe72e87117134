"""All repairs, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.prepare.repair.file_format import scalar_zero_point, stale_types, standard_domain
from harness.prepare.repair.float_casts import float_casts
from harness.prepare.repair.originals import Originals
from harness.prepare.repair.placement import softmax_without_v, weight_only_convolution
from harness.prepare.repair.zero_scales import zero_scales
from harness.records.artifacts import Repair

if TYPE_CHECKING:
    from onnx import ModelProto

REPAIRS: tuple[Callable[[ModelProto, Originals], Repair | None], ...] = (
    standard_domain,
    scalar_zero_point,
    softmax_without_v,
    weight_only_convolution,
    float_casts,
    zero_scales,  # after float_casts, which may round a scale to zero
    stale_types,  # last, since it infers types through the nodes that the others mended
)


def repair(model: ModelProto, originals: Originals) -> tuple[Repair, ...]:
    """Apply every repair of `REPAIRS`, in order, in place; returns those that found something.

    Args:
        originals: the encoder's weights before quantization, by parameter name, for what the exporter quantized unasked.
    Raises:
        BuildFailed: a weight to put back is not among `originals`, or a scale is zero where nothing says what it should be.
    """
    done = (step(model, originals) for step in REPAIRS)
    return tuple(mended for mended in done if mended is not None)
