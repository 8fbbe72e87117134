"""The command `check-graph`: clean exports give no finding, and every planted defect is found where it was planted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from harness.cli import main
from harness.errors import UnusableGraph
from harness.judge.onnx_checks.blocks import counts_match
from harness.judge.structure import GraphView
from harness.measure.onnx_graph import read_onnx_graph
from harness.pipeline.checking import check_graph
from harness.store.gatefile import read_gate_file
from tests.helpers.gates import REPOSITORY, Gate
from tests.helpers.onnx_defects import DEFECTS, Defect, quantized_context, quantized_scores

GATE_FILE = REPOSITORY / "gate.toml"
FIRST, MIDDLE, LAST = range(3)
OF = {recipe: [defect for defect in DEFECTS if recipe in defect.recipes] for recipe in ("linear", "attention")}
PAIRS = [pair for pair in combinations(OF["linear"], 2) if pair[0].check != pair[1].check][::17]


@pytest.fixture(scope="session")
def exports(tmp_path_factory, warm_cache) -> Path:
    """ONNX files of the small encoder's two towers, made by the command; not to be changed."""
    gate = Gate(tmp_path_factory.mktemp("exports"), warm_cache)
    for tower in ("image", "text"):
        for recipe in ("linear", "attention", "fp16"):
            arguments = (f"small-clip/{tower}", "--recipe", recipe, "--backend", "onnxruntime", "--out", "out")
            result = gate.command("build", *arguments)
            assert result.code == 0, result.stderr
    return gate.folder / "out"


def checked(path: Path, *, reference: Path | None = None, policy: str = "linear"):
    return check_graph(path, reference=reference, policy=policy, gate_file=GATE_FILE).record


@pytest.mark.parametrize("tower", ["image", "text"])
def test_clean_exports_give_no_finding(exports, tower):
    linear, attention, fp16 = (exports / f"small-clip-{tower}-{recipe}.onnx" for recipe in ("linear", "attention", "fp16"))

    record = checked(linear, reference=fp16)

    assert record.findings == () == checked(fp16, policy="fp16").findings
    assert checked(attention, reference=fp16, policy="attention").findings == ()
    summary = record.summary
    assert (summary.blocks, summary.weight_gemms, summary.quantized, summary.folded) == (3, 18, 18, 18)
    assert summary.fp8_flop_share is not None
    assert 0.7 < summary.fp8_flop_share < 1


@pytest.mark.parametrize("block", [FIRST, MIDDLE, LAST])
@pytest.mark.parametrize("defect", OF["linear"], ids=lambda defect: f"{defect.check}-{defect.name}")
def test_every_defect_is_found_by_its_check_at_its_node(exports, tmp_path, defect: Defect, block):
    found, planted = planted_in(exports, tmp_path, [(defect, block)])

    assert planted <= found


@pytest.mark.parametrize("defect", OF["attention"], ids=lambda defect: f"{defect.check}-{defect.name}")
def test_every_defect_is_found_where_attention_is_quantized_too(exports, tmp_path, defect: Defect):
    found, planted = planted_in(exports, tmp_path, [(defect, MIDDLE)], recipe="attention")

    assert planted <= found


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " and ".join(defect.name for defect in pair))
def test_two_defects_at_once_are_both_found(exports, tmp_path, pair):
    found, planted = planted_in(exports, tmp_path, [(pair[0], FIRST), (pair[1], LAST)])

    assert planted <= found


def planted_in(exports: Path, folder: Path, defects: list[tuple[Defect, int]], *, recipe: str = "linear"):
    """Checks and nodes that were found, and those that were planted, in the small image tower."""
    model = onnx.load(exports / f"small-clip-image-{recipe}.onnx")
    planted = {(defect.check, defect.plant(model, block)) for defect, block in defects}
    onnx.save(model, folder / "m.onnx")
    record = checked(folder / "m.onnx", reference=exports / "small-clip-image-fp16.onnx", policy=recipe)
    return {(one.check, one.node) for one in record.findings}, planted


