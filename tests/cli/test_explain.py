"""The command `explain`: engines profiled in turns, profiles read again elsewhere, and words for what cannot be explained."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.cli import main
from harness.records.explanation import Explanation
from harness.store.codec import from_plain
from tests.helpers.left_engines import leave

WIDTH = 64


def encoder(products: int) -> bytes:
    """A chain of products with names."""
    weights = numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32) * 0.5, "weights")
    names = ["image", *(f"after_{number}" for number in range(products - 1)), "embedding"]
    nodes = [
        helper.make_node("MatMul", [here, "weights"], [there], name=f"/chain/{step}/MatMul")
        for step, (here, there) in enumerate(itertools.pairwise(names))
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("image", "embedding")]
    graph = helper.make_graph(nodes, "tiny", ports[:1], ports[1:], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


@pytest.fixture
def engines(tmp_path):
    """Two engines of ONNX Runtime; the second has one product more."""
    return tuple(
        leave(tmp_path / name, f"tiny-image-{name}", content=encoder(products), backend="onnxruntime", recipe=recipe)
        for name, products, recipe in (("fp16", 2, "fp16"), ("linear", 3, "linear"))
    )


def explained(capsys, *arguments):
    assert main(["explain", *map(str, arguments), "--launches", "4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    return from_plain(Explanation, document, origin="stdout")


def refused(capsys, *arguments, code=2):
    assert main(["explain", *map(str, arguments), "--json"]) == code
    return json.loads(capsys.readouterr().out)["error"]


def test_two_engines_are_profiled_in_turns_and_every_layer_is_told(engines, capsys):
    record = explained(capsys, *engines)
    assert record.in_turns
    assert (record.a.layers, record.b.layers, record.a.launches, record.a.rows) == (2, 3, 4, 2)
    assert record.a.clock == "ONNX Runtime's profiler"
    parts = {part.name: part for part in record.parts}
    assert parts["/chain/2/MatMul"].a.ms == 0
    assert parts["/chain/2/MatMul"].b.ms > 0
    assert sum(part.b.ms for part in record.parts) == pytest.approx(record.b.layers_ms)
    assert record.b.ceilings.copy_gbps is None
    assert record.b.ceilings.words == {"all": "backend onnxruntime has no such measurement"}


def test_what_is_left_explains_the_same_on_another_machine(engines, tmp_path, capsys):
    out = tmp_path / "out"
    first = explained(capsys, *engines, "--out", out)
    profiles = [out / f"{name}.profile.json.gz" for name in ("a-tiny-image-fp16", "b-tiny-image-linear")]
    assert {path.name for path in out.iterdir()} == {*(path.name for path in profiles), "explanation.json", "explanation.svg"}
    for engine in engines:
        shutil.rmtree(engine.parent)
    assert explained(capsys, *profiles) == first
    assert json.loads((out / "explanation.json").read_text())["sentence"] == first.sentence


def test_the_text_has_the_tables_and_says_what_was_not_measured(engines, capsys):
    assert main(["explain", *map(str, engines), "--launches", "2", "--no-ceilings"]) == 0
    text = capsys.readouterr().out
    for words in (
        "times as fast",
        "kind of work",
        "FP16 GEMM",
        "sum of the layers",
        "place",
        "part (",
        "/chain/2/MatMul",
        "was not measured",
    ):
        assert words in text
    assert "did not take turns" not in text


def test_profiles_of_two_runs_say_that_they_did_not_take_turns(engines, tmp_path, capsys):
    for name in ("one", "other"):
        explained(capsys, *engines, "--out", tmp_path / name)
    a, b = tmp_path / "one/a-tiny-image-fp16.profile.json.gz", tmp_path / "other/b-tiny-image-linear.profile.json.gz"
    assert not explained(capsys, a, b).in_turns
    assert main(["explain", str(a), str(b)]) == 0
    assert "A and B did not take turns" in capsys.readouterr().out


def test_the_plot_shows_both_engines_block_by_block(engines, tmp_path, capsys):
    explained(capsys, *engines, "--out", tmp_path / "out")
    plot = (tmp_path / "out/explanation.svg").read_text()
    assert plot.startswith("<?xml")
    assert "tiny/image-linear-onnxruntime" in plot.replace("<!-- ", "").replace(" -->", "")


def test_what_cannot_be_explained_is_refused_with_words(engines, tmp_path, capsys):
    fake = leave(tmp_path / "fake")
    assert "tells no layer times" in refused(capsys, engines[0], fake)["message"]
    assert "no file" in refused(capsys, engines[0], tmp_path / "gone.engine")["message"]
    assert refused(capsys, engines[0], tmp_path / "gone.profile.json")["code"] == "unusable_profile"
    other = tmp_path / "other.onnx"
    other.write_bytes(encoder(1).replace(b"/chain/", b"/chess/"))
    assert "none of the nodes" in refused(capsys, *engines, "--onnx-b", other)["message"]
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(capsys, *engines, "--out", tmp_path / "file")["message"]
    assert refused(capsys, *engines, "--batch", 99)["code"] == "outside_profile"


def test_a_graph_named_beside_a_profile_has_no_use(engines, tmp_path, capsys):
    explained(capsys, *engines, "--out", tmp_path / "out")
    profile = tmp_path / "out/a-tiny-image-fp16.profile.json.gz"
    assert "holds what its graph said" in refused(capsys, profile, engines[1], "--onnx-a", engines[0])["message"]


def test_engines_of_two_encoders_or_batches_are_refused(engines, tmp_path, capsys):
    text = leave(tmp_path / "text", content=encoder(2), backend="onnxruntime", encoder="tiny/text")
    assert "two encoders, tiny/image and tiny/text" in refused(capsys, engines[0], text)["message"]
    for batch in (1, 2):
        explained(capsys, *engines, "--batch", batch, "--out", tmp_path / str(batch))
    profiles = (tmp_path / "1/a-tiny-image-fp16.profile.json.gz", tmp_path / "2/b-tiny-image-linear.profile.json.gz")
    assert "two batches, 1 and 2" in refused(capsys, *profiles)["message"]


def test_an_engine_that_does_not_load_breaks_the_command_in_words(engines, tmp_path, capsys):
    broken = leave(tmp_path / "broken", content=encoder(2)[:-40], backend="onnxruntime")
    assert refused(capsys, engines[0], broken)["code"] == "unusable_graph"
    assert onnx.load(engines[0]).graph.node[0].name == "/chain/0/MatMul"  # the sound one is left as it was
