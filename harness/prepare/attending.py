"""The arithmetic of explicit attention, over sizes that are constants in the exported graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, on_weights: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """[batch, heads, tokens, head] of each. q is scaled already: TensorRT fuses attention whose scale comes before the product.

    Args:
        on_weights: what to make of the softmax's output before it meets v, such as fake quantization.
    """
    scores = q @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores + _additive(mask, scores)
    weights = scores.softmax(dim=-1)
    return (weights if on_weights is None else on_weights(weights)) @ v


def _additive(mask: Tensor, scores: Tensor) -> Tensor:
    """A mask to add: [tokens, tokens], or [batch * heads, tokens, tokens]; boolean ones are True where nothing may look."""
    import torch

    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(mask, float("-inf"))
    if mask.dim() == 3:
        mask = mask.reshape(-1, *(int(size) for size in scores.shape[1:]))
    return mask.to(scores.dtype)


# Only the batch is dynamic. Every other size is made a Python number, so that the exported Reshape has a constant shape and
# not a dozen Shape, Gather and Concat nodes around it.


def split(x: Tensor, heads: int) -> Tensor:
    """[batch, tokens, width] to [batch, heads, tokens, head]."""
    tokens, width = int(x.shape[1]), int(x.shape[2])
    return x.reshape(-1, tokens, heads, width // heads).transpose(1, 2)


def join(x: Tensor) -> Tensor:
    """[batch, heads, tokens, head] to [batch, tokens, width]."""
    heads, tokens, width = (int(size) for size in x.shape[1:])
    return x.transpose(1, 2).reshape(-1, tokens, heads * width)
