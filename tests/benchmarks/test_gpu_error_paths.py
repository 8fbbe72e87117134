"""The script that makes errors on a real GPU, as far as it goes without one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from harness.backends.tensorrt import release_of_plan
from harness.errors import EnginegateError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_error_paths.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gpu_error_paths", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_every_event_that_a_step_expects_exists(script):
    def codes(kind):
        return {kind.code, *(code for one in kind.__subclasses__() for code in codes(one))}

    assert {code for step in script.STEPS.values() for code in step.expects} <= codes(EnginegateError)


def test_a_plan_is_made_another_releases_where_its_header_names_its_own(script):
    plan = b"ftrt" + bytes(20) + bytes([10, 6, 0, 26]) + bytes([10, 6, 0]) * 4
    other = script.with_other_release(plan)
    assert (release_of_plan(plan), release_of_plan(other)) == ("10.6.0.26", "10.7.0.26")
    assert len(other) == len(plan)
    assert other[28:] == plan[28:]
