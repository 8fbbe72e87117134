"""What became of engines that faults were planted in, and of clean ones; kept in a file as it comes, a line a job."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from harness.records.machine import Machine
from harness.records.policy import GatePolicy
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.records.verdict import Direction, Judgement, Severity, Status
from harness.store.codec import from_json, to_plain
from harness.store.gatefile import read_gate_file

CLEAN = "clean"
LONG = "captions as long as the context, "  # how places begin where a fault was looked for on such captions
NOTHING_CHANGED_DB = 0.1  # of centred SNR; less than the accuracy of the clean engine moves from one draw of inputs to the next


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one engine.

    Attributes:
        judgements: of accuracy, in the suite's order; none where the backend refused the graph.
        checks: checks of the graph with a finding that fails a gate.
        snr_db, clean_snr_db: centred SNR to FP32, of this engine and of the clean one; None where rows are not finite.
        passed_by: whether each other tool's rule passes it; None where it cannot say.
    """

    judgements: tuple[Judgement, ...]
    checks: tuple[str, ...]
    snr_db: float | None
    clean_snr_db: float
    passed_by: Mapping[str, bool | None] = field(default_factory=dict[str, bool | None])

    @property
    def is_built(self) -> bool:
        return bool(self.judgements)

    @property
    def failed(self) -> tuple[str, ...]:
        """Metrics of accuracy that FAIL or are INVALID; `build` where the backend refused the graph."""
        return tuple(one.metric for one in self.judgements if is_failed(one)) if self.is_built else ("build",)

    @property
    def is_caught(self) -> bool:
        return bool(self.failed or self.checks)

    @property
    def changes_nothing(self) -> bool:
        return self.snr_db is not None and abs(self.snr_db - self.clean_snr_db) < NOTHING_CHANGED_DB

    @property
    def gains(self) -> bool:
        """Nearer to FP32 than the clean engine, so that there is nothing to catch."""
        return self.snr_db is not None and self.snr_db - self.clean_snr_db >= NOTHING_CHANGED_DB


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One engine of the corpus.

    Attributes:
        kind, place: of the fault; `clean` and nothing for the engine without one.
    """

    engine: EngineSpec
    rows: int
    kind: str
    place: str
    outcome: Outcome

    @property
    def setting(self) -> str:
        return title_of(self.engine.encoder)

    @property
    def recipe(self) -> Recipe:
        return self.engine.recipe

    @property
    def is_clean(self) -> bool:
        return self.kind == CLEAN

    @property
    def is_on_long(self) -> bool:
        """Whether it was judged on other rows than the clean engine of its setting."""
        return self.place.startswith(LONG)

    @property
    def is_missed(self) -> bool:
        return not self.is_clean and not self.outcome.is_caught and not self.outcome.changes_nothing and not self.outcome.gains


TO_FAKE_QUANT = "snr_to_fake_quant_db"
CALIBRATION, IN_OTHER_WORDS = "calibration", " in other words"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One clean engine on one draw.

    Attributes:
        drawn: what was drawn afresh, such as `64 inputs`, or `calibration`; it ends in `IN_OTHER_WORDS` where captions were.
        checks: of the graph, with a finding that fails a gate.
        passed_by: whether other tools' rules pass it; `Polygraphy L2` is its other default.
    """

    drawn: str
    engine: EngineSpec
    judgements: tuple[Judgement, ...]
    checks: tuple[str, ...]
    passed_by: Mapping[str, bool | None]

    @property
    def is_claimed(self) -> bool:
        """Whether it was drawn from what gates are fed with: that no such engine fails is what the project claims."""
        return not self.drawn.endswith(IN_OTHER_WORDS)

    @property
    def is_on_gate_rows(self) -> bool:
        """Whether it was judged on the gate's own rows, on which an approved engine was."""
        return self.drawn == CALIBRATION

    @property
    def failed(self) -> bool:
        return bool(self.checks) or any(map(is_failed, self.judgements))

    @property
    def status(self) -> Status:
        if self.failed:
            return Status.FAIL
        return Status.INCONCLUSIVE if any(one.status is Status.INCONCLUSIVE for one in self.judgements) else Status.PASS


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A fault to plant. `on_long` is set where it is looked for on captions as long as the context."""

    kind: str
    place: str
    on_long: bool = False


@dataclass(frozen=True, kw_only=True)
class Made:
    """What one job made.

    Attributes:
        seconds: of a CPU, that it took.
        planned: faults that this engine knows, where the job looked for them.
    """

    job: str
    seconds: float
    samples: tuple[Sample, ...] = ()
    planned: tuple[Planned, ...] = ()
    judged: tuple[Judged, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Header:
    """How a file of outcomes was made: what its engines were held to, and where."""

    command: str
    machine: Machine
    gate_file: str
    schema: Literal["enginegate/accuracy-outcomes/1"] = "enginegate/accuracy-outcomes/1"

    @property
    def policy(self) -> GatePolicy:
        with tempfile.TemporaryDirectory() as folder:
            (path := Path(folder) / "gate.toml").write_text(self.gate_file, encoding="utf-8")
            return read_gate_file(path)


class OutcomeFile:
    """A file of outcomes. What is in it is not made again.

    Args:
        path: of a file that is there, or whose folder is.
        header: of a new one.

    Raises:
        SystemExit: the file that is there was held to other bounds, so that what is added would not be like the rest.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self._path = path
        if path.exists():
            found, self.made = read_outcomes(path)
            if found.gate_file != header.gate_file:
                raise SystemExit(f"{path} was judged by another gate.toml; name a new file, or print the page anew with --from {path}")
        else:
            self.made: dict[str, Made] = {}
            self._append(header)

    def add(self, made: Made) -> None:
        """Keep what a job made."""
        self._append(made)
        self.made[made.job] = made

    def _append(self, record: Header | Made) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(to_plain(record)) + "\n")


