"""The compiler did with the Q/DQ nodes what they are there for, as its layer table shows node by node."""

import pytest

from harness.judge.engine_flops import fp8_flop_share
from harness.judge.engine_graph import block_gemms_fp8, fused_attention, fused_attention_fp8, unfused_qdq

pytestmark = pytest.mark.graph


@pytest.mark.gates("block_gemms_fp8", needs="layers")
def test_every_block_gemm_runs_in_fp8(engine, observe, expect):
    expect(block_gemms_fp8(observe.graph(engine), observe.layers(engine), observe.promise(engine)))


@pytest.mark.gates("unfused_qdq", needs="layers")
def test_no_quantization_is_left_on_its_own(engine, observe, expect):
    expect(unfused_qdq(observe.graph(engine), observe.layers(engine), observe.promise(engine)))


@pytest.mark.gates("fused_attention", needs="layers")
def test_every_block_keeps_its_fused_attention(engine, observe, expect, require_attention):
    require_attention(engine)
    expect(fused_attention(observe.graph(engine), observe.layers(engine), observe.promise(engine)))


@pytest.mark.gates("fused_attention_fp8", needs="layers")
def test_every_fused_attention_reads_fp8_where_the_recipe_says_so(engine, observe, expect, require_attention):
    require_attention(engine)
    expect(fused_attention_fp8(observe.graph(engine), observe.layers(engine), observe.promise(engine)))


@pytest.mark.gates("fp8_flop_share", needs="layers", quantized=True)
def test_nearly_all_arithmetic_is_fp8(engine, observe, expect):
    floor = observe.limit("fp8_flop_share", engine)
    expect(fp8_flop_share(observe.graph(engine), observe.layers(engine), observe.promise(engine), floor=floor))
