"""FP8 fake quantization by Model Optimizer: which quantizers are on, and the scales they got."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BuildFailed, UnsupportedRecipe
from harness.prepare.attending import attend
from harness.prepare.attention import unpacked_classes
from harness.prepare.vendor_log import import_quietly, quiet_to
from harness.records.observations import EncoderInputs
from harness.records.spec import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

CALIBRATION_BATCH = 16  # rows; the largest activation seen does not depend on it
SOFTMAX_AMAX = 1.0  # what a softmax can reach, whatever it is fed: FP8's scale is then 1/448, with no need of calibration

# Quantizers of one attention, under the names that Model Optimizer gives them in its own quantized attentions.
_SOFTMAX_QUANTIZER = "softmax_quantizer"
_ATTENTION_QUANTIZERS = ("q_bmm_quantizer", "k_bmm_quantizer", "v_bmm_quantizer", _SOFTMAX_QUANTIZER)
_WEIGHT_QUANTIZER = "weight_quantizer"
_LINEAR_QUANTIZERS = (_WEIGHT_QUANTIZER, "input_quantizer")
_WITH_ATTENTION = frozenset({Recipe.ATTENTION, Recipe.COMPACT})


def quantize(encoder: nn.Module, recipe: Recipe, calibration: EncoderInputs, *, log: Path | None = None) -> dict[str, float]:
    """Insert Model Optimizer's FP8 (E4M3) quantizers into `encoder`, in place, and calibrate them in FP32.

    Static scales, one a tensor, from the largest magnitude seen; that of a softmax from the largest it can give. In a tower whose
    repeated blocks have convolutions in place of Linear layers, such as a ResNet, every convolution of these is quantized.

    Args:
        encoder: FP32, its attention unpacked.
        recipe: `modelopt` is NVIDIA's preset as it is; `linear` keeps only the preset's quantizers of block Linear layers;
            `attention` adds the operands of each block's two attention products: scaled q, k, the softmax's output, and v;
            `compact` adds the token embedding's table to those, with one scale.
        log: file for what Model Optimizer prints; None discards it.
    Returns:
        The largest magnitude of each quantizer that is on, by its module path; FP8's scale is this over 448.
    Raises:
        UnsupportedRecipe: the encoder has nothing of what the recipe quantizes.
        BuildFailed: no layer was quantized, a quantizer that the recipe promises is missing, or a magnitude is no
            positive number.
    """
    promised = _promised(encoder, recipe)
    mtq = import_quietly("modelopt.torch.quantization", to="quantize the encoder")
    config = copy.deepcopy(mtq.FP8_DEFAULT_CFG)
    if promised:
        config["quant_cfg"] += _only(promised, config["quant_cfg"])
    with quiet_to(log), _quantized_attention(mtq, recipe):
        _calibrate(mtq, encoder, config, calibration)
    amax = dict(_amax(encoder))
    _require_quantized(encoder, promised, amax)
    return amax


def _promised(encoder: nn.Module, recipe: Recipe) -> list[str]:
    """Paths of the quantizers that a recipe of ours puts in; none for the vendor's, which promises nothing to us."""
    if recipe is Recipe.MODELOPT:
        return []
    layers = block_linears(encoder) or block_convolutions(encoder)
    if not layers:
        raise UnsupportedRecipe(_nothing_to_quantize("the encoder has no repeated blocks with Linear layers or convolutions"))
    attentions = block_attentions(encoder) if recipe in _WITH_ATTENTION else []
    if recipe in _WITH_ATTENTION and not attentions:
        raise UnsupportedRecipe(
            f"recipe {recipe} quantizes the products of unpacked attention, and none of the encoder's blocks has one; expected "
            "nn.MultiheadAttention, or open_clip's or timm's plain attention; choose recipe linear for this encoder"
        )
    return [
        *(f"{path}.{quantizer}" for path in layers for quantizer in _LINEAR_QUANTIZERS),
        *(f"{path}.{quantizer}" for path in attentions for quantizer in _ATTENTION_QUANTIZERS),
        *(f"{path}.{_WEIGHT_QUANTIZER}" for path in _tables(encoder, recipe)),
    ]


def block_linears(encoder: nn.Module) -> list[str]:
    """Paths of the `nn.Linear` modules inside repeated blocks, in order.

    A repeated block is a child of a ModuleList or Sequential whose children are all of one class and hold such layers
    themselves. So the towers of open_clip and of timm are covered without their names, and a final projection is not.
    """
    from torch import nn

    return _inside_blocks(encoder, nn.Linear)


def block_convolutions(encoder: nn.Module) -> list[str]:
    """Paths of the `nn.Conv2d` modules inside repeated blocks, in order. A stem before the blocks is in none."""
    from torch import nn

    return _inside_blocks(encoder, nn.Conv2d)


def repeated_blocks(encoder: nn.Module) -> list[nn.Module]:
    """The repeated blocks themselves, in the order in which they are declared; of blocks within blocks, the inner ones."""
    from torch import nn

    for kinds in (nn.Linear, nn.Conv2d):
        holders = [module for module in encoder.modules() if _repeats_blocks(module, kinds)]
        inner = [holder for holder in holders if not any(other in holders for other in list(holder.modules())[1:])]
        if inner:
            return [child for holder in inner for child in holder.children()]
    return []


def block_attentions(encoder: nn.Module) -> list[str]:
    """Paths of the unpacked attentions inside repeated blocks, in order. What pools tokens after the last block is none."""
    return _inside_blocks(encoder, unpacked_classes())