def test_a_finding_names_its_block_and_what_to_do(exports, tmp_path):
    from tests.helpers.onnx_defects import float_gemm

    model = onnx.load(exports / "small-clip-image-linear.onnx")
    float_gemm(model, MIDDLE)
    onnx.save(model, tmp_path / "m.onnx")

    [finding] = [one for one in checked(tmp_path / "m.onnx").findings if one.check == "O2"]

    assert finding.block == MIDDLE
    assert finding.found.startswith("activation from")
    assert "runs in half precision" in finding.message


def test_a_graph_without_quantization_is_one_gate_finding(exports):
    record = checked(exports / "small-clip-image-fp16.onnx")

    assert [(one.check, one.severity) for one in record.findings] == [("O12", "gate")]


def test_a_quantized_graph_is_no_fp16_graph(exports):
    checks = {one.check for one in checked(exports / "small-clip-image-linear.onnx", policy="fp16").findings}

    assert {"O10", "O12"} <= checks


def test_the_reference_of_another_encoder_is_told(exports):
    text = exports / "small-clip-text-fp16.onnx"

    found = checked(exports / "small-clip-image-linear.onnx", reference=text).findings

    assert {"O8", "O16"} == {one.check for one in found}


def test_reference_weights_are_found_without_names(exports, tmp_path):
    model = onnx.load(exports / "small-clip-image-fp16.onnx")
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    onnx.save(model, tmp_path / "m.onnx")

    assert checked(exports / "small-clip-image-linear.onnx", reference=tmp_path / "m.onnx").findings == ()


@pytest.mark.parametrize("name", ["", "twice"])
def test_nodes_that_cannot_be_told_apart_are_a_finding(exports, tmp_path, name):
    model = onnx.load(exports / "small-clip-image-linear.onnx")
    for node in model.graph.node:
        node.name = name
    onnx.save(model, tmp_path / "m.onnx")

    record = checked(tmp_path / "m.onnx")

    assert [one.check for one in record.findings] == ["O1"]
    assert record.summary.quantized == 18


