"""The attention that pools a tower's tokens, in a form whose sizes are known when it is exported.

As open_clip and timm write them, the exported graph computes the pooling's sizes from the batch with dozens of nodes, through which
no tool infers shapes. Weights and embeddings stay as they are.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from harness.prepare.attending import attend, join, split

if TYPE_CHECKING:
    from torch import Tensor, nn

_OF_GRID = ("q_proj", "k_proj", "v_proj", "c_proj", "positional_embedding")
_OF_LATENT = ("latent", "pos_embed", "q", "kv", "q_norm", "k_norm", "proj", "norm", "mlp")


def unpack_grid_pool(packed: Any) -> nn.Module:
    """open_clip's `AttentionPool2d`, which pools the last feature map of a ResNet into its mean's token."""
    pool = _grid_pool_class()()
    pool.heads = packed.num_heads
    return _with_parts(pool, packed, _OF_GRID)


def unpack_latent_pool(packed: Any) -> nn.Module:
    """The `AttentionPoolLatent` of timm, which pools tokens into learned ones."""
    pool = _latent_pool_class()()
    pool.heads, pool.mode = packed.num_heads, packed.pool
    return _with_parts(pool, packed, _OF_LATENT)


def _with_parts(pool: Any, packed: Any, names: tuple[str, ...]) -> nn.Module:
    for name in names:
        setattr(pool, name, getattr(packed, name))
    return pool.train(packed.training)


# The two classes are made on first use, since this module is imported where torch must not be.


@cache
def _grid_pool_class() -> type[Any]:
    from torch import nn

    class UnpackedGridPool(nn.Module):
        forward = _grid_forward

    return UnpackedGridPool


@cache
def _latent_pool_class() -> type[Any]:
    from torch import nn

    class UnpackedLatentPool(nn.Module):
        forward = _latent_forward

    return UnpackedLatentPool


def _grid_forward(self: Any, x: Tensor) -> Tensor:
    """[batch, width, height, width] to [batch, dim]."""
    import torch

    width, places = int(x.shape[1]), int(x.shape[2]) * int(x.shape[3])
    x = x.reshape(-1, width, places).transpose(1, 2)
    x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding.to(x.dtype)
    q, k, v = (split(part, self.heads) for part in (self.q_proj(x), self.k_proj(x), self.v_proj(x)))
    return self.c_proj(join(attend(_scaled(q), k, v, None)))[:, 0]


def _latent_forward(self: Any, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """[batch, tokens, width] to [batch, width], or to [batch, latents, width] where nothing pools those."""
    if self.pos_embed is not None:
        x = x + self.pos_embed.unsqueeze(0).to(x.dtype)
    # The queries are the same for each row of the batch, so there is one row of them, and the product repeats it.
    q = self.q_norm(split(self.q(self.latent), self.heads))
    k, v = (split(part, self.heads) for part in self.kv(x).chunk(2, dim=-1))
    x = self.proj(join(attend(_scaled(q), self.k_norm(k), v, attn_mask)))
    if self.mlp is not None:
        x = x + self.mlp(self.norm(x))
    if self.mode == "token":
        return x[:, 0]
    return x.mean(1) if self.mode == "avg" else x


def _scaled(q: Tensor) -> Tensor:
    return q * int(q.shape[-1]) ** -0.5
