"""Gates the same graphs with one release of TensorRT-RTX after the other, and puts what they left side by side.

`tox run -m rtx-versions` does all of it: three environments run `gate`, one runs `compare`. Exit code of `compare`: that of the worst
of its comparisons, each release being held to the one before it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from harness.errors import EnginegateError
from harness.judge.node_changes import EngineNodes
from harness.judge.realised import RealisedType
from harness.judge.structure import PRODUCTS
from harness.need import version_of
from harness.pipeline.comparing import comparison_of, policy_of
from harness.records.comparison import Comparison, Effect
from harness.records.graph import GraphRoles
from harness.records.observations import LayerTable
from harness.records.run import EngineRow
from harness.records.spec import Recipe
from harness.records.verdict import exit_code
from harness.report.changes import engine_lines, engine_name
from harness.report.comparison import WIDTH, comparison_text
from harness.report.markup import cell, table
from harness.store.run_directory import read_kept, read_run

_SUITES = ("suites/graph", "suites/benchmark/test_memory.py")
# A release without baselines is NO_BASELINE (3) throughout, and one that breaks a promise fails (1): the comparison says both.
_COMPARABLE = (0, 1, 3)
_FEWEST_PATHS = 3  # the Markdown file and two runs
_PROGRESS = re.compile(r" \.\.\.( failed after)?( \d+ s)?$")
_HEADINGS = (
    "engine",
    "release",
    "layers",
    "weights, bytes",
    "plan, bytes",
    "activation, bytes",
    "fused attention",
    "FP8 products",
    "lone Q/DQ",
)


def main(arguments: Sequence[str]) -> int:
    """`gate RUN_DIR [GATE OPTIONS]`, or `compare MARKDOWN_FILE RUN_DIR RUN_DIR...` with the oldest release first."""
    kind, paths = (arguments[0], list(map(Path, arguments[1:]))) if arguments else ("", [])
    if kind == "gate" and paths:
        return _gate(paths[0], arguments[2:])
    if kind != "compare" or len(paths) < _FEWEST_PATHS:
        print("expected gate RUN_DIR [GATE OPTIONS], or compare MARKDOWN_FILE RUN_DIR RUN_DIR...", file=sys.stderr)
        return 2
    try:
        return _compare(paths[0], paths[1:])
    except EnginegateError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _gate(run_dir: Path, options: Sequence[str]) -> int:
    """Run the suites that need a compiler alone, with every recipe, and keep their many words in a log beside the run."""
    recipes = [] if "--recipes" in options else [word for recipe in Recipe for word in ("--recipes", str(recipe))]
    own = ("gate", "-q", *_SUITES, "--backends", "tensorrt_rtx", *recipes, "--run-dir", str(run_dir))
    log = run_dir.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"TensorRT-RTX {version_of('tensorrt-rtx-cu13-bindings')}: run {run_dir}, log {log}", flush=True)
    code = _logged([sys.executable, "-m", "harness", *own, *options], log)
    if code not in _COMPARABLE:
        print(log.read_text(encoding="utf-8"), f"exit code {code}: no run to compare", sep="\n", flush=True)
        return code
    return 0


def _logged(command: Sequence[str], log: Path) -> int:
    """Exit code of `command`; its words go to `log`, and what takes long is said here too."""
    with (
        log.open("w", encoding="utf-8") as kept,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run,
    ):
        for line in run.stdout or ():
            kept.write(line)
            if _PROGRESS.search(line.rstrip()):
                print(line, end="", flush=True)
    return run.returncode


def _compare(markdown: Path, runs: Sequence[Path]) -> int:
    """Print all releases in one table and each pair in full; the table and what is better or worse goes to `markdown` too."""
    policy = policy_of(None)
    pairs = [comparison_of(before, after, policy) for before, after in pairwise(runs)]
    releases = "\n".join(_releases(runs))
    print(releases)
    for pair in pairs:
        print(f"\n{'=' * WIDTH}\n{comparison_text(pair)}")
    markdown.write_text("\n".join([releases, *(line for pair in pairs for line in _effects(pair)), ""]), encoding="utf-8")
    print(f"\nMarkdown: {markdown}")
    return exit_code(pair.summary.outcome for pair in pairs)


# -- all releases in one table ---------------------------------------------------------------------------------------------------


def _releases(runs: Sequence[Path]) -> Iterator[str]:
    rows = [(row, path) for path in runs for row in read_run(path).engines]
    order = {engine: index for index, engine in enumerate(dict.fromkeys(_name(row) for row, _ in rows))}
    yield from table(_HEADINGS, (_release(row, path) for row, path in sorted(rows, key=lambda pair: order[_name(pair[0])])))


def _name(row: EngineRow) -> str:
    return f"{row.encoder} {row.recipe} {row.target}"


def _release(row: EngineRow, path: Path) -> tuple[str, ...]:
    sizes = (row.weights_bytes, row.plan_bytes, row.activation_bytes)
    written = ("-" if size is None else f"{size:,}" for size in sizes)
    return (cell(_name(row)), row.backend_version, *_seen_nodes(row, path, *written))


def _seen_nodes(row: EngineRow, path: Path, *sizes: str) -> tuple[str, ...]:
    if not row.layer_table or not row.graph:
        return ("-", *sizes, "-", "-", "-")
    engine = EngineNodes(read_kept(path, row.layer_table, LayerTable), read_kept(path, row.graph, GraphRoles))
    attentions = engine.roles.attentions
    fused = [parts for parts in attentions if engine.attention_layers(parts) == 1]
    fp8 = sum(engine[parts[1]].type is RealisedType.FP8 for parts in fused)
    products = [engine[node].type for node, role in engine.nodes.items() if role.op_type in PRODUCTS]
    lone = len({layer.name for layer in engine.alone.values()})
    attention = f"{len(fused)} of {len(attentions)}{f', {fp8} in FP8' if fp8 else ''}"
    return (str(len(engine.table.rows)), *sizes, attention, f"{products.count(RealisedType.FP8)} of {len(products)}", str(lone))


def _effects(pair: Comparison) -> Iterator[str]:
    """What is better or worse in the newer release; other partners in a layer mean nothing by themselves."""
    versions = " to ".join("/".join(side.backends.values()) for side in (pair.a, pair.b))
    lines = [
        (cell(engine_name(engine)), str(line.effect), cell(line.subject), cell(line.a), cell(line.b), cell(line.note))
        for engine in pair.engines
        for line in engine_lines(engine)
        if line.effect is not Effect.NEUTRAL
    ]
    yield from ("", f"### {versions}: {pair.summary.outcome}", "")
    yield from table(("engine", "", "what", "from", "to", ""), lines) if lines else ["Nothing is better or worse."]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
