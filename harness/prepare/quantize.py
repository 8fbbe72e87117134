"""FP8 fake quantization by Model Optimizer: which quantizers are on, and the scales they got."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BuildFailed
from harness.prepare.vendor_log import import_quietly, quiet_to
from harness.records.observations import EncoderInputs
from harness.records.spec import Recipe

if TYPE_CHECKING:
    from torch import nn

CALIBRATION_BATCH = 16  # rows; the largest activation seen does not depend on it


def quantize(encoder: nn.Module, recipe: Recipe, calibration: EncoderInputs, *, log: Path | None = None) -> dict[str, float]:
    """Insert Model Optimizer's FP8 (E4M3) quantizers into `encoder`, in place, and calibrate them in FP32.

    Static scales, one a tensor, from the largest magnitude seen.

    Args:
        encoder: FP32, its attention unpacked.
        recipe: `modelopt` is NVIDIA's preset as it is; `linear` keeps only the preset's quantizers of block Linear layers.
        log: file for what Model Optimizer prints; None discards it.
    Returns:
        The largest magnitude of each quantizer that is on, by its module path; FP8's scale is this over 448.
    Raises:
        BuildFailed: no Linear layer was quantized, one that the recipe promises was not, or a magnitude is no positive number.
    """
    promised = block_linears(encoder) if recipe is Recipe.LINEAR else []
    if recipe is Recipe.LINEAR and not promised:
        raise BuildFailed(_nothing_to_quantize("the encoder has no repeated blocks with Linear layers"))
    mtq = import_quietly("modelopt.torch.quantization", to="quantize the encoder")
    config = copy.deepcopy(mtq.FP8_DEFAULT_CFG)
    if recipe is Recipe.LINEAR:
        config["quant_cfg"] += _only(promised, config["quant_cfg"])
    with quiet_to(log):
        _calibrate(mtq, encoder, config, calibration)
    amax = dict(_amax(encoder))
    _require_quantized(encoder, promised, amax)
    return amax


def block_linears(encoder: nn.Module) -> list[str]:
    """Paths of the `nn.Linear` modules inside repeated blocks, in order.

    A repeated block is a child of a ModuleList or Sequential whose children are all of one class and hold Linear layers
    themselves. So the towers of open_clip and of timm are covered without their names, and a final projection is not.
    """
    from torch import nn

    inside = [path for path, module in encoder.named_modules() if _repeats_blocks(module)]
    return [
        path
        for path, module in encoder.named_modules()
        if isinstance(module, nn.Linear) and any(path.startswith(f"{blocks}.") for blocks in inside)
    ]


def _repeats_blocks(module: nn.Module) -> bool:
    from torch import nn

    children = list(module.children())
    if not isinstance(module, nn.ModuleList | nn.Sequential) or len({type(child) for child in children}) != 1:
        return False
    return all(not isinstance(child, nn.Linear) and _holds_linear(child) for child in children)


def _holds_linear(module: nn.Module) -> bool:
    from torch import nn

    return any(isinstance(inner, nn.Linear) for inner in module.modules())


def _only(paths: list[str], preset: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries that, after the preset's own, switch everything off and then these Linear layers on, with the preset's settings."""
    settings = {entry["quantizer_name"]: entry["cfg"] for entry in preset if "cfg" in entry}
    on = [
        {"quantizer_name": f"{path}.{quantizer}", "cfg": settings[f"*{quantizer}"]}
        for path in paths
        for quantizer in ("weight_quantizer", "input_quantizer")
    ]
    return [{"quantizer_name": "*", "enable": False}, *on]


def _nothing_to_quantize(found: str) -> str:
    return f"{found}; expected q, k, v, out, fc and proj of each block; choose a transformer tower, and unpack its attention first"


def _calibrate(mtq: Any, encoder: nn.Module, config: dict[str, Any], calibration: EncoderInputs) -> None:
    try:
        mtq.quantize(encoder, config, forward_loop=lambda model: _feed(model, calibration))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise BuildFailed(f"Model Optimizer could not quantize the encoder: {type(error).__name__}: {error}") from error


def _feed(model: nn.Module, calibration: EncoderInputs) -> None:
    import torch

    rows = torch.from_numpy(calibration.rows)
    with torch.inference_mode():
        for batch in rows.split(CALIBRATION_BATCH):
            model(batch.float() if batch.is_floating_point() else batch)


def _amax(encoder: nn.Module) -> Iterator[tuple[str, float]]:
    from modelopt.torch.quantization.nn import TensorQuantizer

    for path, module in encoder.named_modules():
        if isinstance(module, TensorQuantizer) and module.is_enabled and module.amax is not None:
            amax: Any = module.amax
            yield path, float(amax.max())


def _require_quantized(encoder: nn.Module, promised: list[str], amax: dict[str, float]) -> None:
    from torch import nn

    linears = [path for path, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    quantized = [path for path in linears if {f"{path}.weight_quantizer", f"{path}.input_quantizer"} <= amax.keys()]
    if not quantized:
        raise BuildFailed(_nothing_to_quantize(f"Model Optimizer quantized none of the encoder's {len(linears)} Linear layers"))
    missed = sorted(set(promised) - set(quantized))
    if missed:
        raise BuildFailed(
            f"Model Optimizer left {len(missed)} of {len(promised)} block Linear layers alone, first {missed[0]}; expected all"
        )
    bad = [path for path, value in amax.items() if not (math.isfinite(value) and value > 0)]
    if bad:
        raise BuildFailed(
            f"{len(bad)} of {len(amax)} quantizers saw no usable magnitude, first {bad[0]} with {amax[bad[0]]}; "
            "expected positive, finite numbers; look at the weights and the calibration inputs"
        )
