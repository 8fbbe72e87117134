"""Reads the layer table of an engine: from the log of its build, or from what the engine inspector says of it.

Which kind of document a file is, is asked of its content: names of files and version numbers say less.
"""

from harness.measure.layers.metadata import onnx_nodes
from harness.measure.layers.reading import read_layer_table

__all__ = ["onnx_nodes", "read_layer_table"]
