from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from harness.errors import UnusableGraph
from harness.measure.onnx_graph import read_onnx_graph


def _save(
    path: Path,
    constants: Sequence[TensorProto] = (),
    nodes: Sequence[NodeProto] = (),
    opsets: Sequence[onnx.OperatorSetIdProto] = (),
) -> Path:
    last = helper.make_node("Relu", ["x"], ["y"], name="/relu")
    graph = helper.make_graph(
        [*nodes, last],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", 3, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["batch", 3, 4])],
        list(constants),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), *opsets]), path)
    return path


def _fp8(name: str, values: Sequence[float]) -> TensorProto:
    array = np.array(values, ml_dtypes.float8_e4m3fn)
    return helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, array.shape, array.tobytes(), raw=True)


def test_nodes_ports_and_opsets_are_read_as_the_file_lists_them(tmp_path: Path) -> None:
    node = helper.make_node("Clip", ["x", "", "top"], ["z"], name="/clip", domain="ai.onnx")
    graph = read_onnx_graph(_save(tmp_path / "m.onnx", nodes=[node], opsets=[helper.make_opsetid("trt", 1)]))
    assert [(node.name, node.op_type, node.domain) for node in graph.nodes] == [("/clip", "Clip", ""), ("/relu", "Relu", "")]
    assert graph.nodes[0].inputs == ("x", "", "top")
    assert [(port.name, port.dtype, port.shape) for port in graph.inputs] == [("x", "FLOAT16", ("batch", 3, "?"))]
    assert graph.outputs[0].shape == ("batch", 3, 4)
    assert dict(graph.opsets) == {"": 20, "trt": 1}


@pytest.mark.parametrize(
    ("tensor", "dtype", "nbytes", "values"),
    [
        (_fp8("c", [448.0, -0.5]), "FLOAT8E4M3FN", 2, [448.0, -0.5]),
        (numpy_helper.from_array(np.array([0.5], np.float16), "c"), "FLOAT16", 2, [0.5]),
        (numpy_helper.from_array(np.array([1.5], ml_dtypes.bfloat16), "c"), "BFLOAT16", 2, [1.5]),
        (numpy_helper.from_array(np.array([7, -7, 1], ml_dtypes.int4), "c"), "INT4", 2, [7, -7, 1]),
        (numpy_helper.from_array(np.array([True]), "c"), "BOOL", 1, [1]),
        (helper.make_tensor("c", TensorProto.FLOAT16, [1], [0.25]), "FLOAT16", 2, [0.25]),
        (helper.make_tensor("c", TensorProto.INT64, [2], [-1, 64]), "INT64", 16, [-1, 64]),
    ],
    ids=["fp8", "fp16", "bfloat16", "int4", "bool", "typed fp16", "int64"],
)
def test_small_constants_keep_their_values(tensor: TensorProto, dtype: str, nbytes: int, values: list[float], tmp_path: Path) -> None:
    constant = read_onnx_graph(_save(tmp_path / "m.onnx", [tensor])).constants["c"]
    assert (constant.dtype, constant.nbytes) == (dtype, nbytes)
    assert constant.value is not None
    assert constant.value.tolist() == values
    assert constant.value.dtype in (np.float64, np.int64)


def test_large_constants_are_counted_without_their_values(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.zeros((5, 13), np.float16), "weights")
    constant = read_onnx_graph(_save(tmp_path / "m.onnx", [weights])).constants["weights"]
    assert (constant.shape, constant.nbytes, constant.value) == ((5, 13), 130, None)


def test_constant_nodes_give_constants_too(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["tensor"], value=numpy_helper.from_array(np.array(0.5, np.float16))),
        helper.make_node("Constant", [], ["floats"], value_floats=[0.5, 2.0]),
        helper.make_node("Constant", [], ["int"], value_int=3),
        helper.make_node("Constant", [], ["word"], value_string="text"),
    ]
    graph = read_onnx_graph(_save(tmp_path / "m.onnx", nodes=nodes))
    values = {name: constant.value.tolist() for name, constant in graph.constants.items() if constant.value is not None}
    assert values == {"tensor": 0.5, "floats": [0.5, 2.0], "int": 3}
    assert len(graph.nodes) == 5


def test_shapes_are_those_of_one_row_through_every_node(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.zeros((12, 70), np.float16), "w")
    folded = _fp8("q", [0.0] * 12)
    scale = numpy_helper.from_array(np.array(0.5, np.float16), "s")
    parts = numpy_helper.from_array(np.array([-1, 3, 2, 2], np.int64), "parts")
    nodes = [
        helper.make_node("MatMul", ["tokens", "w"], ["wide"], name="/wide"),
        helper.make_node("DequantizeLinear", ["q", "s"], ["dq"], name="/dq", domain="trt"),
        helper.make_node("Reshape", ["dq", "parts"], ["split"], name="/split"),
        helper.make_node("Unknown", ["x"], ["foreign"], name="/foreign", domain="trt"),
    ]
    path = _save(tmp_path / "m.onnx", [weight, folded, scale, parts], nodes, [helper.make_opsetid("trt", 1)])
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("tokens", TensorProto.FLOAT16, ["batch", 5, 12]))
    onnx.save(model, path)
    shapes = {name: port.shape for name, port in read_onnx_graph(path).tensors.items()}
    assert (shapes["tokens"], shapes["wide"], shapes["dq"], shapes["split"]) == ((1, 5, 12), (1, 5, 70), (12,), (1, 3, 2, 2))
    assert "foreign" not in shapes