def test_a_graph_without_blocks_is_never_green(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="/relu")],
        "tiny",
        [helper.make_tensor_value_info("x", 10, ["batch", 3])],
        [helper.make_tensor_value_info("y", 10, ["batch", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "m.onnx")

    assert {one.check for one in checked(tmp_path / "m.onnx").findings} == {"O2", "O12"}


def test_the_document_is_exactly_as_promised(exports, capfd):
    code = main(["check-graph", str(exports / "small-clip-image-fp16.onnx"), "--gate-file", str(GATE_FILE), "--json"])

    document = json.loads(capfd.readouterr().out)
    assert code == 1
    assert set(document) == {"schema", "model", "policy", "summary", "findings", "not_judged"}
    assert (document["schema"], document["policy"]) == ("enginegate/findings/1", "linear")
    assert set(document["summary"]) == {"blocks", "weight_gemms", "quantized", "folded", "fp8_flop_share", "gate", "report"}
    assert set(document["findings"][0]) == {"check", "severity", "node", "block", "found", "expected", "message"}


def test_people_get_a_line_a_finding_and_a_summary(exports, capfd):
    code = main(["check-graph", str(exports / "small-clip-image-linear.onnx"), "--gate-file", str(GATE_FILE)])

    lines = capfd.readouterr().out.splitlines()
    assert code == 0
    assert "3 blocks, 18 weight GEMMs, 18 quantized, 18 folded" in lines[-2]
    assert lines[-1] == "0 gate findings, 0 report findings"


def test_people_and_programs_are_told_what_was_not_judged_and_why(exports, capfd):
    model = str(exports / "small-clip-image-linear.onnx")
    beside = ("--reference", str(exports / "small-clip-image-fp16.onnx"))

    main(["check-graph", model, "--gate-file", str(GATE_FILE)])
    lines = capfd.readouterr().out.splitlines()
    main(["check-graph", model, *beside, "--gate-file", str(GATE_FILE), "--json"])
    document = json.loads(capfd.readouterr().out)

    assert [line.split(":")[0] for line in lines[:2]] == ["O8 not judged", "O15 not judged"]
    assert set(document["not_judged"]) == {"O15"}


@pytest.mark.parametrize("kind", ["text", "cut", "absent", "folder", "control flow", "external"])
def test_what_is_unusable_is_one_clear_error(exports, tmp_path, capfd, kind):
    path = tmp_path / "m.onnx"
    model = onnx.load(exports / "small-clip-image-linear.onnx")
    if kind == "text":
        path.write_text("hello " * 99)
    elif kind == "cut":
        path.write_bytes(model.SerializeToString()[:-5000])
    elif kind == "folder":
        path.mkdir()
    elif kind == "control flow":
        branch = helper.make_graph([], "b", [], [])
        model.graph.node.append(helper.make_node("If", ["flag"], [], name="/if", then_branch=branch, else_branch=branch))
        onnx.save(model, path)
    elif kind == "external":
        onnx.save(model, path, save_as_external_data=True, location="m.data")
        shutil.move(tmp_path / "m.data", tmp_path / "elsewhere")

    code = main(["check-graph", str(path), "--gate-file", str(GATE_FILE), "--json"])

    captured = capfd.readouterr()
    assert code == 2
    assert json.loads(captured.out)["error"]["code"] == "unusable_graph"
    assert "Traceback" not in captured.err


def test_findings_keep_their_exit_code_when_the_reader_has_seen_enough(exports):
    command = (
        f"{sys.executable} -m harness check-graph small-clip-text-attention.onnx --gate-file {GATE_FILE} | head -1; exit ${{PIPESTATUS[0]}}"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(["bash", "-c", command], cwd=exports, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "O10\n"


@pytest.fixture
def external(exports, tmp_path):
    """Writes the small encoder with its weights beside it, and with one fact about where they lie changed."""

    def write(**changed: str) -> Path:
        path = tmp_path / "m.onnx"
        onnx.save(onnx.load(exports / "small-clip-image-linear.onnx"), path, save_as_external_data=True, location="m.data")
        model = onnx.load(path, load_external_data=False)
        entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
        for entry in entries:
            entry.value = changed.get(entry.key, entry.value)
        path.write_bytes(model.SerializeToString())
        return path

    return write


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"location": "/etc/passwd"}, "outside the file's folder"),
        ({"location": "../m.data"}, "outside the file's folder"),
        ({"location": "m\0.data"}, "which is not there"),
        ({"location": "m" * 5000}, "cannot be read"),
        ({"location": "."}, "which is not there"),
        ({"offset": "-5"}, "offset '-5'; expected a whole number"),
        ({"offset": "x"}, "offset 'x'; expected a whole number"),
        ({"offset": "99999999999"}, "copy the whole file"),
        ({"length": "3"}, "keeps 3 bytes; its shape"),
        ({"length": "x"}, "length 'x'; expected a whole number"),
    ],
)
def test_weights_elsewhere_must_be_where_the_file_says(external, changed, message):
    with pytest.raises(UnusableGraph, match=message):
        checked(external(**changed))


def test_weights_beside_the_file_are_read_there(external):
    assert checked(external()).findings == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file, so none can be forbidden")
@pytest.mark.parametrize("name", ["m.onnx", "m.data"])
def test_a_file_that_may_not_be_read_is_unusable(external, tmp_path, name):
    path = external()
    (tmp_path / name).chmod(0)

    with pytest.raises(UnusableGraph, match="Permission denied"):
        checked(path)


def spoilt(model: onnx.ModelProto, kind: str) -> None:
    node = next(node for node in model.graph.node if node.op_type == "LayerNormalization")
    if kind == "own result":
        node.input[0] = node.output[0]
    elif kind == "cycle":
        node.input[0] = model.graph.node[-1].output[0]
    elif kind == "no nodes":
        del model.graph.node[:]
    elif kind == "no output":
        del model.graph.output[:]
    elif kind == "no type":
        model.graph.initializer[0].data_type = 0
    elif kind == "unknown type":
        model.graph.initializer[0].data_type = 99


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("own result", "waits for its own result"),
        ("cycle", "waits for its own result"),
        ("no nodes", "holds no nodes"),
        ("no output", "gives nothing out"),
        ("no type", "of type 0, which ONNX does not define"),
        ("unknown type", "of type 99, which ONNX does not define"),
    ],
)
def test_a_graph_that_means_nothing_is_unusable(exports, tmp_path, kind, message):
    model = onnx.load(exports / "small-clip-image-linear.onnx")
    spoilt(model, kind)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(UnusableGraph, match=message):
        checked(tmp_path / "m.onnx")


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "m.onnx")

    with pytest.raises(UnusableGraph, match="no file but a device or a pipe"):
        checked(tmp_path / "m.onnx")


