"""A quantized engine is as fast, next to its FP16 twin, as it was when it was approved."""

import pytest

from harness.judge.latency.rounds import latency_ratio

pytestmark = pytest.mark.benchmark

ROUNDS = 15  # one launch of each engine a round; the median of fewer is one busy moment's luck


@pytest.mark.gates("latency_ratio", quantized=True)
def test_the_quantized_engine_keeps_its_pace_next_to_fp16(engine, observe, expect, show_timings):
    pair = observe.latency(engine, observe.fp16_of(engine), rounds=ROUNDS)
    show_timings(pair.candidate, pair.reference)
    judgement = latency_ratio(
        pair.candidate.ms,
        pair.reference.ms,
        approved=observe.approved("latency_ratio", engine),
        relative_margin=observe.margin("latency_ratio", engine),
        is_same_processor=observe.is_approved_processor(engine),
    )
    expect(judgement)
