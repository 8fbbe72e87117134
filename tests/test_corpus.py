"""The corpus report in docs is what the corpus says today."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import engine_defects, onnx_defects
from tests.helpers.corpus import Row, engine_rows, report
from tests.helpers.engine_tables import stored_engine

PAGE = Path(__file__).parents[1] / "docs" / "corpus.md"


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    """Cells of the page's tables, without their headings."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith(("| O", "| E"))]


def test_the_page_lists_every_defect_that_exists(rows):
    defects = (*onnx_defects.DEFECTS, *engine_defects.DEFECTS)

    assert [(check, name.strip("`")) for check, name, *_ in rows] == [(defect.check, defect.name) for defect in defects]


def test_no_defect_of_the_page_is_missed(rows):
    for _, name, *cells in rows:
        assert all(cell == "-" or cell.startswith("3 of 3, ") for cell in cells), name
        assert any(cell != "-" for cell in cells), name


def test_the_engine_table_of_the_page_is_what_the_stored_engines_give():
    table = [row.markdown() for row in engine_rows({recipe: stored_engine("image", recipe) for recipe in ("linear", "attention")})]

    assert [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| E")] == table


def test_a_missed_defect_is_told():
    missed = Row("E2", "activation_in_half", {"linear": (("a", True), ("b", False), ("c", True))})

    page = report([], [missed])

    assert "1 defects, 1 missed." in page
    assert "| E2 | `activation_in_half` | **missed:** 2 of 3, `b` | - |" in page