def token_tables(encoder: nn.Module) -> list[str]:
    """Paths of the `nn.Embedding` modules, in order. Positions are plain parameters in open_clip's towers, and none of them."""
    from torch import nn

    return [path for path, module in encoder.named_modules() if isinstance(module, nn.Embedding)]


def _tables(encoder: nn.Module, recipe: Recipe) -> list[str]:
    tables = token_tables(encoder) if recipe is Recipe.COMPACT else []
    if recipe is Recipe.COMPACT and not tables:
        raise UnsupportedRecipe(
            "recipe compact quantizes the token embedding, and the encoder has none; expected an nn.Embedding, as text towers have; "
            "choose recipe attention for this encoder"
        )
    return tables


def _inside_blocks(encoder: nn.Module, kinds: type[Any] | tuple[type[Any], ...]) -> list[str]:
    inside = [path for path, module in encoder.named_modules() if _repeats_blocks(module, kinds)]
    return [
        path
        for path, module in encoder.named_modules()
        if isinstance(module, kinds) and any(path.startswith(f"{blocks}.") for blocks in inside)
    ]


def _repeats_blocks(module: nn.Module, kinds: type[Any] | tuple[type[Any], ...]) -> bool:
    from torch import nn

    children = list(module.children())
    if not isinstance(module, nn.ModuleList | nn.Sequential) or len({type(child) for child in children}) != 1:
        return False
    return all(not isinstance(child, kinds) and any(isinstance(inner, kinds) for inner in child.modules()) for child in children)


def _only(promised: list[str], preset: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries that, after the preset's own, switch everything off and then these quantizers on, with the preset's settings."""
    settings = {entry["quantizer_name"]: entry["cfg"] for entry in preset if "cfg" in entry}
    activation = settings["*input_quantizer"]
    settings |= {f"*{quantizer}": activation for quantizer in _ATTENTION_QUANTIZERS}
    settings[f"*{_SOFTMAX_QUANTIZER}"] = {**activation, "constant_amax": SOFTMAX_AMAX}
    on = [{"quantizer_name": path, "cfg": settings[f"*{path.rpartition('.')[2]}"]} for path in promised]
    return [{"quantizer_name": "*", "enable": False}, *on]


@contextmanager
def _quantized_attention(mtq: Any, recipe: Recipe) -> Iterator[None]:
    """Make our unpacked attention known to Model Optimizer, by its own registry, for as long as it quantizes."""
    if recipe not in _WITH_ATTENTION:  # other recipes would get quantizers too, switched off, and other bytes for nothing
        yield
        return
    classes = unpacked_classes()
    for unpacked in classes:
        mtq.register(original_cls=unpacked, quantized_cls=_quantized_class())
    try:
        yield
    finally:
        for unpacked in classes:
            mtq.unregister(unpacked)


def _quantized_class() -> type[Any]:
    """Model Optimizer makes a class that inherits from this one and from the unpacked attention, in that order."""
    from modelopt.torch.quantization.nn import QuantModule, TensorQuantizer

    class QuantizedAttention(QuantModule):
        def _setup(self, **_: Any) -> None:
            for name in _ATTENTION_QUANTIZERS:
                setattr(self, name, TensorQuantizer())

        def attend(self: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
            q, k, v = self.q_bmm_quantizer(q), self.k_bmm_quantizer(k), self.v_bmm_quantizer(v)
            return attend(q, k, v, mask, on_weights=self.softmax_quantizer)

    return QuantizedAttention


def _nothing_to_quantize(found: str) -> str:
    return (
        f"{found}; expected q, k, v, out, fc and proj of each block, or a ResNet's convolutions; choose recipe fp16 for this encoder, or "
        "unpack its attention first"
    )


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


def activation_quantizers(encoder: nn.Module) -> Iterator[tuple[str, nn.Module, float]]:
    """The quantizers of a quantized encoder that are on and are fed what it computes: path, module and calibrated magnitude."""
    return ((path, module, amax) for path, module, amax in _quantizers(encoder) if not path.endswith(_WEIGHT_QUANTIZER))


def _amax(encoder: nn.Module) -> Iterator[tuple[str, float]]:
    return ((path, amax) for path, _, amax in _quantizers(encoder))


def _quantizers(encoder: nn.Module) -> Iterator[tuple[str, nn.Module, float]]:
    from modelopt.torch.quantization.nn import TensorQuantizer

    for path, module in encoder.named_modules():
        if isinstance(module, TensorQuantizer) and module.is_enabled and module.amax is not None:
            amax: Any = module.amax
            yield path, module, float(amax.max())


def _require_quantized(encoder: nn.Module, promised: list[str], amax: dict[str, float]) -> None:
    from torch import nn

    layers = [path for path, module in encoder.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    quantized = [path for path in layers if {f"{path}.{quantizer}" for quantizer in _LINEAR_QUANTIZERS} <= amax.keys()]
    if not quantized:
        raise BuildFailed(
            _nothing_to_quantize(f"Model Optimizer quantized none of the encoder's {len(layers)} Linear layers and convolutions")
        )
    missed = sorted(set(promised) - amax.keys())
    if missed:
        raise BuildFailed(f"Model Optimizer left {len(missed)} of {len(promised)} promised quantizers out, first {missed[0]}; expected all")
    bad = [path for path, value in amax.items() if not (math.isfinite(value) and value > 0)]
    if bad:
        raise BuildFailed(
            f"{len(bad)} of {len(amax)} quantizers saw no usable magnitude, first {bad[0]} with {amax[bad[0]]}; "
            "expected positive, finite numbers; look at the weights and the calibration inputs"
        )
