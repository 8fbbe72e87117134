"""Attention with visible projections: q, k, v and out as Linear layers, so that they can be quantized and exported one by one.

`nn.MultiheadAttention` keeps its projections in one bare parameter and calls them as functions. Model Optimizer quantizes
modules, so it would pass over three of a block's six weight matrices without a word. timm's attention has modules, and calls
the two products of activations, which recipe `attention` quantizes, where nothing can reach them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.prepare.attending import attend, join, split
from harness.prepare.pooling import unpack_grid_pool, unpack_latent_pool
from harness.prepare.vendor_log import import_quietly

if TYPE_CHECKING:
    from torch import Tensor, nn


def unpack_attention(encoder: nn.Module) -> int:
    """Replace each packed attention of `encoder`, in place, by one whose q, k, v and out are `nn.Linear`.

    Concerns `nn.MultiheadAttention`, open_clip's own and timm's `Attention`, and the attention pooling of both. For inference:
    dropout is left out. Embeddings stay equal to float32 rounding.

    Returns:
        How many were replaced.
    Raises:
        UsageError: attention with extra key and value rows, or scaled cosine attention, which have no such form.
    """
    places = list(_packed_attention(encoder))
    for parent, name, unpack in places:
        setattr(parent, name, unpack(getattr(parent, name)))
    _ask_timm_for_explicit_softmax(encoder)
    return len(places)


def unpacked_classes() -> tuple[type[Any], ...]:
    """The classes that `unpack_attention` puts in place. Each computes its products in `attend`, which a subclass may replace."""
    return _multihead_class(), _self_attention_class()


def _packed_attention(encoder: nn.Module) -> Iterator[tuple[nn.Module, str, Callable[[Any], nn.Module]]]:
    from torch import nn

    unpack: dict[type[Any], Callable[[Any], nn.Module]] = {
        nn.MultiheadAttention: _unpack_multihead,
        _class("open_clip.transformer", "Attention"): _unpack_open_clip,
        _class("timm.models.vision_transformer", "Attention"): _unpack_timm,
        _class("open_clip.modified_resnet", "AttentionPool2d"): unpack_grid_pool,
        _class("timm.layers.attention_pool", "AttentionPoolLatent"): unpack_latent_pool,
    }
    for parent in encoder.modules():
        for name, child in parent.named_children():
            kind = next((kind for kind in unpack if isinstance(child, kind) and type(child).forward is kind.forward), None)
            if kind is not None and getattr(child, "gate", None) is None:  # timm's gated attention has no such form; it stays as it is
                yield parent, name, unpack[kind]


def _class(module: str, name: str) -> type[Any]:
    return getattr(import_quietly(module, to="read the encoder's attention"), name)


def _ask_timm_for_explicit_softmax(encoder: nn.Module) -> None:
    # What is left of timm's attentions has a switch between torch's fused operator, which exports with the scale split over q
    # and k, and the explicit form.
    switches: list[Any] = [module for module in encoder.modules() if hasattr(module, "fused_attn")]
    for module in switches:
        module.fused_attn = False


def _unpack_multihead(packed: nn.MultiheadAttention) -> nn.Module:
    if packed.bias_k is not None or packed.add_zero_attn:
        raise UsageError(
            "nn.MultiheadAttention with bias_k or add_zero_attn cannot be unpacked into q, k, v and out; "
            "expected plain attention; use an open_clip configuration without it"
        )
    weights = (
        packed.in_proj_weight.chunk(3)
        if packed.in_proj_weight is not None
        else (packed.q_proj_weight, packed.k_proj_weight, packed.v_proj_weight)
    )
    unpacked = _multihead_class()()
    _take_projections(unpacked, weights, packed.in_proj_bias, packed.out_proj, packed.num_heads)
    unpacked.batch_first = packed.batch_first
    return unpacked.train(packed.training)


def _unpack_open_clip(packed: Any) -> nn.Module:
    if packed.logit_scale is not None:
        raise UsageError(
            "open_clip's scaled cosine attention cannot be unpacked into q, k, v and out; "
            "expected attention scaled by the head size; use another configuration"
        )
    unpacked = _self_attention_class()()
    _take_projections(unpacked, packed.in_proj_weight.chunk(3), packed.in_proj_bias, packed.out_proj, packed.num_heads)
    for name in ("ln_q", "ln_k", "ln_inner", "head_scale"):
        setattr(unpacked, name, getattr(packed, name))
    return unpacked.train(packed.training)


def _unpack_timm(packed: Any) -> nn.Module:
    unpacked = _self_attention_class()()
    _take_projections(unpacked, packed.qkv.weight.chunk(3), packed.qkv.bias, packed.proj, packed.num_heads)
    unpacked.ln_q, unpacked.ln_k, unpacked.ln_inner, unpacked.head_scale = packed.q_norm, packed.k_norm, packed.norm, None
    return unpacked.train(packed.training)


def _take_projections(unpacked: Any, weights: tuple[Tensor, ...], bias: Tensor | None, out: nn.Linear, heads: int) -> None:
    biases = (None, None, None) if bias is None else bias.chunk(3)
    for name, weight, part in zip("qkv", weights, biases, strict=True):
        setattr(unpacked, name, _linear(weight, part))
    unpacked.out = _linear(out.weight, out.bias)
    unpacked.heads = heads
    unpacked.scale = (weights[0].shape[0] // heads) ** -0.5


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    from torch import nn

    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer


# The two classes are made on first use, since this module is imported where torch must not be.


@cache
def _multihead_class() -> type[Any]:
    from torch import nn

    class UnpackedMultiheadAttention(nn.Module):
        forward = _multihead_forward
        attend = staticmethod(attend)

    return UnpackedMultiheadAttention


@cache
def _self_attention_class() -> type[Any]:
    from torch import nn

    class UnpackedSelfAttention(nn.Module):
        forward = _self_attention_forward
        attend = staticmethod(attend)

    return UnpackedSelfAttention


def _multihead_forward(
    self: Any, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
) -> tuple[Tensor, None]:
    """Called as `nn.MultiheadAttention` is; rows first [batch, tokens, width], or tokens first if the original was so."""
    if need_weights:
        raise UsageError("unpacked attention does not return its weights; expected need_weights=False, as open_clip calls it")
    if not self.batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    q, k, v = (split(x, self.heads) for x in (self.q(query), self.k(key), self.v(value)))
    rows = self.out(join(self.attend(q * self.scale, k, v, attn_mask)))
    return (rows if self.batch_first else rows.transpose(0, 1)), None


def _self_attention_forward(self: Any, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """Called as open_clip's and timm's `Attention` are; [batch, tokens, width]."""
    if is_causal:
        raise UsageError("unpacked attention makes no mask of its own; expected is_causal=False, as open_clip calls timm's towers")
    q, k, v = (split(part, self.heads) for part in (self.q(x), self.k(x), self.v(x)))
    rows = self.attend(self.ln_q(q) * self.scale, self.ln_k(k), v, attn_mask)
    if self.head_scale is not None:
        rows = rows * self.head_scale
    return self.out(self.ln_inner(join(rows)))
