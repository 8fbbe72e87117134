"""The table of what goes wrong with TensorRT: each row is an event that exists, with its exit code and the test that shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import errors

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| (?P<what>[^|]+) \| `(?P<code>\w+)` \| (?P<exit>\d) \| `(?P<test>test_\w+)` \|$", re.MULTILINE)
ROWS = [match.groupdict() for match in ROW.finditer((ROOT / "docs/tensorrt.md").read_text(encoding="utf-8"))]
CODES = {kind.code: kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EnginegateError)}
TESTS = {name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"^ *def (test_\w+)", path.read_text(), re.MULTILINE)}


def test_the_table_is_found() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=[re.sub(r"\W+", "-", row["what"]) for row in ROWS])
def test_every_row_is_an_event_with_that_exit_code_and_a_test_that_shows_it(row: dict[str, str]) -> None:
    assert CODES.get(row["code"]) == int(row["exit"])
    assert row["test"] in TESTS