def read_outcomes(path: Path) -> tuple[Header, dict[str, Made]]:
    """What a file holds, by job. A last line that was cut short when the run was stopped is left out, here and in the file."""
    document = path.read_bytes()
    whole = document[: document.rfind(b"\n") + 1]
    if len(whole) < len(document):
        path.write_bytes(whole)
    first, *lines = whole.splitlines()
    made = [from_json(Made, line, origin=str(path)) for line in lines]
    return from_json(Header, first, origin=str(path)), {one.job: one for one in made}


def held_to(made: Made, was: GatePolicy, now: GatePolicy, approved: Mapping[EngineSpec, float]) -> Made:
    """The same, judged by other bounds without a row or an engine: from the figures and their intervals.

    Of a drop in two directions the one that was worse is held to the new bound, and what checks of the graph found stays as found.

    Args:
        approved: `snr_to_fake_quant_db` of clean engines, which those on the same rows are held to.
    """

    def again(engine: EngineSpec, judgements: tuple[Judgement, ...], of_gate: bool = True) -> tuple[Judgement, ...]:
        held = [_held_again(one, _moved(one, engine, was, now)) for one in judgements]
        floor = approved[engine] - now.margin(TO_FAKE_QUANT, engine) if of_gate and engine in approved else None
        return tuple(one if floor is None or one.metric != TO_FAKE_QUANT else _held_to_approved(one, floor) for one in held)

    samples = [
        replace(one, outcome=replace(one.outcome, judgements=again(one.engine, one.outcome.judgements, not one.is_on_long)))
        for one in made.samples
    ]
    judged = [replace(one, judgements=again(one.engine, one.judgements, one.is_on_gate_rows)) for one in made.judged]
    return replace(made, samples=tuple(samples), judged=tuple(judged))


def approved_to_fake_quant(made: Iterable[Made]) -> Mapping[EngineSpec, float]:
    """What clean engines of the corpus had, which each of its faults is held to as a gate would hold it to a baseline."""
    clean = [sample for one in made for sample in one.samples if sample.is_clean]
    figures = {sample.engine: {one.metric: one.observed for one in sample.outcome.judgements} for sample in clean}
    return {engine: figure for engine, seen in figures.items() if (figure := seen.get(TO_FAKE_QUANT)) is not None}


def _held_to_approved(one: Judgement, floor: float) -> Judgement:
    """As the judge does: figures of the same rows need no interval."""
    stays = one.status is Status.FAIL or one.observed is None or one.observed >= floor
    return one if stays else replace(one, status=Status.FAIL, bound=floor)


def _moved(one: Judgement, engine: EngineSpec, was: GatePolicy, now: GatePolicy) -> float | None:
    """Where the bound lies now. One that an approved engine or fake quantization set moves with the margin."""
    if one.bound is None or one.metric == "finite":
        return one.bound
    if one.metric == TO_FAKE_QUANT:
        return one.bound + was.margin(one.metric, engine) - now.margin(one.metric, engine)
    limit = now.limit(one.metric, engine)
    if one.metric == "centred_snr_db" and one.bound > was.limit(one.metric, engine):
        return max(limit, one.bound + was.margin(one.metric, engine) - now.margin(one.metric, engine))
    return limit


def _held_again(one: Judgement, bound: float | None) -> Judgement:
    if bound is None or bound == one.bound or one.observed is None:
        return one
    status = _status(one, bound)
    if one.status is Status.INCONCLUSIVE and one.bound is not None and _status(one, one.bound) is not Status.INCONCLUSIVE:
        status = one.status  # for another reason than its interval
    return replace(one, bound=bound, status=status)


def _status(one: Judgement, bound: float) -> Status:
    assert one.observed is not None, "there is a figure"
    low, high = one.interval or (one.observed, one.observed)
    if one.direction is Direction.CEILING:
        low, high, bound = -high, -low, -bound
    if low >= bound:
        return Status.PASS
    return Status.INCONCLUSIVE if high >= bound else Status.FAIL


def is_failed(one: Judgement) -> bool:
    """Whether it turns a gate red."""
    return one.status in (Status.FAIL, Status.INVALID) and one.severity is Severity.GATE


def title_of(encoder: EncoderSpec) -> str:
    """The encoder with its weights."""
    return f"{encoder.name}, {encoder.weights}"
