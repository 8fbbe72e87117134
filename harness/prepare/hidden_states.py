"""What the untouched encoder holds between its blocks, in FP32 torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import InvalidMeasurement
from harness.prepare.checkpoint import load_encoder
from harness.prepare.quantize import repeated_blocks
from harness.records.observations import EncoderInputs, Float32Array
from harness.records.spec import EncoderSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HiddenStates:
    """Exact tensors of one set of inputs.

    Attributes:
        edges: what goes into the first block, then what comes out of each; float32 [n, tokens, width] or [n, width, H, W], rows first
            also where a tower computes [tokens, n, width].
        embedding: float32 [n, dim], not normalised.
    """

    edges: tuple[Float32Array, ...]
    embedding: Float32Array


def hidden_states(spec: EncoderSpec, inputs: EncoderInputs, *, blocks: int) -> HiddenStates:
    """Run the encoder once, and keep what goes from block to block.

    Args:
        inputs: a few rows: all of them run as one batch.
        blocks: how many blocks its ONNX graph has.

    Raises:
        InvalidMeasurement: the encoder has another number of repeated blocks, so that which is which cannot be said.
    """
    import torch

    encoder = load_encoder(spec)
    modules = repeated_blocks(encoder)
    if len(modules) != blocks:
        raise InvalidMeasurement(
            f"{spec.name} has {len(modules)} repeated blocks in PyTorch and {blocks} in its ONNX graph, so they cannot be matched; "
            "expected as many; look at the graph with enginegate check-graph"
        )
    rows = torch.from_numpy(inputs.rows)
    with torch.inference_mode(), _kept(modules) as edges:
        embedding = encoder(rows.float() if rows.is_floating_point() else rows)
    if len(edges) != blocks + 1:
        raise InvalidMeasurement(f"{spec.name} ran {len(edges) - 1} of its {blocks} blocks once each; expected all of them, in order")
    return HiddenStates(edges=tuple(_rows_first(edge, len(inputs)) for edge in edges), embedding=embedding.numpy().astype(np.float32))


@contextmanager
def _kept(modules: list[nn.Module]) -> Iterator[list[Float32Array]]:
    """What enters the first module and leaves each, in the order in which they run."""
    found: list[Float32Array] = []

    def entering(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(_as_array(args[0] if args else next(iter(kwargs.values()))))

    def leaving(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        found.append(_as_array(output))

    hooks = [modules[0].register_forward_pre_hook(entering, with_kwargs=True)]
    hooks += [module.register_forward_hook(leaving) for module in modules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _as_array(state: Any) -> Float32Array:
    tensor = state[0] if isinstance(state, tuple) else state
    return tensor.detach().numpy().astype(np.float32)


def _rows_first(edge: Float32Array, rows: int) -> Float32Array:
    return edge.swapaxes(0, 1) if edge.shape[0] != rows and edge.ndim > 1 and edge.shape[1] == rows else edge
