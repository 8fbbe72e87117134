"""Runs engines on all evaluation rows: in turn, or, where they compute on processor cores, side by side and ahead of who asks.

Each launch has one thread, so that rows do not depend on who computes beside them; side by side only keeps all cores busy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import suppress

from harness.contracts import Capability
from harness.measure.embeddings import embed
from harness.measure.machine import usable_cpus
from harness.pipeline.isolating import opened
from harness.pipeline.making import Maker, Once, Progress
from harness.pipeline.names import backend_of
from harness.records.artifacts import EngineArtifact
from harness.records.observations import Embeddings, EncoderInputs
from harness.records.spec import EncoderSpec, EngineSpec

LAUNCHES_AT_ONCE = 8  # each holds activations of its own, which of a large encoder are hundreds of megabytes
ENGINES_AT_ONCE = 2  # while one is loaded, which takes one core, another is launched; each holds its weights


class Evaluations:
    """Embeddings of the evaluation rows, by each engine once.

    Args:
        maker: makes the engines.
        inputs: the evaluation rows of an encoder.
        progress: called as a context manager with what is being waited for.
    """

    def __init__(self, maker: Maker, inputs: Callable[[EncoderSpec], EncoderInputs], progress: Progress) -> None:
        self._maker = maker
        self._inputs = inputs
        self._progress = progress
        self._once = Once()
        self._planned: tuple[EngineSpec, ...] = ()
        self._begun: dict[EngineSpec, Future[Embeddings]] = {}
        self._launches = ThreadPoolExecutor(min(usable_cpus(), LAUNCHES_AT_ONCE), thread_name_prefix="enginegate-launch")
        self._engines = ThreadPoolExecutor(ENGINES_AT_ONCE, thread_name_prefix="enginegate-engine")

    def plan(self, engines: Sequence[EngineSpec]) -> None:
        """Say which engines will be asked for, and in which order: once the first of them is, the others are run meanwhile.

        Only engines that run side by side, and that are built already: a build is weighed, and nothing else may grow beside it.
        """
        self._planned = tuple(engine for engine in engines if _runs_side_by_side(engine))

    def embeddings(self, engine: EngineSpec) -> Embeddings:
        """What the engine makes of the evaluation rows of its encoder.

        Raises:
            OutsideProfile, InvalidMeasurement: as `embed` does.
        """
        return self._once(("embeddings", engine), lambda: self._embeddings(engine))

    def settle(self) -> None:
        """Wait until no engine runs that nobody waits for; what is timed or weighed next has the processor to itself."""
        wait(self._begun.values())

    def close(self) -> None:
        """Stop what runs, at the end of its launch."""
        self._launches.shutdown(cancel_futures=True)
        self._engines.shutdown(cancel_futures=True)

    def _embeddings(self, spec: EngineSpec) -> Embeddings:
        inputs = self._inputs(spec.encoder)  # first: a picture that cannot be decoded is told before an engine is built
        if spec in self._planned:
            self._begin(spec)
        if (begun := self._begun.get(spec)) is not None:
            with self._progress(f"running {spec.id}"):
                return begun.result()
        self.settle()
        engine = self._maker.engine(spec)
        with self._progress(f"running {spec.id}"):
            return embedded(engine, inputs, self._launches if _runs_side_by_side(spec) else None)

    def _begin(self, first: EngineSpec) -> None:
        """Begin every planned engine that is built, once, with the one that is waited for."""
        planned, self._planned = self._planned, ()
        for spec in dict.fromkeys((first, *planned)):
            with suppress(Exception):  # the maker remembers what it was, and tells whoever asks for this engine
                if self._maker.is_built(spec):
                    inputs, engine = self._inputs(spec.encoder), self._maker.engine(spec)
                    self._begun[spec] = self._engines.submit(embedded, engine, inputs, self._launches)


def embedded(engine: EngineArtifact, inputs: EncoderInputs, launches: Executor | None = None) -> Embeddings:
    """The engine's embeddings of all inputs.

    Args:
        launches: where batches run side by side; None for one after the other, in this thread.

    Raises:
        OutsideProfile, InvalidMeasurement: as `embed` does.
    """
    with opened(engine) as session:
        return embed(session, inputs, profile=engine.spec.batch, made_by=engine.spec.id, launches=launches)


def _runs_side_by_side(spec: EngineSpec) -> bool:
    return Capability.LAUNCHES_AT_ONCE in backend_of(spec.backend).capabilities
