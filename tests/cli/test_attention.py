"""Recipe `attention` through NVIDIA's compiler, on a small encoder, whose baseline is made as it goes."""

import pytest

from harness.backends.registry import get_backend
from harness.contracts import Action
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from tests.helpers.gates import Gate

_SMALL = EngineSpec(encoder=EncoderSpec.parse("small-clip/text"), recipe=Recipe.ATTENTION, backend="tensorrt_rtx", target="SM89")
_WHY_NO_RTX = get_backend("tensorrt_rtx").why_not(Action.BUILD, _SMALL)
BLOCKS = 3


needs_rtx = pytest.mark.skipif(_WHY_NO_RTX is not None, reason=f"tensorrt_rtx: {_WHY_NO_RTX}")


def gated(tmp_path, warm_cache, tower):
    """Exit code, and graph verdicts of TensorRT-RTX by metric."""
    result = Gate(tmp_path, warm_cache)("--recipes", "attention", "--encoders", f"small-clip/{tower}", "-m", "graph", "--baselines=create")
    return result.code, {row["metric"]: row for row in result.verdicts}


@needs_rtx
def test_every_attention_of_a_real_engine_reads_q_k_and_v_in_fp8(tmp_path, warm_cache):
    code, rows = gated(tmp_path, warm_cache, "text")

    assert (code, {metric for metric, row in rows.items() if row["status"] != "PASS"}) == (0, set())
    for metric in ("fused_attention", "fused_attention_fp8"):
        assert (rows[metric]["observed"], rows[metric]["bound"]) == (BLOCKS, BLOCKS)
    assert rows["unfused_qdq"]["observed"] == 0


@needs_rtx
def test_fp8_attention_that_the_compiler_does_not_fuse_is_told(tmp_path, warm_cache):
    # TensorRT-RTX 1.7.1.116 fuses FP8 attention over 50 and 77 tokens, and not over the 17 of this picture, though every product
    # is FP8: it pads to 18 in kernels of their own.
    code, rows = gated(tmp_path, warm_cache, "image")

    assert code == 1
    red = {metric for metric, row in rows.items() if row["status"] != "PASS"}
    assert red == {"fused_attention", "fused_attention_fp8", "check_E2", "check_E4"}
    assert "attention is split over" in rows["fused_attention"]["reason"]
    assert (rows["fused_attention_fp8"]["observed"], rows["fused_attention_fp8"]["bound"]) == (0, BLOCKS)
