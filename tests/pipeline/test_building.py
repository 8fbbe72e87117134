"""Builders work at one time, in the order asked for, and never on the GPU that is timed on."""

from __future__ import annotations

import threading
import time

import pytest

from harness.pipeline.building import Builders
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, Recipe

PATIENCE_S = 20.0


def _engine(batch):
    profile = BatchProfile(minimum=batch, optimum=batch, maximum=batch)
    return EngineSpec(encoder=EncoderSpec.parse("tiny/image"), recipe=Recipe.FP16, backend="fake", batch=profile)


ENGINES = [_engine(batch) for batch in range(1, 7)]


def test_every_engine_is_built_once_and_in_order_by_one_builder():
    built = []
    with Builders(lambda engine, gpu: (time.sleep(0.01), built.append((engine, gpu))), 1) as builders:
        builders.begin(ENGINES)
        builders.begin(ENGINES)  # they are waited for already
        builders.wait(ENGINES)

    assert built == [(engine, None) for engine in ENGINES]


def test_as_many_are_built_at_one_time_as_there_are_builders():
    together = threading.Barrier(3)
    with Builders(lambda engine, gpu: together.wait(PATIENCE_S), 3) as builders:
        builders.begin(ENGINES[:3])
        builders.wait(ENGINES[:3])  # alone, one of them would wait at the barrier until it breaks

    assert not together.broken


def test_builders_take_turns_over_several_gpus():
    seen = []
    with Builders(lambda engine, gpu: (seen.append(gpu), time.sleep(0.02)), 4, ["GPU-1", "GPU-2"]) as builders:
        builders.begin(ENGINES)
        builders.wait(ENGINES)

    assert set(seen) == {"GPU-1", "GPU-2"}


def test_while_the_first_gpu_is_timed_only_the_others_build():
    seen = []
    with Builders(lambda engine, gpu: (seen.append(gpu), time.sleep(0.01)), 4, ["GPU-1", "GPU-2"]) as builders:
        with builders.timing():
            builders.begin(ENGINES)
            builders.wait(ENGINES)
        assert set(seen) == {"GPU-2"}


def test_what_is_built_on_the_only_gpu_is_waited_for_before_it_is_timed_and_what_follows_waits():
    built = []
    with Builders(lambda engine, gpu: (time.sleep(0.1), built.append(engine)), 2, ["GPU-1"]) as builders:
        builders.begin(ENGINES[:2])
        time.sleep(0.03)
        with builders.timing():
            assert len(built) == 2
            builders.begin(ENGINES[2:])
            time.sleep(0.2)
            assert len(built) == 2
        builders.wait(ENGINES)
        assert len(built) == len(ENGINES)


def test_what_is_not_begun_is_forgotten_at_the_end():
    built = []
    with Builders(lambda engine, gpu: (time.sleep(0.1), built.append(engine)), 1) as builders:
        builders.begin(ENGINES)
        time.sleep(0.03)

    assert len(built) == 1


def test_what_a_builder_did_not_expect_reaches_who_waits():
    def build(engine, gpu):
        raise ZeroDivisionError

    with Builders(build, 1) as builders:
        builders.begin(ENGINES[:1])
        with pytest.raises(ZeroDivisionError):
            builders.wait(ENGINES[:1])
