"""The corpus report: every planted defect, the check meant for it, and where that check found it, on real exports and engines.

`python -m tests.helpers.corpus` makes what it needs of ViT-B-32's image tower (from the artifact cache where it can) and prints the report
as Markdown; `--write FILE` also keeps it. The exit code is 1 when a defect was missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.judge.engine_checks.all_checks import all_findings
from harness.judge.engine_checks.evidence import EngineEvidence
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from tests.helpers import engine_defects, onnx_defects
from tests.helpers.engine_tables import engine_evidence, promise
from tests.helpers.gates import REPOSITORY

ENCODER = EncoderSpec.parse("ViT-B-32/image")
RECIPES = ("linear", "attention")
BLOCKS = (0, 6, 11)
SHOWN = 6  # the block whose node a cell names

Places = set[tuple[str, str | None]]

_HEAD = """\
# Planted defects, and where they are found

Each function of `tests/helpers/onnx_defects.py` breaks one thing in a clean export, each of `tests/helpers/engine_defects.py` one thing in
the layer table of a clean engine. Each is planted alone in block 0, 6 and 11 of ViT-B-32's image tower. A cell says in how many of the
three blocks the check meant for the defect found it at the node where it was planted, and names that node in block 6; "-" where a recipe
has nothing of the kind to break. The clean graphs and engines give no finding. Made by `tox run -e corpus -- --write docs/corpus.md`.
"""


class Defect(Protocol):
    """What both kinds of defects have in common."""

    @property
    def check(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def recipes(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Row:
    """One defect: in each recipe, the node planted at in each block, and whether its check found it there."""

    check: str
    name: str
    cells: dict[str, tuple[tuple[str | None, bool], ...]]

    @property
    def missed(self) -> bool:
        return any(not found for cell in self.cells.values() for _, found in cell)

    def markdown(self) -> str:
        return f"| {self.check} | `{self.name}` | {' | '.join(self._cell(recipe) for recipe in RECIPES)} |"

    def _cell(self, recipe: str) -> str:
        if recipe not in self.cells:
            return "-"
        cell = self.cells[recipe]
        count = sum(found for _, found in cell)
        node = cell[BLOCKS.index(SHOWN)][0]
        place = f"`{node}`" if node else "the whole file" if self.check.startswith("O") else "the whole engine"
        return f"{'' if count == len(BLOCKS) else '**missed:** '}{count} of {len(BLOCKS)}, {place}"


def rows_of(defects: Iterable[Defect], tries: dict[str, Callable[[Defect, int], tuple[Places, str | None]]]) -> list[Row]:
    """Plant each defect in each recipe and block.

    Args:
        tries: by recipe, what plants a defect in a block and says what was found, and at which node it was planted.
    """
    return [
        Row(defect.check, defect.name, {recipe: _tried(defect, tries[recipe]) for recipe in RECIPES if recipe in defect.recipes})
        for defect in defects
    ]


def _tried(defect: Defect, attempt: Callable[[Defect, int], tuple[Places, str | None]]) -> tuple[tuple[str | None, bool], ...]:
    outcomes = (attempt(defect, block) for block in BLOCKS)
    return tuple((node, (defect.check, node) in found) for found, node in outcomes)


def engine_rows(engines: dict[str, EngineEvidence]) -> list[Row]:
    """Every defect of layer tables, planted in these engines, by recipe."""

    def attempt(recipe: str) -> Callable[[Defect, int], tuple[Places, str | None]]:
        def planted(defect: Defect, block: int) -> tuple[Places, str | None]:
            assert isinstance(defect, engine_defects.Defect)
            seen, node = defect.plant(engines[recipe], block)
            return {(one.check, one.node) for one in all_findings(seen, promise(recipe))}, node

        return planted

    return rows_of(engine_defects.DEFECTS, {recipe: attempt(recipe) for recipe in engines})


def onnx_rows(exports: dict[str, Path]) -> list[Row]:
    """Every defect of graphs, planted in these exports, by recipe; `fp16` is what weights are compared with."""
    return rows_of(onnx_defects.DEFECTS, {recipe: _planted_in_file(exports[recipe], exports["fp16"], recipe) for recipe in RECIPES})


def _planted_in_file(export: Path, reference: Path, recipe: str) -> Callable[[Defect, int], tuple[Places, str | None]]:
    import onnx

    from harness.pipeline.checking import check_graph

    clean = onnx.load(export)

    def planted(defect: Defect, block: int) -> tuple[Places, str | None]:
        assert isinstance(defect, onnx_defects.Defect)
        model = onnx.ModelProto()
        model.CopyFrom(clean)
        node = defect.plant(model, block)
        with tempfile.TemporaryDirectory() as folder:
            onnx.save(model, path := Path(folder) / "model.onnx")
            record = check_graph(path, reference=reference, policy=recipe, gate_file=REPOSITORY / "gate.toml").record
        return {(one.check, one.node) for one in record.findings}, node

    return planted


def report(graphs: Sequence[Row], engines: Sequence[Row]) -> str:
    """The whole page."""
    parts = [_HEAD, _table("Exported graphs", graphs), _table("Layer tables of TensorRT-RTX 1.7.1.116 for SM89", engines)]
    return "\n".join(parts)


def _table(title: str, rows: Sequence[Row]) -> str:
    missed = sum(row.missed for row in rows)
    head = ["| check | defect | " + " | ".join(f"`{recipe}`" for recipe in RECIPES) + " |", "| --- | --- | --- | --- |"]
    count = f"{len(rows)} defects, {missed or 'none'} missed."
    return "\n".join([f"## {title}", "", count, "", *head, *(row.markdown() for row in rows), ""])


def main(arguments: Sequence[str]) -> int:
    """Make, plant, print."""
    parser = argparse.ArgumentParser(description="Plant every known defect in real exports and engines, and report where it is found.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also keep the report here")
    options = parser.parse_args(arguments)
    exports, engines = _made()
    graphs, tables = onnx_rows(exports), engine_rows(engines)
    page = report(graphs, tables)
    print(page)  # noqa: T201 (what the command is for)
    if options.write:
        options.write.write_text(page, encoding="utf-8")
    return int(any(row.missed for row in (*graphs, *tables)))


def _made() -> tuple[dict[str, Path], dict[str, EngineEvidence]]:
    """Exports of each recipe, and engines of the quantized ones."""
    from harness.pipeline.making import Maker
    from harness.store.cache import ArtifactCache, default_cache_dir

    maker = Maker(ArtifactCache(default_cache_dir()), _telling)
    exports, logs = {}, {}
    for recipe in ("fp16", *RECIPES):
        exports[recipe] = maker.onnx(ENCODER, Recipe(recipe)).path
        log = maker.engine(EngineSpec(encoder=ENCODER, recipe=Recipe(recipe), backend="tensorrt_rtx", target="SM89")).log
        assert log is not None, "TensorRT-RTX always leaves one"
        logs[recipe] = log
    return exports, {recipe: engine_evidence(exports[recipe], logs[recipe], recipe, logs["fp16"]) for recipe in RECIPES}


def _telling(task: str) -> AbstractContextManager[None]:
    print(task, file=sys.stderr)  # noqa: T201 (progress, for people)
    return nullcontext()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
