"""From a file to a layer table: plain or compressed, a log or JSON, whatever its name."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from harness.errors import UnreadableLayerTable
from harness.measure.layers.inspector import is_json, read_inspector
from harness.measure.layers.metadata import NoTable
from harness.measure.layers.rtx_log import is_rtx_log, read_rtx_log
from harness.records.observations import LayerTable

_REMEDY = (
    "build with ProfilingVerbosity.DETAILED; then keep the whole log with its VERBOSE messages (TensorRT-RTX), "
    "or the engine inspector's get_engine_information(LayerInformationFormat.JSON) (TensorRT 10 and 11)"
)
_GZIP = b"\x1f\x8b"
# The tables of ViT-L-14 take 2 MB. What is far beyond that is another kind of file, and would only fill the memory.
_LARGEST_BYTES = 128 * 2**20


def read_layer_table(path: Path) -> LayerTable:
    """The layers of an engine, in the order its builder lists them.

    Args:
        path: a TensorRT-RTX build log, or the JSON of the engine inspector of TensorRT 10 or 11; gzip is undone.

    Raises:
        UnreadableLayerTable: the file is missing, empty, too large or binary, or holds no table, more than one, or one that is
            cut or lists names only.
    """
    try:
        table = _read(_text(path))
    except OSError as error:
        raise UnreadableLayerTable(f"{path} cannot be read ({error.strerror or error}); expected a build log; {_REMEDY}") from error
    except NoTable as error:
        raise UnreadableLayerTable(f"{path}: {error}; {_REMEDY}") from error
    if not table.rows:
        raise UnreadableLayerTable(f"{path} holds a layer table without rows; expected at least one layer; {_REMEDY}")
    return table


def _read(text: str) -> LayerTable:
    if is_rtx_log(text):
        return read_rtx_log(text)
    if is_json(text):
        return read_inspector(text)
    raise NoTable("holds no layer table; expected a TensorRT-RTX build log or an engine inspector's JSON")


def _text(path: Path) -> str:
    # Bytes, not text mode: node names may hold a lone carriage return, which text mode would turn into a line end.
    data = _content(path)
    if not data.strip():
        raise NoTable("the file is empty")
    if b"\0" in data:
        raise NoTable("the file is binary; expected a build log or JSON; the table of a plan is what the engine inspector says of it")
    return data.decode("utf-8", errors="replace").replace("\r\n", "\n")


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_LARGEST_BYTES + 1)
    if data.startswith(_GZIP):
        try:
            with gzip.open(path) as file:
                data = file.read(_LARGEST_BYTES + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise NoTable(f"its compressed content is cut or damaged ({error})") from error
    if len(data) > _LARGEST_BYTES:
        raise NoTable(f"the file holds more than {_LARGEST_BYTES} bytes, far beyond any layer table")
    return data
