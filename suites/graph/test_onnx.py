"""The exported graph holds the Q/DQ nodes that its recipe promises. Needs no compiler."""

import pytest

from harness.judge.onnx_graph import block_gemms_quantized, block_weights_folded

pytestmark = pytest.mark.graph


@pytest.mark.gates("block_gemms_quantized")
def test_every_block_gemm_is_quantized(prepared, observe, expect):
    expect(block_gemms_quantized(observe.graph(prepared), observe.promise(prepared)))


@pytest.mark.gates("block_weights_folded")
def test_every_block_weight_is_stored_in_fp8(prepared, observe, expect):
    expect(block_weights_folded(observe.graph(prepared), observe.promise(prepared)))
