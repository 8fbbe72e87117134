"""The names of ONNX nodes that every source keeps with a layer, in one spelling; and what a reader raises."""

from __future__ import annotations

import re

_METADATA = re.compile(r"\[ONNX Layer: (.*?)\](?=[\x1e\x1f]*\[ONNX Layer: |[\x1e\x1f]*\Z)", re.DOTALL)


class NoTable(Exception):
    """What is wrong with a document, without the file's name."""


def onnx_nodes(metadata: str) -> tuple[str, ...]:
    """Names of the ONNX nodes in a layer's metadata, in order, each once.

    The compiler writes `[ONNX Layer: name]` for each, with the control characters 0x1E and 0x1F between them.
    """
    return tuple(dict.fromkeys(_METADATA.findall(metadata)))
