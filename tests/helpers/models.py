"""ONNX models of a few nodes, written by hand."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HALF, FP8 = TensorProto.FLOAT16, TensorProto.FLOAT8E4M3FN
SHAPE = [2, 4, 4]


def half(name, values):
    return numpy_helper.from_array(np.asarray(values, dtype=np.float16), name)


def fp8(name, dims):
    return helper.make_tensor(name, FP8, dims, bytes(int(np.prod(dims))), raw=True)


def model(nodes, constants=(), *, inputs=("x",), output="y", noted=(), domains=("",), shape=SHAPE, returns=None):
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, HALF, shape) for name in inputs],
        [helper.make_tensor_value_info(output, HALF, returns or shape)],
        list(constants),
        value_info=list(noted),
    )
    versions = {"": 20, "trt": 1}
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid(domain, versions[domain]) for domain in domains])


def q_dq(source, name, *, domain=""):
    """Nodes that quantize and dequantize `source` into `<name>_dq`."""
    return [
        helper.make_node("QuantizeLinear", [source, "scale", "zero"], [f"{name}_q"], f"{name}/Q", domain=domain),
        helper.make_node("DequantizeLinear", [f"{name}_q", "scale"], [f"{name}_dq"], f"{name}/DQ", domain=domain),
    ]


def op_types(graph_model):
    return [node.op_type for node in graph_model.graph.node]


def valid(graph_model):
    onnx.checker.check_model(graph_model, full_check=True)
    return True
