"""Reads the layer table of an engine from what its builder left.

Which document it is, is asked of its content: names of files and version numbers say less.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UnreadableLayerTable
from harness.records.observations import LayerRow, LayerTable, LayerTensor

_REMEDY = (
    "build with ProfilingVerbosity.DETAILED and a logger that keeps VERBOSE messages, as backend tensorrt_rtx does, and keep the whole log"
)

# The message that opens the table, as a logger writes it: "[VERBOSE] Layers:", or "[Severity.VERBOSE] Layers:".
_TABLE = re.compile(r"^\[[\w.]*VERBOSE\] Layers:\n", re.MULTILINE)
_AFTER_TABLE = "\n\nI/O Tensors:\n"
_ROW_START = re.compile(r"\n(?=Name: )")
_METADATA = re.compile(r"\[ONNX Layer: (.*?)\](?=[\x1e\x1f]*\[ONNX Layer: |[\x1e\x1f]*\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Source:
    """One kind of document: its name for people, whether a text is one, and how its rows are read."""

    name: str
    recognises: Callable[[str], bool]
    rows: Callable[[str], tuple[LayerRow, ...]]


def read_layer_table(path: Path) -> LayerTable:
    """The layers of an engine, in the order its builder lists them.

    Raises:
        UnreadableLayerTable: the file is missing, holds no table, more than one, or one that is cut.
    """
    try:
        # Bytes, not text mode: node names may hold a lone carriage return, which text mode would turn into a line end.
        text = path.read_bytes().decode("utf-8", errors="replace").replace("\r\n", "\n")
    except OSError as error:
        raise UnreadableLayerTable(f"{path} cannot be read ({error.strerror}); expected a build log; {_REMEDY}") from error
    source = next((source for source in _SOURCES if source.recognises(text)), None)
    if source is None:
        raise UnreadableLayerTable(f"{path} holds no layer table; expected a TensorRT-RTX build log with one; {_REMEDY}")
    try:
        rows = source.rows(text)
    except _Unreadable as error:
        raise UnreadableLayerTable(f"{path}: {error}; {_REMEDY}") from error
    if not rows:
        raise UnreadableLayerTable(f"{path} holds a layer table without rows; expected at least one layer; {_REMEDY}")
    return LayerTable(rows=rows, source=source.name)


class _Unreadable(Exception):
    """What is wrong with a table, without the file's name."""


# -- TensorRT-RTX: one verbose message with a line a layer ----------------------------------------------------------------------


def _is_rtx_log(text: str) -> bool:
    return _TABLE.search(text) is not None


def _rtx_rows(text: str) -> tuple[LayerRow, ...]:
    openings = list(_TABLE.finditer(text))
    if len(openings) > 1:
        raise _Unreadable(f"holds {len(openings)} layer tables; expected one; build for one target and keep one log a build")
    table, end, _ = text[openings[0].end() :].partition(_AFTER_TABLE)
    if not end:
        raise _Unreadable("the layer table is cut before its end")
    lines = _ROW_START.split(table.strip("\n"))
    return tuple(_RtxRow(line, number).read() for number, line in enumerate(lines, start=1) if line)


class _RtxRow:
    """One row, read from left to right in the builder's fixed order of keys.

    Names come from the ONNX file and may hold anything, brackets and commas included. So no bracket is counted: each name ends
    where the next key follows with a value of its form.
    """

    _HEAD = re.compile(r"Name: (?P<name>.*?), LayerType: (?P<kind>\w*), (?=Inputs: \[(?:\]| \{ Name: ))", re.DOTALL)
    _LIST = re.compile(r"(?P<key>\w+): \[")
    _TENSOR = re.compile(
        r",? \{ Name: (?P<name>.*?), Dimensions: \[(?P<shape>[-\d,]*)\], Strides: \[[-\d,]*\], StrideOrder: \[[-\d,]*\], "
        r"Datatype: (?P<datatype>[^,]*?), Format: (?P<format>.*?) \}(?=\]|, \{ Name: )",
        re.DOTALL,
    )
    _LIST_END = re.compile(r"\], ")
    _FOOT = re.compile(
        r"TacticName: (?P<tactic>.*?), StreamId: (?P<stream>-?\d+)(?:, EventId: -?\d+)?, Metadata: (?P<metadata>.*)\Z", re.DOTALL
    )

    def __init__(self, text: str, number: int) -> None:
        self._text = text
        self._number = number
        self._at = 0

    def read(self) -> LayerRow:
        head = self._take(self._HEAD, "Name and LayerType")
        inputs, constants, outputs = (self._tensors(key) for key in ("Inputs", "Constants", "Outputs"))
        foot = self._take(self._FOOT, "TacticName, StreamId and Metadata")
        return LayerRow(
            name=head["name"],
            kind=head["kind"],
            inputs=inputs,
            constants=constants,
            outputs=outputs,
            tactic=foot["tactic"],
            onnx_nodes=onnx_nodes(foot["metadata"]),
            stream=int(foot["stream"]),
        )

    def _tensors(self, key: str) -> tuple[LayerTensor, ...]:
        if self._take(self._LIST, key)["key"] != key:
            raise _Unreadable(f"row {self._number} of the layer table does not list {key} where they belong")
        tensors: list[LayerTensor] = []
        while match := self._TENSOR.match(self._text, self._at):
            self._at = match.end()
            tensors.append(_tensor(match))
        self._take(self._LIST_END, f"the end of {key}")
        return tuple(tensors)

    def _take(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _Unreadable(f"row {self._number} of the layer table cannot be read: expected {what} at {self._text[self._at :][:80]!r}")
        self._at = match.end()
        return match


def _tensor(match: re.Match[str]) -> LayerTensor:
    shape = tuple(int(length) for length in match["shape"].split(",") if length)
    return LayerTensor(name=match["name"], shape=shape, datatype=match["datatype"], format=match["format"])


# -- all sources -----------------------------------------------------------------------------------------------------------------


def onnx_nodes(metadata: str) -> tuple[str, ...]:
    """Names of the ONNX nodes in a layer's metadata, in order, each once.

    The compiler writes `[ONNX Layer: name]` for each, with the control characters 0x1E and 0x1F between them.
    """
    return tuple(dict.fromkeys(_METADATA.findall(metadata)))


_SOURCES = (_Source("TensorRT-RTX build log", _is_rtx_log, _rtx_rows),)
