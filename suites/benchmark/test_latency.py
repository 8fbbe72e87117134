"""An engine is as fast as the one that was approved, and a quantized one as fast, next to its FP16 twin, as it was then."""

import pytest

pytestmark = pytest.mark.benchmark


@pytest.mark.gates("latency_ratio", quantized=True)
def test_the_quantized_engine_keeps_its_pace_next_to_fp16(engine, observe, expect, show_timings):
    paced = observe.latency(engine)
    show_timings(*paced.timings)
    expect(paced.judgement)


@pytest.mark.gates("latency_ms")
def test_the_engine_is_as_fast_as_the_approved_one_beside_it(engine, observe, expect, show_timings):
    paced = observe.latency_beside_approved(engine)
    show_timings(*paced.timings)
    expect(paced.judgement)
