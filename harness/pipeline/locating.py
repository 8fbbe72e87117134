"""Finds where an engine's accuracy is lost, in diagnostic copies of the graph that it was built from. The engine itself is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import InvalidMeasurement
from harness.judge.block_edges import BlockEdges, block_edges
from harness.judge.localisation import curve_snr_db, judged_stages, suspect_of, with_sentence
from harness.pipeline.stages import Stages
from harness.records.kept_accuracy import file_stem
from harness.records.localisation import Localisation
from harness.records.observations import Embeddings, EncoderInputs
from harness.records.spec import EngineSpec

if TYPE_CHECKING:
    from harness.judge.structure import GraphView
    from harness.pipeline.making import Maker
    from harness.store.run_directory import RunDirectory

ROWS = 16  # enough for energies: sixteen captions or pictures hold hundreds of tokens


def locate(maker: Maker, spec: EngineSpec, inputs: EncoderInputs, *, observed: Embeddings | None, exact: Embeddings | None) -> Localisation:
    """Where the accuracy of one engine is lost.

    Args:
        inputs: the evaluation inputs; a few of them are looked at.
        observed: the engine's own embeddings of these inputs, where they are at hand; the rows that it turned furthest are looked at.
        exact: FP32 torch's of the same inputs.

    Raises:
        InvalidMeasurement: the blocks of the ONNX graph and of PyTorch's encoder cannot be matched, or the graph cannot be cut.
        UnusableGraph: ONNX Runtime refuses the graph.
        EnginegateError: what else stopped the export of the FP16 graph, or the loading of the encoder.
    """
    from harness.judge.structure import GraphView
    from harness.measure.onnx_graph import read_onnx_graph

    source = maker.onnx(spec.encoder, spec.recipe)
    view = GraphView(read_onnx_graph(source.path))
    edges = block_edges(view)
    if isinstance(edges, str):
        raise InvalidMeasurement(f"the blocks of {spec.prepared.id} cannot be told apart: {edges}")
    chosen = _rows_of(view, edges, observed, exact, len(inputs))
    with maker.working(f"localising {spec.id}"):
        bench = Stages.of(maker, spec, view, edges, _subset(inputs, chosen))
        stages = judged_stages(bench.measured())
        suspect = suspect_of(stages)
        left_out, all_left_out_db = bench.without_quantizers(suspect) if suspect else ((), None)
        graph_db = bench.graph_db
    return with_sentence(
        Localisation(
            encoder=spec.encoder.name,
            recipe=spec.recipe,
            engine=spec.id,
            onnx_sha256=source.sha256,
            rows=len(chosen),
            stages=stages,
            suspect=suspect.name if suspect else None,
            left_out=left_out,
            all_left_out_db=all_left_out_db,
            graph_db=graph_db,
            engine_db=_db_of_rows(observed, exact, chosen),
            sentence="",
        )
    )


def _rows_of(view: GraphView, edges: BlockEdges, observed: Embeddings | None, exact: Embeddings | None, held: int) -> tuple[int, ...]:
    """Which inputs to look at: half of them those that the engine turned furthest, the others evenly spread."""
    sizes = {size for tensor in edges.tensors for port in [view.graph.tensors.get(tensor)] if port is not None for size in port.shape}
    count = min(held, ROWS - (ROWS in sizes))  # with as many rows as tokens, which axis is which could not be told
    worst = _turned_furthest(observed, exact)[: count // 2] if observed is not None and exact is not None else ()
    spread = np.linspace(0, held - 1, held if held <= count else count, dtype=int)
    return tuple(dict.fromkeys((*worst, *(int(row) for row in spread))))[:count]


def _turned_furthest(observed: Embeddings, exact: Embeddings) -> tuple[int, ...]:
    with np.errstate(invalid="ignore"):
        cosines = np.einsum("nd,nd->n", observed.unit_rows, exact.unit_rows)
    return tuple(int(row) for row in np.argsort(np.where(np.isfinite(cosines), cosines, -2), kind="stable"))


def _subset(inputs: EncoderInputs, rows: Sequence[int]) -> EncoderInputs:
    from harness.prepare.dataset import inputs_digest

    chosen = np.ascontiguousarray(inputs.rows[list(rows)])
    ids = tuple(inputs.ids[row] for row in rows)
    return EncoderInputs(name=inputs.name, rows=chosen, ids=ids, digest=inputs_digest(inputs.name, chosen))


def _db_of_rows(observed: Embeddings | None, exact: Embeddings | None, rows: Sequence[int]) -> float | None:
    if observed is None or exact is None:
        return None
    return curve_snr_db(observed.unit_rows[list(rows)], exact.unit_rows[list(rows)])


def keep(found: Localisation, folder: RunDirectory) -> None:
    """Keep a localisation in a run directory: `locate/<engine>.json`, and as a picture `locate/<engine>.svg`.

    Raises:
        StoreFailed: no room, or no right to write.
    """
    from harness.report.localisation_plot import localisation_svg
    from harness.store.codec import to_json

    stem = f"locate/{file_stem(found.engine)}"
    folder.save_text(f"{stem}.json", to_json(found).decode())
    folder.save_text(f"{stem}.svg", localisation_svg(found))
