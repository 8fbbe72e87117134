"""The whole way from a name to a checked ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BuildFailed, UnusableInputs
from harness.prepare.attention import unpack_attention
from harness.prepare.batch_norm import fold_batch_norms
from harness.prepare.checkpoint import load_encoder
from harness.prepare.export import export_onnx
from harness.prepare.quantize import quantize
from harness.prepare.references import require_tower
from harness.prepare.repair.all_repairs import repair
from harness.prepare.repair.originals import Originals
from harness.prepare.tidy import tidy
from harness.prepare.vendor_log import quiet_to
from harness.records.artifacts import Repair
from harness.records.observations import EncoderInputs
from harness.records.spec import EncoderSpec, Recipe

if TYPE_CHECKING:
    from torch import nn

ONNX_FILE = "model.onnx"
LOG_FILE = "prepare.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFacts:
    """What is to be known about an ONNX file that was made.

    Attributes:
        opset: of the ai.onnx domain.
        repairs: exporter faults that were mended, in order.
        amax: largest magnitude that each quantizer saw, by its module path; FP8's scale is this over 448.
    """

    opset: int
    repairs: tuple[Repair, ...] = ()
    amax: Mapping[str, float] = field(default_factory=dict)


def make_onnx(spec: EncoderSpec, recipe: Recipe, calibration: EncoderInputs | None, folder: Path) -> OnnxFacts:
    """Write `model.onnx` and `prepare.log`, the vendors' own output, into `folder`.

    Args:
        calibration: rows of this encoder that set the activation scales; not read for `fp16`.
    Raises:
        UnusableInputs: a quantized recipe without calibration rows, or with those of the other tower.
        UnusableCheckpoint, UnknownName: see `load_encoder`.
        UnsupportedRecipe: the encoder has nothing of what the recipe quantizes.
        BuildFailed: quantization or export stopped, or the result is no valid ONNX.
    """
    log = folder / LOG_FILE
    path = folder / ONNX_FILE
    encoder = load_encoder(spec, log=log)
    unpack_attention(encoder)
    if recipe is not Recipe.MODELOPT:  # which shows the vendor's pipeline as it is
        fold_batch_norms(encoder)
    amax = quantize(encoder, recipe, _fitting(calibration, spec, recipe), log=log) if recipe.is_quantized else {}
    export_onnx(encoder, spec, path, log=log)
    repairs = () if recipe is Recipe.MODELOPT else _finish(path, encoder, log)
    return OnnxFacts(opset=_opset(path), repairs=repairs, amax=amax)


def _fitting(calibration: EncoderInputs | None, spec: EncoderSpec, recipe: Recipe) -> EncoderInputs:
    if calibration is None:
        raise UnusableInputs(f"recipe {recipe} of {spec.name} got no calibration rows; expected some; they set the activation scales")
    require_tower(calibration, spec)
    return calibration


def _finish(path: Path, encoder: Any, log: Path) -> tuple[Repair, ...]:
    import onnx

    with quiet_to(log):
        model = onnx.load(path)
        repairs = repair(model, _originals(encoder))
        tidy(model, dim=encoder.dim)
        onnx.save(model, path)
        _require_valid(path)
    return repairs


def _originals(encoder: nn.Module) -> Originals:
    return {name: parameter.detach().numpy() for name, parameter in encoder.named_parameters()}


def _require_valid(path: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BuildFailed(
            f"the exported graph is no valid ONNX after all repairs: {str(error)[:400]}; "
            f"the exporter has a fault that harness.prepare.repair does not know; {path} is left to look at"
        ) from error


def _opset(path: Path) -> int:
    import onnx

    imports = onnx.load(path, load_external_data=False).opset_import
    return next(opset.version for opset in imports if opset.domain in ("", "ai.onnx"))
