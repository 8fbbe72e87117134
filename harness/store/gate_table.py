"""A table of gate.toml, read strictly: errors name the file, the table and the key."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from harness.errors import BadGateFile

Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class GateTable:
    """One table of the file, with the place that errors name. Each reader below raises BadGateFile with that place."""

    place: str
    values: Mapping[str, Any]

    def refuse(self, message: str, cause: Exception | None = None) -> NoReturn:
        raise BadGateFile(f"{self.place}: {message}") from cause

    def allow(self, keys: Collection[str]) -> None:
        for key in self.values:
            if key not in keys:
                self.refuse(f"has the unknown key {key!r}; expected {one_of(keys)}{meant(key, keys)}")

    def table(self, key: str) -> GateTable:
        return GateTable(f"{self.place}: [{key}]", self._typed(key, dict, "a table", {}))

    def tables(self, key: str) -> list[Any]:
        return self._typed(key, list, f"[[{key}]] tables", [])

    def text(self, key: str) -> str:
        text = self._typed(key, str, "a text in quotes")
        return text if text.strip() else self.refuse(f"{key} is empty; expected a text")

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        texts = self._typed(key, list, "a list of texts", None if default is None else list(default))
        for item in texts:
            if not isinstance(item, str) or not item.strip():
                self.refuse(f"{key} holds {item!r}; expected a list of texts in quotes")
        return tuple(texts)

    def whole(self, key: str, *, minimum: int, default: int | None = None) -> int:
        number = self._typed(key, int, "a whole number", default)
        return number if number >= minimum else self.refuse(f"{key} is {number}; expected a whole number of at least {minimum}")

    def number(self, key: str, default: float | None = None) -> float:
        number = float(self._typed(key, (int, float), "a number", default))
        if not math.isfinite(number):
            self.refuse(f"{key} is {number}; expected a finite number, since every comparison with NaN passes")
        return number

    def flag(self, key: str, *, default: bool | None = None) -> bool:
        return self._typed(key, bool, "true or false", default)

    def day(self, key: str) -> date:
        day = self._typed(key, date, "a day without quotes, such as 2027-01-31")
        # In Python a time is a day as well.
        return self.refuse(f"{key} is {day}; expected a day without a time") if isinstance(day, datetime) else day

    def choice(self, key: str, kind: type[Choice]) -> Choice:
        return self.member(key, self.text(key), kind)

    def member(self, key: str, name: str, kind: type[Choice]) -> Choice:
        if name not in set(kind):
            self.refuse(f"{key} names {name!r}; expected {one_of(kind)}{meant(name, kind)}")
        return kind(name)

    def _typed(self, key: str, kind: type | tuple[type, ...], wanted: str, default: Any = None) -> Any:
        if key not in self.values and default is not None:
            return default
        if key not in self.values:
            self.refuse(f"has no {key}; expected {wanted}; add {key} = ...")
        value = self.values[key]
        # In Python true is a number as well.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.refuse(f"{key} is {value!r}; expected {wanted}")
        return value


def one_of(names: Iterable[str]) -> str:
    return f"one of {', '.join(names)}"


def meant(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(map(str, names)), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
