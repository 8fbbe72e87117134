"""The study on a real processor: how a graph is made slower, and how its page counts. What it measured is in docs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.backends.onnxruntime import run_once
from harness.records.latency import Arm, Block, LatencySamples, ProcessBlocks
from tests.helpers import latency_real
from tests.helpers.slower_onnx import slower_onnx


@pytest.fixture
def encoder(tmp_path):
    """A graph of one product, with the output that encoders have."""
    weight = np.random.default_rng(1).standard_normal((12, 16)).astype(np.float16)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["image", "weight"], ["embedding"])],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT16, ["batch", 12])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT16, ["batch", 16])],
        [numpy_helper.from_array(weight, "weight")],
    )
    path = tmp_path / "encoder.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_a_slower_graph_gives_nearly_the_same_embeddings_by_more_products(encoder, tmp_path):
    target = tmp_path / "slower.onnx"
    slower_onnx(encoder, target, products=9)
    model = onnx.load(target)
    onnx.checker.check_model(model, full_check=True)
    assert sum(node.op_type == "MatMul" for node in model.graph.node) == 1 + 1 + 9 + 1
    rows = {"image": np.random.default_rng(2).standard_normal((3, 12)).astype(np.float16)}
    plain, slower = (run_once(path.read_bytes(), rows)["embedding"].astype(np.float64) for path in (encoder, target))
    assert slower.shape == plain.shape
    assert 0 < np.abs(slower - plain).max() < 0.01 * np.abs(plain).max()


def test_a_pair_is_kept_as_its_figure_its_groups_and_its_levels():
    turns = (Arm.BASELINE, Arm.CANDIDATE, Arm.CANDIDATE, Arm.BASELINE)
    blocks = tuple(Block(arm=arm, ms=(2.0 if arm is Arm.BASELINE else 2.2,) * 3) for arm in turns * 2)
    kept = latency_real._kept(LatencySamples(processes=(ProcessBlocks(blocks=blocks),)))
    assert kept["d"] == pytest.approx(np.log(1.1))
    assert kept["contrasts"] == [pytest.approx(np.log(1.1), abs=1e-6)] * 2
    assert (kept["baseline_ms"], kept["candidate_ms"], kept["launches"]) == (2.0, 2.2, 3)


def _document(pairs: int, **shifts: float):
    rng = np.random.default_rng(3)

    def gate(shift):
        contrasts = rng.normal(shift, 0.01, 10)
        return {"d": float(contrasts.mean()), "contrasts": contrasts.tolist(), "baseline_ms": float(np.exp(rng.normal(1, 0.02)))}

    return {
        "engine": "e",
        "backend_version": "1",
        "threads": 1,
        "cpu": "c",
        "cpu_count": 2,
        "quartets": 10,
        "protocol": "p",
        "products": {"5 %": 9},
        "pairs": [{"gates": {name.replace("_", " "): gate(shift) for name, shift in shifts.items()}} for _ in range(pairs)],
    }


def test_groups_share_no_process():
    effect = latency_real.disjoint(np.arange(11.0), 4)
    assert effect.mean.tolist() == [1.5, 5.5]


def test_the_page_counts_alarms_and_what_was_found():
    document = _document(40, **{"0 %": 0.0, "5 %": 0.05})
    page = "\n".join(latency_real.page(document))
    assert "| 8 | 0 of 5 [0.0%, 52.2%] | 5 of 5 [47.8%, 100.0%] |" in page
    assert latency_real.contradictions(document) == []


def test_more_alarms_than_stated_are_a_contradiction():
    assert latency_real.contradictions(_document(40, **{"0 %": 0.05}))


def test_noise_is_split_between_groups_and_processes():
    terms = latency_real.noise(_document(200, **{"0 %": 0.0}))
    assert terms["a process's figure (d)"] == pytest.approx(0.01 / 10**0.5, rel=0.2)
    assert terms["a group of four blocks, within its process (median)"] == pytest.approx(0.01, rel=0.1)
    assert terms["between processes, beyond what groups explain"] < 0.003
    assert terms["an engine's own level, from process to process"] == pytest.approx(0.02, rel=0.2)
