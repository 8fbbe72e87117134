"""A quantized engine is as fast, next to its FP16 twin, as it was when it was approved."""

import pytest

pytestmark = pytest.mark.benchmark


@pytest.mark.gates("latency_ratio", quantized=True)
def test_the_quantized_engine_keeps_its_pace_next_to_fp16(engine, observe, expect, show_timings):
    paced = observe.latency(engine)
    show_timings(*paced.timings)
    expect(paced.judgement)
