"""Batch normalisation folded into the convolution before it, so that what is quantized is what the engine multiplies by.

Exporters fold it too, after quantization: then each weight is rounded twice, by a scale that was not made for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.errors import BuildFailed

if TYPE_CHECKING:
    from torch import Tensor, nn

_ROUNDING = 1e-3  # of the largest output; sums of other weights in another order, in FP32


def fold_batch_norms(encoder: nn.Module) -> int:
    """Fold, in place, each `BatchNorm2d` that reads one `Conv2d` alone into that convolution. For inference.

    Who reads whom is seen by running the encoder once. Embeddings stay equal to FP32 rounding.

    Returns:
        How many were folded.
    Raises:
        BuildFailed: the embeddings moved: something beside the normalisation reads a convolution.
    """
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    if not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules()):
        return 0
    before, pairs = _seen(encoder)
    for convolution, norm in pairs:
        _replace(encoder, convolution, fuse_conv_bn_eval(convolution, norm))
        _replace(encoder, norm, nn.Identity())
    _require_same(before, _seen(encoder)[0], len(pairs))
    return len(pairs)


def _seen(encoder: Any) -> tuple[Tensor, list[tuple[Any, Any]]]:
    """What the encoder makes of one row of noise, and each normalisation with the convolution whose output it read."""
    import torch
    from torch import nn

    made_by: dict[int, tuple[Any, Tensor]] = {}  # the tensor is kept, so that no other takes its address
    pairs: list[tuple[Any, Any]] = []

    def made(module: Any, _: Any, output: Tensor) -> None:
        made_by[id(output)] = (module, output)

    def read(module: Any, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made_by:
            pairs.append((made_by[id(inputs[0])][0], module))

    hooks = [module.register_forward_hook(made) for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    hooks += [module.register_forward_pre_hook(read) for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    try:
        with torch.inference_mode():
            rows = torch.randn(1, *encoder.row_shape, generator=torch.Generator().manual_seed(0))
            return encoder(rows), pairs
    finally:
        for hook in hooks:
            hook.remove()


def _replace(encoder: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in encoder.modules():
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)


def _require_same(before: Tensor, after: Tensor, count: int) -> None:
    moved = float((before - after).abs().max() / before.abs().max())
    if not moved <= _ROUNDING:
        raise BuildFailed(
            f"folding {count} batch normalisations moved the embedding by {moved:.1e} of its largest number; expected at most "
            f"{_ROUNDING:.0e}; something beside the normalisation reads a convolution; choose recipe fp16 for this encoder"
        )
