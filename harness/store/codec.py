"""Records to JSON and back, strictly: what is written reads back equal, and what is odd is refused by name.

Every object is written with its keys sorted and every list of plain values on one line, so that files diff well and
raw samples do not fill a screen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import numpy as np

from harness.errors import EnginegateError, StoreFailed

JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]
Record = TypeVar("Record")

_NOT_FINITE = "expected a finite number, or null where a figure is unknown, since every comparison with NaN passes"
_CONFLICT_MARKERS = (b"<<<<<<< ", b"======= ", b">>>>>>> ", b"||||||| ")


def to_json(record: object) -> bytes:
    """The record as JSON: keys sorted, indented by two, ending in a newline.

    Raises:
        StoreFailed: a number in it is NaN or infinite; the message names the field.
    """
    plain = to_plain(record)
    text = "".join(_pretty(plain, indent=0)) + "\n"
    # A file name that is no UTF-8 holds lone surrogates, which UTF-8 cannot: their escapes are JSON and read back equal.
    return text.encode("utf-8", errors="backslashreplace")


def to_plain(record: object) -> Any:
    """The record as plain dictionaries, lists, texts and numbers, which any process and any JSON writer takes.

    Raises:
        StoreFailed: a number in it is NaN or infinite; the message names the field.
    """
    plain = msgspec.to_builtins(record, enc_hook=_encoded)
    for field, number in _not_finite(plain, ""):
        raise StoreFailed(f"cannot write {type(record).__name__}: {field} is {number}; {_NOT_FINITE}")
    return plain


def canonical_json(value: JsonValue) -> bytes:
    """The one compact spelling of a value that digests are taken of: sorted keys, no blanks, ASCII only.

    Raises:
        StoreFailed: a number in it is NaN or infinite; the message names the field.
    """
    return json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def from_json(cls: type[Record], data: bytes, *, origin: str, refuse: type[EnginegateError] = StoreFailed) -> Record:
    """Read a record of type `cls`.

    Args:
        cls: the record's class.
        data: the document.
        origin: file the data came from, as errors name it.
        refuse: what to raise.

    Raises:
        EnginegateError: as `refuse`; no JSON (with the line), a field missing, misspelt or of another type (with the field), NaN.
    """
    return from_plain(cls, read_json(data, origin=origin, refuse=refuse), origin=origin, refuse=refuse)


def read_json(data: bytes, *, origin: str, refuse: type[EnginegateError] = StoreFailed) -> JsonValue:
    """Parse JSON, without the extensions of Python's parser: no NaN, no infinity, no key given twice.

    Raises:
        EnginegateError: as `refuse`; merge-conflict markers, no UTF-8 or no JSON, each with its line.
    """
    if line := _conflict_line(data):
        raise refuse(f"{origin}:{line}: holds merge-conflict markers; expected JSON; resolve the conflict and run again")
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refused, parse_float=_finite, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise refuse(
            f"{origin}:{error.lineno}: is no JSON ({error.msg}, column {error.colno}); restore the file or make it anew"
        ) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise refuse(f"{origin}:{line}: is no UTF-8 (byte {error.start}); expected JSON; restore the file or make it anew") from error
    except (ValueError, RecursionError) as error:
        raise refuse(f"{origin}: {error}; restore the file or make it anew") from error


def from_plain(cls: type[Record], plain: JsonValue, *, origin: str, refuse: type[EnginegateError] = StoreFailed) -> Record:
    """Make a record of parsed JSON.

    Raises:
        EnginegateError: as `refuse`; a field missing, unknown, of another type, or refused by the record itself.
    """
    try:
        record = msgspec.convert(plain, cls, dec_hook=_decoded)
    except msgspec.ValidationError as error:
        raise refuse(f"{origin}: {error}; restore the file or make it anew") from error
    except EnginegateError as error:
        raise refuse(f"{origin}: {error}") from error
    for field in _unknown(plain, msgspec.to_builtins(record, enc_hook=_encoded), "$"):
        raise refuse(f"{origin}: has the unknown key {field}; expected only what this version writes; remove the key or upgrade enginegate")
    return record


def require_schema(plain: JsonValue, schema: str, *, origin: str, refuse: type[EnginegateError] = StoreFailed) -> None:
    """Refuse a document that does not say `schema`, such as `enginegate/run/1`.

    Raises:
        EnginegateError: as `refuse`; it says another schema, none, or a newer number of this one.
    """
    found = plain.get("schema") if isinstance(plain, Mapping) else None
    if found == schema:
        return
    family, _, number = schema.rpartition("/")
    found_family, _, found_number = found.rpartition("/") if isinstance(found, str) else ("", "", "")
    if found_family == family and found_number.isdecimal() and int(found_number) > int(number):
        raise refuse(f"{origin}: has schema {found!r}, made by a newer enginegate; expected {schema!r}; upgrade enginegate")
    raise refuse(f"{origin}: has schema {found!r}; expected {schema!r}; name another file, restore this one or make it anew")


def json_schema(cls: type[object], *, of_others: bool = False) -> dict[str, Any]:
    """JSON Schema (2020-12) of what `to_json` writes for a record of type `cls`.

    Args:
        of_others: the document may be written by others: what has a default may be missing, and keys of their own are left alone.
    """
    schema = msgspec.json.schema(cls, schema_hook=_path_schema)
    if of_others:
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    for component in cast("dict[str, dict[str, Any]]", schema.get("$defs", {})).values():
        if "properties" in component:
            component["additionalProperties"] = False
            component["required"] = sorted(component["properties"])  # defaults are written as well
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _encoded(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return cast("np.generic[Any]", value).item()
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    raise NotImplementedError(f"cannot write a {type(value).__name__} as JSON")


def _decoded(kind: type[object], value: object) -> object:
    if issubclass(kind, Path) and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected `str`, got `{type(value).__name__}`")


def _path_schema(kind: type[object]) -> dict[str, Any]:
    if issubclass(kind, Path):
        return {"type": "string"}
    raise NotImplementedError(f"no JSON Schema for {kind.__name__}")


def _pretty(value: JsonValue, *, indent: int) -> Iterator[str]:
    """Pieces of indented JSON. A list stays on one line when it holds no list and no object."""
    if isinstance(value, Mapping) and value:
        members = ((f"{_scalar(key)}: ", value[key]) for key in sorted(value))
        yield from _bracketed("{}", members, indent)
    elif isinstance(value, list | tuple) and any(_is_nested(item) for item in value):
        yield from _bracketed("[]", (("", item) for item in value), indent)
    else:
        yield _scalar(value)


def _bracketed(brackets: str, members: Iterable[tuple[str, JsonValue]], indent: int) -> Iterator[str]:
    separator = brackets[0]
    for label, value in members:
        yield f"{separator}\n{'  ' * (indent + 1)}{label}"
        yield from _pretty(value, indent=indent + 1)
        separator = ","
    yield f"\n{'  ' * indent}{brackets[1]}"


def _is_nested(value: JsonValue) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _scalar(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False)


def _not_finite(value: JsonValue, field: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield field or "the value", value
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield from _not_finite(member, f"{field}.{key}" if field else key)
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield from _not_finite(member, f"{field}[{index}]")


def _unknown(given: object, known: object, field: str) -> Iterator[str]:
    """Keys of the document that the record has no place for."""
    if isinstance(given, dict) and isinstance(known, dict):
        members = cast("dict[str, object]", given)
        places = cast("dict[str, object]", known)
        for key, member in members.items():
            if key not in places:
                yield f"{field}.{key}"
            else:
                yield from _unknown(member, places[key], f"{field}.{key}")
    elif isinstance(given, list) and isinstance(known, list | tuple):
        pairs = zip(cast("list[object]", given), cast("Sequence[object]", known), strict=True)
        for index, (member, place) in enumerate(pairs):
            yield from _unknown(member, place, f"{field}[{index}]")


def _conflict_line(data: bytes) -> int | None:
    numbered = enumerate(data.splitlines(), start=1)
    return next((number for number, line in numbered if (line + b" ").startswith(_CONFLICT_MARKERS)), None)


def _refused(constant: str) -> float:
    raise ValueError(f"holds {constant}; {_NOT_FINITE}")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refused(text)


def _once(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"gives the key {twice!r} twice; expected each key once")
    return members
