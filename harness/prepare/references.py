"""What engines are compared with, by PyTorch in FP32 on the CPU: the untouched encoder, and the one with Model Optimizer's quantizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import UnusableInputs
from harness.prepare.attention import unpack_attention
from harness.prepare.batch_norm import fold_batch_norms
from harness.prepare.checkpoint import load_encoder
from harness.prepare.export import input_name
from harness.prepare.quantize import quantize
from harness.prepare.ranges import watched
from harness.records.observations import EncoderInputs, Float32Array
from harness.records.spec import EncoderSpec, Recipe

if TYPE_CHECKING:
    from torch import nn

REFERENCE_BATCH = 16  # rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReferenceRows:
    """What an encoder makes of its inputs.

    Attributes:
        rows: float32 [n, dim], not normalised.
        logit_scale: what the model multiplies cosines with before its softmax.
    """

    rows: Float32Array
    logit_scale: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantizedRows:
    """What an encoder with quantizers makes of its inputs.

    Attributes:
        rows: float32 [n, dim], not normalised.
        quantizers, shares: as in `RangeUse`.
    """

    rows: Float32Array
    quantizers: tuple[str, ...]
    shares: Float32Array


def exact_rows(spec: EncoderSpec, inputs: EncoderInputs) -> ReferenceRows:
    """What the untouched encoder makes of `inputs`.

    Raises:
        UnusableInputs: the inputs are of the other tower.
    """
    require_tower(inputs, spec)
    encoder: Any = load_encoder(spec)
    return ReferenceRows(rows=_run(encoder, inputs), logit_scale=encoder.logit_scale)


def fake_quant_rows(spec: EncoderSpec, recipe: Recipe, calibration: EncoderInputs, inputs: EncoderInputs) -> QuantizedRows:
    """What the encoder makes of `inputs` with the recipe's quantizers in place, all else in FP32.

    It says what quantization alone costs. What an engine loses beyond that is the exporter's and the compiler's.

    Raises:
        UnusableInputs: inputs or calibration rows are of the other tower.
        UnsupportedRecipe, BuildFailed: see `quantize`.
    """
    require_tower(calibration, spec)
    require_tower(inputs, spec)
    encoder = load_encoder(spec)
    unpack_attention(encoder)
    if recipe is not Recipe.MODELOPT:
        fold_batch_norms(encoder)
    quantize(encoder, recipe, calibration)
    with watched(encoder) as watch:
        rows = _run(encoder, inputs)
    return QuantizedRows(rows=rows, quantizers=watch.quantizers, shares=watch.shares(len(inputs)))


def require_tower(inputs: EncoderInputs, spec: EncoderSpec) -> None:
    """Refuse inputs of the other tower.

    Raises:
        UnusableInputs: they are.
    """
    if inputs.name != input_name(spec):
        raise UnusableInputs(f"{spec.name} takes {input_name(spec)!r} and was given {inputs.name!r}; make the inputs for this encoder")


def _run(encoder: nn.Module, inputs: EncoderInputs) -> Float32Array:
    import torch

    with torch.inference_mode():
        parts = [encoder(_as_fp32(batch)) for batch in torch.from_numpy(inputs.rows).split(REFERENCE_BATCH)]
        return torch.cat(parts).numpy().astype(np.float32)


def _as_fp32(batch: Any) -> Any:
    return batch.float() if batch.is_floating_point() else batch
