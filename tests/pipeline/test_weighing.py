"""What an engine takes of the host's memory is measured in a process of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import UnusableGraph
from harness.pipeline.weighing import running_host_bytes
from tests.helpers.left_engines import fake_engine


def test_an_engine_of_next_to_nothing_takes_next_to_nothing():
    assert 0 <= running_host_bytes(fake_engine()) < 64 * 2**20


def test_an_engine_that_does_not_load_is_told_in_its_own_words():
    gone = fake_engine(backend="onnxruntime")
    with pytest.raises(UnusableGraph):
        running_host_bytes(replace(gone, path=Path("nowhere.onnx")))
