"""Says what became of each ONNX node in one engine: built here, or known by the table that its builder or inspector left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UnreadableLayerTable, UnusableGraph, UnusableLayerTable, UsageError
from harness.pipeline.making import Maker, Progress
from harness.pipeline.names import backend_of
from harness.pipeline.seeing import Pipeline
from harness.records.engine_nodes import LAYERS_SCHEMA, EngineLayers, EngineNode
from harness.records.observations import LayerTable
from harness.records.policy import NO_ROWS
from harness.records.spec import EngineSpec
from harness.report.layers import layers_text
from harness.store.cache import ArtifactCache, default_cache_dir
from harness.store.codec import to_json

if TYPE_CHECKING:
    from harness.judge.structure import GraphView

Nodes = tuple[EngineNode, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedEngine:
    """An engine's layers as a record, and what has to be said beside it."""

    record: EngineLayers
    notes: tuple[str, ...]

    @property
    def document(self) -> str:
        """The record as a JSON document, without a last newline."""
        return to_json(self.record).decode().rstrip()

    def text(self, *, every: bool) -> str:
        """The record for people; `every` names every node and shows every block."""
        return layers_text(self.record, every=every)


def explain_engine(spec: EngineSpec, *, cache_dir: Path | None, progress: Progress) -> ExplainedEngine:
    """Explain one engine, built through the cache.

    Raises:
        UsageError: something in `spec` is unknown or impossible, or its backend leaves no layer table.
        Broken: the machine, the build or the store failed.
    """
    from harness.contracts import Capability
    from harness.prepare.configurations import require_arch

    require_arch(spec.encoder.arch)
    if Capability.LAYER_TABLE not in backend_of(spec.backend).capabilities:
        raise UsageError(f"backend {spec.backend} leaves no layer table; choose one that compiles engines, such as tensorrt_rtx")
    pipeline = Pipeline(Maker(ArtifactCache(cache_dir or default_cache_dir()), progress), evaluation_rows=NO_ROWS, progress=progress)
    table = pipeline.layers(spec)
    engine = " ".join((spec.recipe, "/".join(filter(None, (spec.backend, spec.target)))))
    return _explained(table, pipeline.graph(spec.encoder, spec.recipe), encoder=spec.encoder.name, engine=engine)


def explain_file(path: Path, *, onnx: Path | None) -> ExplainedEngine:
    """Explain the engine that a build log or an inspector's JSON describes.

    Args:
        path: the document.
        onnx: the graph the engine was built from, which tells operators and blocks.

    Raises:
        UsageError: one of the files cannot be used, or they are not of one engine.
    """
    from harness.measure.layers import read_layer_table

    try:
        table = read_layer_table(path)
    except UnreadableLayerTable as error:
        raise UnusableLayerTable(str(error)) from error
    return _explained(table, graph_view(onnx) if onnx else None, file=path, onnx=onnx)


def graph_view(onnx: Path) -> GraphView:
    """The graph in an ONNX file, each node under a name of its own, with its structure.

    Raises:
        UnusableGraph: it cannot be read.
    """
    from harness.judge.onnx_checks.format import distinct
    from harness.judge.structure import GraphView
    from harness.measure.onnx_graph import read_onnx_graph

    return GraphView(distinct(read_onnx_graph(onnx)))


def _explained(
    table: LayerTable,
    view: GraphView | None,
    *,
    file: Path | None = None,
    onnx: Path | None = None,
    encoder: str | None = None,
    engine: str | None = None,
) -> ExplainedEngine:
    from harness.judge.engine_nodes import engine_nodes

    nodes = engine_nodes(table, view)
    strange = [node.node for node in nodes if view is not None and node.op_type is None]
    if strange and view is not None and all(node.layer is None for node in nodes if node.op_type is not None):
        raise UnusableGraph(f"{onnx} has none of the nodes that {file} names, such as {strange[0]}; expected the graph it was built from")
    record = EngineLayers(
        schema=LAYERS_SCHEMA,
        source=table.source,
        file=str(file) if file else None,
        encoder=encoder,
        engine=engine,
        blocks=_count_of_blocks(nodes),
        lists_constants=table.lists_constants,
        ports=table.ports,
        rows=table.rows,
        nodes=nodes,
    )
    return ExplainedEngine(record=record, notes=tuple(_notes(view, nodes, strange, onnx)))


def _count_of_blocks(nodes: Nodes) -> int | None:
    blocks = {node.block for node in nodes if node.block is not None}
    return len(blocks) or None


def _notes(view: GraphView | None, nodes: Nodes, strange: list[str], onnx: Path | None) -> Iterator[str]:
    if view is None:
        yield "without --onnx FILE operators and blocks are unknown, since they are read from the graph; layers are in engine order"
    elif _count_of_blocks(nodes) is None:
        yield f"the graph's blocks are unknown ({view.irregularity or 'none repeats'}); layers are in engine order"
    if strange:
        yield f"{len(strange)} nodes that layers name are not in {onnx or 'the graph'}, first {strange[0]}: they are of another export"