def test_rows_picked_by_computed_indices_count_as_the_batch(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"], name="/places"),
        helper.make_node("Transpose", ["places"], ["rows"], name="/rows"),
    ]
    graph = read_onnx_graph(_save(tmp_path / "m.onnx", nodes=nodes))
    shapes = {name: port.shape for name, port in graph.tensors.items()}
    assert shapes["rows"] == (1, 3)
    assert "places" not in shapes


def test_an_initializer_listed_as_an_input_is_no_input(tmp_path: Path) -> None:
    path = _save(tmp_path / "m.onnx", [numpy_helper.from_array(np.zeros(2, np.float32), "w")])
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]))
    onnx.save(model, path)
    assert [port.name for port in read_onnx_graph(path).inputs] == ["x"]


@pytest.mark.parametrize("content", [b"", b"hello, this is text\n" * 9, None], ids=["empty", "text", "absent"])
def test_what_is_no_onnx_file_is_unusable(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnusableGraph, match=r"m\.onnx"):
        read_onnx_graph(path)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_cut_file_is_unusable(kept: float, tmp_path: Path) -> None:
    path = _save(tmp_path / "m.onnx", [numpy_helper.from_array(np.zeros(500, np.float32), "w")])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(UnusableGraph, match="cut or is no ONNX file"):
        read_onnx_graph(path)


def test_control_flow_is_refused_with_the_node_that_has_it(tmp_path: Path) -> None:
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "b", [], [helper.make_empty_tensor_value_info("b")])
    node = helper.make_node("If", ["flag"], ["z"], name="/if", then_branch=branch, else_branch=branch)
    with pytest.raises(UnusableGraph, match=r"control flow: node '/if' \(If\)"):
        read_onnx_graph(_save(tmp_path / "m.onnx", nodes=[node]))


def test_bytes_that_do_not_fit_the_shape_are_refused(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros((4, 4), np.float16), "w")
    tensor.dims[0] = 5
    with pytest.raises(UnusableGraph, match=r"'w' holds 32 bytes; its shape \[5, 4\] needs 40"):
        read_onnx_graph(_save(tmp_path / "m.onnx", [tensor]))


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A graph whose weight, a scale of 0.5, lies in a file beside it."""
    path = _save(tmp_path / "m.onnx", [numpy_helper.from_array(np.full(2, 0.5, np.float32), "w")])
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.data", size_threshold=0)
    return path


def test_external_data_is_read_and_counted(beside: Path) -> None:
    constant = read_onnx_graph(beside).constants["w"]
    assert constant.nbytes == 8
    assert constant.value is not None
    assert constant.value.tolist() == [0.5, 0.5]


def test_external_data_that_is_missing_or_short_is_refused(beside: Path) -> None:
    data = beside.with_name("m.data")
    data.write_bytes(data.read_bytes()[:5])
    with pytest.raises(UnusableGraph, match=r"m\.data holds 5 bytes; constant 'w' ends at 8"):
        read_onnx_graph(beside)
    data.unlink()
    with pytest.raises(UnusableGraph, match=r"'m\.data', which is not there"):
        read_onnx_graph(beside)


@pytest.mark.parametrize("location", ["../m.data", "/etc/hostname", ""])
def test_external_data_outside_the_files_folder_is_refused(location: str, beside: Path) -> None:
    model = onnx.load(beside, load_external_data=False)
    next(entry for entry in model.graph.initializer[0].external_data if entry.key == "location").value = location
    beside.write_bytes(model.SerializeToString())
    with pytest.raises(UnusableGraph, match="outside the file's folder"):
        read_onnx_graph(beside)


@pytest.mark.parametrize(("is_scale", "is_external"), [(True, False), (False, False), (True, True)])
def test_scales_keep_their_values_at_any_length_and_weights_do_not(tmp_path: Path, is_scale: bool, is_external: bool) -> None:
    scales = np.linspace(0.5, 1, 3000).astype(np.float16)  # more than stays in the model
    constants = [
        _fp8("codes", [1.0] * 3000),
        numpy_helper.from_array(scales, "scales"),
        numpy_helper.from_array(np.ones((), np.float16), "one"),
    ]
    node = helper.make_node("DequantizeLinear", ["codes", "scales" if is_scale else "one"], ["w"], name="/dq", axis=0)
    path = _save(tmp_path / "m.onnx", constants=constants, nodes=[node])
    if is_external:
        onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.data", size_threshold=0)

    value = read_onnx_graph(path).constants["scales"].value

    assert (value is not None) == is_scale
    assert value is None or np.array_equal(value, scales)
