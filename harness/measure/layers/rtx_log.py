"""TensorRT-RTX: the verbose message at the end of a build log, with a line a layer and a line a port of the engine."""

from __future__ import annotations

import re

from harness.measure.layers.metadata import NoTable, onnx_nodes
from harness.records.observations import LayerRow, LayerTable, LayerTensor

# The message that opens the table, as a logger writes it: "[VERBOSE] Layers:", or "[Severity.VERBOSE] Layers:".
_TABLE = re.compile(r"^\[[\w.]*VERBOSE\] Layers:\n", re.MULTILINE)
_AFTER_TABLE = "\n\nI/O Tensors:\n"
_AFTER_PORTS = "\n\n"
_NUMBER = r"-?\d{1,19}"  # of 64 bits; a longer one is no size
_SHAPE = rf"\[(?P<shape>(?:{_NUMBER}(?:,{_NUMBER})*)?)\]"
_ROW_START = re.compile(r"\n(?=Name: )")
_PORT = re.compile(
    rf" Name: (?P<name>.*?), IOMode: \w+, DataType: (?P<datatype>[^,]*), Dimensions: {_SHAPE}, Location: .*?, "
    r"ProfileInfo: \[.*?Format: (?P<format>.*?) \}\]\s*(?= Name: |\Z)",
    re.DOTALL,
)


def is_rtx_log(text: str) -> bool:
    """Whether a text is a log that holds a layer table."""
    return _TABLE.search(text) is not None


def read_rtx_log(text: str) -> LayerTable:
    """The table in a log.

    Raises:
        NoTable: it is cut, or there is more than one.
    """
    openings = list(_TABLE.finditer(text))
    if len(openings) > 1:
        raise NoTable(f"holds {len(openings)} layer tables; expected one; build for one target and keep one log a build")
    table, end, rest = text[openings[0].end() :].partition(_AFTER_TABLE)
    if not end:
        raise NoTable("the layer table is cut before its end")
    lines = _ROW_START.split(table.strip("\n"))
    rows = tuple(_Row(line, number).read() for number, line in enumerate(lines, start=1) if line)
    return LayerTable(rows=rows, source="TensorRT-RTX build log", ports=_ports(rest.partition(_AFTER_PORTS)[0]))


def _ports(text: str) -> tuple[LayerTensor, ...]:
    """Inputs and outputs of the engine; none where one of them cannot be read, since half a list reads like a whole one."""
    ports: list[LayerTensor] = []
    at = 0
    while match := _PORT.match(text, at):
        at = match.end()
        ports.append(_tensor(match))
    return tuple(ports) if at == len(text) else ()


class _Row:
    """One row, read from left to right in the builder's fixed order of keys.

    Names come from the ONNX file and may hold anything, brackets and commas included. So no bracket is counted: each name ends
    where the next key follows with a value of its form.
    """

    _HEAD = re.compile(r"Name: (?P<name>.*?), LayerType: (?P<kind>\w*), (?=Inputs: \[(?:\]| \{ Name: ))", re.DOTALL)
    _LIST = re.compile(r"(?P<key>\w+): \[")
    _TENSOR = re.compile(
        rf",? \{{ Name: (?P<name>.*?), Dimensions: {_SHAPE}, Strides: \[[-\d,]*\], StrideOrder: \[[-\d,]*\], "
        r"Datatype: (?P<datatype>[^,]*?), Format: (?P<format>.*?) \}(?=\]|, \{ Name: )",
        re.DOTALL,
    )
    _LIST_END = re.compile(r"\], ")
    _FOOT = re.compile(
        rf"TacticName: (?P<tactic>.*?), StreamId: (?P<stream>{_NUMBER})(?:, EventId: -?\d+)?, Metadata: (?P<metadata>.*)\Z", re.DOTALL
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
            raise NoTable(f"row {self._number} of the layer table does not list {key} where they belong")
        tensors: list[LayerTensor] = []
        while match := self._TENSOR.match(self._text, self._at):
            self._at = match.end()
            tensors.append(_tensor(match))
        self._take(self._LIST_END, f"the end of {key}")
        return tuple(tensors)

    def _take(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise NoTable(f"row {self._number} of the layer table cannot be read: expected {what} at {self._text[self._at :][:80]!r}")
        self._at = match.end()
        return match


def _tensor(match: re.Match[str]) -> LayerTensor:
    shape = tuple(int(length) for length in match["shape"].split(",")) if match["shape"] else ()
    return LayerTensor(name=match["name"], shape=shape, datatype=match["datatype"], format=match["format"])
