"""Opens ONNX files without loading their weights: large constants stay on disk, and it is noted where."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UnusableGraph
from harness.need import need
from harness.records.graph import ByteSpan

KEPT_BYTES = 1024  # raw data up to this size stays in the model: scales, zero points, shapes and axes

_LARGEST_BYTES = 2**31 - 1  # of one protobuf message, by its specification

# Field numbers of onnx.proto3.
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_NAME, _TENSOR_RAW_DATA = 7, 5, 8, 9
# Wire types of protobuf, and the bytes that those of fixed size take.
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedOnnx:
    """A model without the raw data of large initializers, and where the raw data of each initializer lies."""

    model: Any
    spans: dict[str, ByteSpan]
    nbytes: int


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    start: int
    value: int
    end: int


def open_onnx(path: Path) -> OpenedOnnx:
    """The model in `path`.

    Raises:
        UnusableGraph: the file is missing, cut, no ONNX, or too large for one protobuf message.
    """
    onnx = need("onnx", extra=None, to="read ONNX files")
    protobuf = need("google.protobuf.message", extra=None, to="read ONNX files")
    model, spans = onnx.ModelProto(), {}
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UnusableGraph(f"{path} is no file but a device or a pipe; expected an ONNX file")
        nbytes = path.stat().st_size
        if nbytes > _LARGEST_BYTES:
            raise UnusableGraph(f"{path} holds {nbytes} bytes, more than a protobuf file may; save its weights as external data")
        if nbytes:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                model.ParseFromString(_without_large_data(data, path, spans))
    except OSError as error:
        raise UnusableGraph(f"{path} cannot be read ({error.strerror}); expected an ONNX file") from error
    except (protobuf.DecodeError, _CutError) as error:
        raise UnusableGraph(f"{path} is cut or is no ONNX file ({error}); export it again") from error
    return OpenedOnnx(model=model, spans=spans, nbytes=nbytes)


class _CutError(Exception):
    """A field reaches beyond what holds it."""


def _without_large_data(data: mmap.mmap, path: Path, spans: dict[str, ByteSpan]) -> bytes:
    parts = []
    for field in _fields(data, 0, len(data)):
        if field.number == _MODEL_GRAPH:
            parts.append(_wrapped(field.number, _graph_without_large_data(data, field, path, spans)))
        else:
            parts.append(data[field.start : field.end])
    return b"".join(parts)


def _graph_without_large_data(data: mmap.mmap, graph: _Field, path: Path, spans: dict[str, ByteSpan]) -> bytes:
    parts = []
    for field in _fields(data, graph.value, graph.end):
        if field.number == _GRAPH_INITIALIZER:
            parts.append(_wrapped(field.number, _tensor_without_large_data(data, field, path, spans)))
        else:
            parts.append(data[field.start : field.end])
    return b"".join(parts)


def _tensor_without_large_data(data: mmap.mmap, tensor: _Field, path: Path, spans: dict[str, ByteSpan]) -> bytes:
    fields = list(_fields(data, tensor.value, tensor.end))
    name = next((data[field.value : field.end] for field in fields if field.number == _TENSOR_NAME), b"")
    parts = []
    for field in fields:
        if field.number == _TENSOR_RAW_DATA:
            nbytes = field.end - field.value
            spans[name.decode("utf-8", "replace")] = ByteSpan(path=path, offset=field.value, nbytes=nbytes)
            if nbytes > KEPT_BYTES:
                continue
        parts.append(data[field.start : field.end])
    return b"".join(parts)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    """The fields of one protobuf message between two offsets."""
    while start < end:
        tag, value = _varint(data, start, end)
        wire = tag & 7
        if wire == _VARINT:
            _, stop = _varint(data, value, end)
        elif wire == _BYTES:
            nbytes, value = _varint(data, value, end)
            stop = value + nbytes
        elif wire in _FIXED:
            stop = value + _FIXED[wire]
        else:
            raise _CutError(f"unknown field type {wire} at byte {start}")
        if stop > end:
            raise _CutError(f"the field at byte {start} ends at {stop}, beyond {end}")
        yield _Field(tag >> 3, start, value, stop)
        start = stop


def _varint(data: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    number = shift = 0
    for place in range(start, min(end, start + 10)):
        number |= (data[place] & 0x7F) << shift
        shift += 7
        if data[place] < 0x80:
            return number, place + 1
    raise _CutError(f"a number without an end at byte {start}")


def _wrapped(number: int, content: bytes) -> bytes:
    return bytes([*_encoded(number << 3 | _BYTES), *_encoded(len(content))]) + content


def _encoded(number: int) -> Iterator[int]:
    while number >= 0x80:
        yield number & 0x7F | 0x80
        number >>= 7
    yield number