def test_a_file_beyond_protobufs_size_is_refused_unread(tmp_path):
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(3 << 30)  # sparse: it takes no room

    with pytest.raises(UnusableGraph, match="3221225472 bytes, more than a protobuf file may"):
        checked(tmp_path / "m.onnx")


def test_weights_of_three_gigabytes_beside_the_file_are_counted_and_not_loaded(external, tmp_path):
    path = external()
    model = onnx.load(path, load_external_data=False)
    huge = model.graph.initializer.add(name="huge", data_type=onnx.TensorProto.FLOAT16, dims=[1536, 1024, 1024], data_location=1)
    huge.external_data.add(key="location", value="huge.data")
    path.write_bytes(model.SerializeToString())
    with (tmp_path / "huge.data").open("wb") as file:
        file.truncate(3 << 30)

    [finding] = checked(path).findings

    assert finding.check == "O14"
    assert "weights are missing, kept twice" in finding.message


@pytest.mark.parametrize("opset", [0, 12, 19])
def test_an_opset_before_fp8_scales_is_a_finding(exports, tmp_path, opset):
    model = onnx.load(exports / "small-clip-image-linear.onnx")
    next(one for one in model.opset_import if not one.domain).version = opset
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())

    assert [(one.check, one.found) for one in checked(tmp_path / "m.onnx").findings] == [("O1", f"opset {opset}")]


@pytest.mark.parametrize("part", ["input", "output"])
def test_a_node_without_what_its_operator_needs_is_unusable(exports, tmp_path, part):
    model = onnx.load(exports / "small-clip-image-linear.onnx")
    node = next(node for node in model.graph.node if node.op_type == "DequantizeLinear")
    del getattr(node, part)[:]
    onnx.save(model, tmp_path / "m.onnx")

    with pytest.raises(UnusableGraph, match=rf"{node.name}.* expected at least 2 and 1"):
        checked(tmp_path / "m.onnx")


def test_a_tensor_that_nothing_makes_is_named(exports, tmp_path):
    model = onnx.load(exports / "small-clip-image-linear.onnx")
    lost = next(node for node in model.graph.node if node.op_type == "LayerNormalization")
    model.graph.node.remove(lost)
    onnx.save(model, tmp_path / "m.onnx")

    assert any(lost.output[0] in one.found for one in checked(tmp_path / "m.onnx").findings if one.check == "O1")


@pytest.mark.parametrize("quantized", [3, 2])
def test_attention_that_a_policy_promises_is_counted(exports, tmp_path, quantized):
    model = onnx.load(exports / "small-clip-image-linear.onnx")
    for block in range(quantized):
        quantized_scores(model, block)
        quantized_context(model, block)
    onnx.save(model, tmp_path / "m.onnx")
    promise = read_gate_file(GATE_FILE).policy("linear")
    attention = replace(promise, attention_fp8=True, kept_fp16=())

    found = counts_match(GraphView(read_onnx_graph(tmp_path / "m.onnx")), attention, None)

    assert [(one.check, one.block) for one in found] == [("O12", LAST)] * 2 * (3 - quantized)


@pytest.mark.parametrize("arguments", [["--policy", "linaer"], ["--gate-file", "absent.toml"], ["--reference", "absent.onnx"]])
def test_what_is_named_wrongly_is_usage(exports, arguments, capfd):
    assert main(["check-graph", str(exports / "small-clip-image-linear.onnx"), *arguments]) == 2


def test_an_orphan_of_weights_elsewhere_counts(exports, tmp_path):
    model = onnx.load(exports / "small-clip-image-linear.onnx")
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1024, 1024), np.float16), "orphan"))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data")

    assert [one.check for one in checked(tmp_path / "m.onnx").findings] == ["O14"]
