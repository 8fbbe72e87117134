"""What one row of a layer table computes: whether it is a matrix product or a convolution, and whether of FP8 operands.

What a row computes in FP8 shows in its operands. Half the weight bytes do not prove it: weights stored in FP8 and widened inside a
half-precision kernel need as little. Seen in TensorRT 10.6 on Hopper and in TensorRT-RTX 1.7 for Ada, for ViT-B-32:

- A product of a block is a `gemm`; with what is around it, a `fusion` (10.6: `__myl_Fc`, the first MLP product with GELU and the next
  quantization) or a `runtime_fusion` (RTX). Rows of other kinds repeat a MatMul's name when they only prepare or finish it, such as the
  kernel that writes the FP8 activations of q, k and v.
- It reads one FP8 activation and one FP8 constant; scales and biases come as further constants in Float or Half.
- The patch convolution is a `CaskConvolution` in 10.6 and a `correlation` in RTX.
- FP8 kernels of 10.6 say so in their names: `sm90_xmma_gemm_e4m3f16_e4m3f32_f32_...`, where a half-precision one is `..._f16f16_...`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import prod

from harness.records.observations import LayerRow, LayerTable, LayerTensor

GEMM_KINDS = frozenset({"fusion", "gemm", "runtime_fusion"})
CONVOLUTION_KINDS = frozenset({"CaskConvolution", "correlation"})

# Bytes of an element, by the words that TensorRT uses; its longer sentences contain one of them.
_BYTES = {"FP8": 1, "FLOAT8": 1, "INT8": 1, "BOOL": 1, "HALF": 2, "FP16": 2, "BFLOAT16": 2, "BF16": 2, "INT64": 8}
_ELSE_BYTES = 4

_FP8_TACTIC = re.compile("e4m3|f8_f8", re.IGNORECASE)


def carriers_of(table: LayerTable) -> Mapping[str, list[LayerRow]]:
    """ONNX node name to the layers that name it."""
    found: defaultdict[str, list[LayerRow]] = defaultdict(list)
    for row in table.rows:
        for name in row.onnx_nodes:
            found[name].append(row)
    return found


def is_fp8(tensor: LayerTensor) -> bool:
    """Whether an operand is FP8, in any compiler's spelling: `FP8`, or a sentence such as `Row major linear FP8 format`."""
    return "FP8" in tensor.datatype.upper()


def holds_fp8(table: LayerTable) -> bool:
    """Whether any operand of any layer is FP8."""
    return any(is_fp8(tensor) for row in table.rows for tensor in (*row.inputs, *row.constants, *row.outputs))


def tensor_bytes(tensor: LayerTensor) -> int:
    """Bytes of a tensor, from its shape and the compiler's word for its type; a dynamic axis counts as 1."""
    word = tensor.datatype.upper()
    # BFLOAT16 before FLOAT, INT64 before INT: the longest word that fits is meant.
    size = next((_BYTES[known] for known in sorted(_BYTES, key=len, reverse=True) if known in word), _ELSE_BYTES)
    return prod(abs(length) for length in tensor.shape) * size


def is_product(row: LayerRow) -> bool:
    """Whether a layer is a matrix product or a convolution."""
    return row.kind in GEMM_KINDS | CONVOLUTION_KINDS


def products(rows: Iterable[LayerRow]) -> tuple[LayerRow, ...]:
    """The matrix products among `rows`."""
    return tuple(row for row in rows if row.kind in GEMM_KINDS)


def why_not_fp8(rows: Iterable[LayerRow], *, lists_constants: bool = True) -> str | None:
    """None when every matrix product among `rows` multiplies FP8 activations with FP8 weights; else what does not.

    Args:
        rows: those that name one ONNX product.
        lists_constants: `LayerTable.lists_constants`; without weights to look at, the kernel's name must say that they are FP8.
    """
    rows = tuple(rows)
    found = products(rows)
    if not found:
        return f"no matrix product carries it, only {_kinds(rows)}"
    return next((words for row in found if (words := _operands_not_fp8(row, lists_constants))), None)


def convolution_not_fp8(rows: Iterable[LayerRow], *, lists_constants: bool = True) -> str | None:
    """None when every convolution among `rows` reads FP8 activations and FP8 weights; else what does not. Arguments as above."""
    rows = tuple(rows)
    found = list(filter(is_product, rows))
    if not found:
        return f"no convolution carries it, only {_kinds(rows)}"
    if all(any(map(is_fp8, row.inputs)) and _weights_are_fp8(row, lists_constants) for row in found):
        return None
    return "its convolution reads no FP8"


def multiplies_fp8_activations(rows: Iterable[LayerRow]) -> bool:
    """Whether the products among `rows` multiply two activations, both FP8: attention that was not fused."""
    found = products(rows)
    return bool(found) and all(len(row.inputs) > 1 and all(map(is_fp8, row.inputs)) for row in found)


def _operands_not_fp8(row: LayerRow, lists_constants: bool) -> str | None:
    weights_are_fp8 = _weights_are_fp8(row, lists_constants)
    if any(map(is_fp8, row.inputs)) and weights_are_fp8:
        return None
    inputs = " and ".join(dict.fromkeys(tensor.datatype for tensor in row.inputs)) or "no"
    weights = "FP8" if weights_are_fp8 else "no FP8" if lists_constants else "unlisted"
    return f"layer {row.name} multiplies {inputs} activations with {weights} weights"


def _weights_are_fp8(row: LayerRow, lists_constants: bool) -> bool:
    if lists_constants:
        return any(map(is_fp8, row.constants))
    return _FP8_TACTIC.search(row.tactic) is not None


def _kinds(rows: Iterable[LayerRow]) -> str:
    return ", ".join(sorted({row.kind for row in rows}))
