from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.errors import UsageError
from harness.prepare.attention import unpack_attention
from harness.prepare.checkpoint import load_encoder
from harness.prepare.vendor_log import import_quietly
from harness.records.spec import EncoderSpec

ROUNDING = 1e-5  # absolute; embeddings of these encoders are of order 1, and FP32 sums differ in their order


def example(encoder, rows=2):
    generator = torch.Generator().manual_seed(0)
    if len(encoder.row_shape) == 3:
        return torch.randn(rows, *encoder.row_shape, generator=generator)
    return torch.randint(1, 49407, (rows, *encoder.row_shape), generator=generator)


def drift(module, *args, **kwargs):
    """Largest difference that unpacking makes, and how many attentions were unpacked."""
    holder = nn.ModuleList([module]).eval().requires_grad_(False)
    before = module(*args, **kwargs)
    count = unpack_attention(holder)
    after = holder[0](*args, **kwargs)
    first = [rows[0] if isinstance(rows, tuple) else rows for rows in (before, after)]
    return (first[0] - first[1]).abs().max().item(), count


def multihead(**options):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(64, 4, **{"batch_first": True} | options)
    if attention.in_proj_bias is not None:
        nn.init.normal_(attention.in_proj_bias)
    return attention


@pytest.mark.parametrize("tower", ["image", "text"])
def test_vit_b_32_gives_the_same_embeddings_with_twelve_attentions_unpacked(tower):
    encoder = load_encoder(EncoderSpec.parse(f"ViT-B-32/{tower}"))
    rows = example(encoder)
    before = encoder(rows)
    assert unpack_attention(encoder) == 12
    assert (encoder(rows) - before).abs().max() <= ROUNDING


@pytest.mark.parametrize("arch", ["small-clip", "small-custom"])
@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_small_encoder_gives_the_same_embeddings(arch, tower):
    encoder = load_encoder(EncoderSpec.parse(f"{arch}/{tower}"))
    assert drift(encoder, example(encoder)) == (pytest.approx(0, abs=ROUNDING), 2)


@pytest.mark.parametrize(("name", "count"), [("small-siglip/image", 7), ("small-resnet/image", 1)])
def test_towers_that_pool_by_attention_give_the_same_embeddings(name, count):
    encoder = load_encoder(EncoderSpec.parse(name))
    assert drift(encoder, example(encoder)) == (pytest.approx(0, abs=ROUNDING), count)


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"scale_norm": True}, {"qkv_bias": True}, {"attn_head_dim": 8}])
def test_timms_own_attention_gives_the_same(options):
    own = import_quietly("timm.models.vision_transformer", to="test").Attention
    mask = torch.full((5, 5), float("-inf")).triu(1)
    assert drift(own(64, 4, norm_layer=nn.LayerNorm, **options), torch.randn(2, 5, 64), attn_mask=mask) == (
        pytest.approx(0, abs=ROUNDING),
        1,
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"latent_len": 3, "pool_type": "avg"},
        {"pos_embed": "abs", "feat_size": 5},
        {"qk_norm": True, "norm_layer": nn.LayerNorm},
        {"q_proj": False},
    ],
)
def test_timms_pooling_gives_the_same(options):
    own = import_quietly("timm.layers.attention_pool", to="test").AttentionPoolLatent
    assert drift(own(64, num_heads=4, **options), torch.randn(2, 5, 64)) == (pytest.approx(0, abs=ROUNDING), 1)


def test_timms_gated_attention_is_left_as_it_is():
    own = import_quietly("timm.models.vision_transformer", to="test").Attention
    assert drift(own(64, 4, gated=True), torch.randn(2, 5, 64)) == (pytest.approx(0, abs=ROUNDING), 0)


def test_projections_are_linear_layers_under_their_own_names():
    holder = nn.ModuleList([multihead()]).eval()
    unpack_attention(holder)
    assert {name for name, module in holder.named_modules() if type(module) is nn.Linear} == {"0.q", "0.k", "0.v", "0.out"}


def test_rows_may_come_tokens_first():
    x = torch.randn(5, 2, 64)
    assert drift(multihead(batch_first=False), x, x, x, need_weights=False) == (pytest.approx(0, abs=ROUNDING), 1)


def test_projections_without_bias_stay_without():
    x = torch.randn(2, 5, 64)
    assert drift(multihead(bias=False), x, x, x, need_weights=False) == (pytest.approx(0, abs=ROUNDING), 1)


def test_queries_keys_and_values_of_other_lengths_and_widths_are_understood():
    q, k, v = torch.randn(2, 3, 64), torch.randn(2, 7, 48), torch.randn(2, 7, 32)
    assert drift(multihead(kdim=48, vdim=32), q, k, v, need_weights=False) == (pytest.approx(0, abs=ROUNDING), 1)


@pytest.mark.parametrize(
    "mask",
    [
        torch.full((5, 5), float("-inf")).triu(1),
        torch.ones(5, 5, dtype=torch.bool).triu(1),
        torch.randn(2 * 4, 5, 5),
        torch.ones(2 * 4, 5, 5, dtype=torch.bool).triu(2),
    ],
    ids=["additive", "boolean", "additive a head", "boolean a head"],
)
def test_masks_of_every_kind_mean_the_same(mask):
    x = torch.randn(2, 5, 64)
    assert drift(multihead(), x, x, x, need_weights=False, attn_mask=mask) == (pytest.approx(0, abs=ROUNDING), 1)


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_attention_with_extra_rows_is_refused(options):
    with pytest.raises(UsageError, match="cannot be unpacked"):
        unpack_attention(nn.ModuleList([multihead(**options)]))


def test_asking_unpacked_attention_for_its_weights_is_refused():
    holder = nn.ModuleList([multihead()])
    unpack_attention(holder)
    x = torch.randn(2, 5, 64)
    with pytest.raises(UsageError, match="need_weights=False"):
        holder[0](x, x, x, need_weights=True)


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"scale_heads": True}, {"inner_norm": True}, {"qkv_bias": False}])
def test_open_clips_own_attention_gives_the_same(options):
    own = import_quietly("open_clip.transformer", to="test").Attention
    mask = torch.full((5, 5), float("-inf")).triu(1)
    assert drift(own(64, 4, **options), torch.randn(2, 5, 64), attn_mask=mask) == (pytest.approx(0, abs=ROUNDING), 1)


def test_scaled_cosine_attention_is_refused():
    own = import_quietly("open_clip.transformer", to="test").Attention
    with pytest.raises(UsageError, match="scaled cosine"):
        unpack_attention(nn.ModuleList([own(64, 4, scaled_cosine=True)]))
