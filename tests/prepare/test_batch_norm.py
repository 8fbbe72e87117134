from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from harness.errors import BuildFailed
from harness.prepare.batch_norm import fold_batch_norms
from harness.prepare.checkpoint import load_encoder
from harness.records.spec import EncoderSpec


def alive(encoder: Any) -> Any:
    """The encoder with statistics as training leaves them: no two channels alike."""
    generator = torch.Generator().manual_seed(0)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name in ("weight", "bias", "running_mean", "running_var"):
                tensor = getattr(module, name)
                tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5
    return encoder.eval().requires_grad_(False)


def small(*layers):
    encoder: Any = nn.Sequential(*layers)
    encoder.row_shape = (3, 8, 8)
    return alive(encoder)


def test_every_normalisation_of_a_resnet_is_folded_and_embeddings_stay():
    encoder = alive(load_encoder(EncoderSpec.parse("small-resnet/image")))
    rows = torch.randn(2, *encoder.row_shape)
    before = encoder(rows)
    assert fold_batch_norms(encoder) == 19
    assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    assert (encoder(rows) - before).abs().max() <= 1e-4 * before.abs().max()


def test_a_tower_without_normalisations_of_batches_is_left_alone():
    assert fold_batch_norms(load_encoder(EncoderSpec.parse("small-clip/image"))) == 0


def test_a_normalisation_that_reads_no_convolution_stays():
    encoder = small(nn.ReLU(), nn.BatchNorm2d(3))
    assert fold_batch_norms(encoder) == 0
    assert isinstance(encoder[1], nn.BatchNorm2d)


def test_a_convolution_that_something_else_reads_too_is_refused():
    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

        def forward(self, x):
            seen = self.convolution(x)
            return self.norm(seen) + seen

    with pytest.raises(BuildFailed, match="something beside the normalisation reads a convolution"):
        fold_batch_norms(small(Forked()))


def test_seeded_branches_of_a_resnet_reach_the_embedding():
    encoder: Any = load_encoder(EncoderSpec.parse("small-resnet/image"))
    rows = torch.randn(2, *encoder.row_shape)
    before = encoder(rows)
    encoder.get_parameter("tower.layer3.0.conv1.weight").mul_(2)
    assert (encoder(rows) - before).abs().max() > 1e-4 * before.abs().max()
