"""What `layers` says about one engine: its layers, and what became of each ONNX node in them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.records.observations import LayerRow, LayerTensor

LAYERS_SCHEMA = "enginegate/layers/1"


class RealisedType(StrEnum):
    """What a node's layers read."""

    FP8 = "fp8"  # a product of FP8 activations with FP8 weights or activations; other layers: nothing wider than FP8
    HALF = "half"  # no FP8 at all: half precision, or wider
    MIXED = "mixed"  # FP8 on one side only, or in one layer and not in another
    UNSEEN = "unseen"  # no layer names it


@dataclass(frozen=True, slots=True, kw_only=True)
class OperandTypes:
    """Types of what a layer reads and writes, in the compiler's words and order.

    Attributes:
        weights: of the matrix or kernel that a product reads; None for other layers, and where the source lists none.
    """

    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineNode:
    """One ONNX node in one engine.

    Attributes:
        op_type: its operator; None without the graph.
        block: index of the transformer block it belongs to; None outside all blocks, and without the graph.
        realised: `fp8` where its layer reads nothing wider (a QuantizeLinear: where it writes FP8), `half` where it reads no FP8,
            `mixed` where it reads both, `unseen` where no layer names it.
        layer: index of the layer that carries it, among the rows; None for an unseen one.
        kernel, kind, operands: name, kind and types of that layer.
        layers: indices of all layers that name it; those beside `layer` prepare or finish what it does.
        fused_with: the other nodes that the same layer carries.
        merged_into: the node that stands for it, where the compiler merges Q/DQ nodes that do the same to one tensor.
    """

    node: str
    op_type: str | None
    block: int | None
    realised: RealisedType
    layer: int | None
    kernel: str | None
    kind: str | None
    operands: OperandTypes | None
    layers: tuple[int, ...]
    fused_with: tuple[str, ...]
    merged_into: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLayers:
    """An engine's layer table, and each ONNX node's place in it.

    Attributes:
        source: which kind of document the table was read from.
        file: the document, as it was named; None for an engine that was built.
        encoder: `ARCH/TOWER` of an engine that was built; None for a file.
        engine: recipe, backend and target of an engine that was built.
        blocks: number of transformer blocks; None where they are unknown.
        lists_constants: whether the source lists the weights that layers read.
        ports: inputs and outputs of the engine; empty where the source does not type them.
        rows: the layers, in the order of the source.
        nodes: in the graph's order; without the graph, in the order in which layers name them.
    """

    schema: str
    source: str
    file: str | None
    encoder: str | None
    engine: str | None
    blocks: int | None
    lists_constants: bool
    ports: tuple[LayerTensor, ...]
    rows: tuple[LayerRow, ...]
    nodes: tuple[EngineNode, ...]
