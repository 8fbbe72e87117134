"""Which graph an engine is explained with: one of its record's digest, or one that was named."""

from __future__ import annotations

import hashlib

import pytest

from harness.pipeline.explaining_gain import Explaining, _graph
from tests.helpers.left_engines import leave
from tests.helpers.products import write_two_products


@pytest.fixture
def left(tmp_path):
    """An engine file that is no ONNX, with the graph's digest in its record; and the graph."""
    graph = write_two_products(tmp_path / "graph.onnx")
    engine = leave(tmp_path / "engines", content=b"a plan", onnx_sha256=hashlib.sha256(graph.read_bytes()).hexdigest())
    plan = engine.rename(engine.with_suffix(".engine"))
    return plan, graph


def graph_of(engine, tmp_path, named=None):
    return _graph(Explaining(subjects=(engine, engine), graphs=(named, None), cache_dir=tmp_path / "cache"), 0)


def test_a_graph_of_the_same_digest_is_found_beside_it_and_in_the_cache(left, tmp_path):
    plan, graph = left
    assert graph_of(plan, tmp_path) is None
    kept = tmp_path / "cache/onnx/key"
    kept.mkdir(parents=True)
    (kept / "model.onnx").write_bytes(graph.read_bytes())
    assert graph_of(plan, tmp_path) is None  # an entry without its manifest is a leftover
    plan.with_suffix(".onnx").write_bytes(graph.read_bytes())
    assert [node.name for node in graph_of(plan, tmp_path).graph.nodes] == ["/first/MatMul", "/second/MatMul"]


def test_another_graph_beside_it_is_not_taken_for_its_own(left, tmp_path):
    plan, graph = left
    plan.with_suffix(".onnx").write_bytes(graph.read_bytes() + b"\n")
    assert graph_of(plan, tmp_path) is None
    assert graph_of(plan, tmp_path, named=graph) is not None
