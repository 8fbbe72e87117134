"""The accuracy corpus: every fault of accuracy at every place, which suite catches it, and what other tools' rules say of the same rows.

`python -m tests.helpers.accuracy_corpus` makes what it needs (from the artifact cache where it can), then studies false alarms, and prints
`docs/accuracy.md`; `--write FILE` also keeps it. It works on all cores. With `--outcomes FILE` every outcome is kept as it comes, and a run
that was stopped goes on where it stopped; `--from FILE` makes the page of such a file again, or of several, held to what gate.toml says
now, without an engine. The exit code is 1 when a fault that changes anything was missed, or a clean engine failed on what gates are fed
with; 2 when a part of the study broke.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from harness.measure.machine import this_machine
from harness.prepare.dataset import inputs_digest
from harness.records.observations import EncoderInputs
from harness.records.spec import EncoderSpec, EngineSpec, Recipe, Tower
from harness.store.gatefile import read_gate_file
from tests.helpers.accuracy_bench import Bench, bench_of
from tests.helpers.accuracy_faults.all_faults import FAULTS, fault_of
from tests.helpers.accuracy_faults.fault import unbroken
from tests.helpers.accuracy_outcomes import (
    CLEAN,
    LONG,
    Header,
    Made,
    OutcomeFile,
    Planned,
    Sample,
    approved_to_fake_quant,
    held_to,
    read_outcomes,
)
from tests.helpers.accuracy_page import page
from tests.helpers.false_alarms import FreshCalibration, FreshInputs, fresh_jobs
from tests.helpers.gates import REPOSITORY
from tests.helpers.side_by_side import SideBySide

TRUNCATED = "text truncated"
JOB_SECONDS = 25  # worth loading what the clean engine is judged by, and short enough for all cores to end together


@dataclass(frozen=True)
class Setting:
    """One engine that every fault is planted in.

    Attributes:
        engine_seconds: about what running one takes on one core.
        remade_seconds: and one that is calibrated and exported again.
        most_places: of each fault; None for every place that it knows.
    """

    encoder: EncoderSpec
    recipe: Recipe
    rows: int
    engine_seconds: float
    remade_seconds: float
    most_places: int | None = None

    @property
    def engine(self) -> EngineSpec:
        return EngineSpec(encoder=self.encoder, recipe=self.recipe, backend="onnxruntime")

    @property
    def name(self) -> str:
        return f"{self.engine.id} {self.encoder.weights}"

    def seconds(self, one: Planned) -> float:
        """About what a fault takes on one core."""
        return self.remade_seconds if one.kind.startswith("calibrated") else self.engine_seconds


def _both_towers(
    arch: str, weights: str, recipes: Sequence[str], rows: int, seconds: tuple[float, float], most_places: int | None = None
) -> Iterator[Setting]:
    for tower in Tower:
        encoder = EncoderSpec(arch=arch, tower=tower, weights=weights)
        yield from (Setting(encoder, Recipe(recipe), rows, *seconds, most_places) for recipe in recipes)


SETTINGS = (
    *_both_towers("emoji-clip", "noto", ("fp16", "linear", "attention"), 320, (4, 10)),
    *_both_towers("emoji-clip", "noto-outliers", ("linear",), 320, (4, 10), 3),
    *_both_towers("ViT-B-32", "seeded:0", ("attention",), 32, (10, 80), 3),
)


@dataclass(frozen=True)
class CleanJob:
    """The engine without a fault, and where faults can be planted in it. All that they share is in the artifact cache then."""

    setting: Setting
    kinds: str = ""

    @property
    def name(self) -> str:
        return f"{CLEAN} {self.setting.name} {self.kinds}".rstrip()

    @property
    def seconds(self) -> float:
        return 1000 + self.setting.engine_seconds  # before all else, which waits for it

    after: tuple[str, ...] = ()

    def run(self) -> Made:
        start, setting = time.process_time(), self.setting
        bench = _bench(setting)
        outcome = bench.outcome(unbroken(bench.clean))
        clean = Sample(engine=setting.engine, rows=setting.rows, kind=CLEAN, place="", outcome=outcome)
        return Made(job=self.name, seconds=time.process_time() - start, samples=(clean,), planned=tuple(self._planned(bench)))

    def _planned(self, bench: Bench) -> Iterator[Planned]:
        for fault in FAULTS:
            places = fault.places(bench.clean) if self.kinds in fault.kind else ()
            yield from (Planned(kind=fault.kind, place=place) for place in _spread(places, self.setting.most_places))
            if fault.kind == TRUNCATED:  # for which the evaluation set's captions are too short to show
                yield from (Planned(kind=fault.kind, place=place, on_long=True) for place in places)


@dataclass(frozen=True)
class FaultJob:
    """Some faults, planted one by one."""

    setting: Setting
    planned: tuple[Planned, ...]
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.setting.name}: {'; '.join(f'{_place(one)} {one.kind}' for one in self.planned)}"

    @property
    def seconds(self) -> float:
        return sum(map(self.setting.seconds, self.planned))

    def run(self) -> Made:
        start = time.process_time()
        samples = tuple(map(self._sample, self.planned))
        return Made(job=self.name, seconds=time.process_time() - start, samples=samples)

    def _sample(self, one: Planned) -> Sample:
        bench = _bench(self.setting, one.on_long)
        outcome = bench.outcome(fault_of(one.kind).plant(bench.clean, one.place))
        return Sample(engine=self.setting.engine, rows=self.setting.rows, kind=one.kind, place=_place(one), outcome=outcome)


Job = CleanJob | FaultJob | FreshInputs | FreshCalibration


def faults_after(job: CleanJob, made: Made) -> Iterator[FaultJob]:
    """The engine's faults, in their order."""
    chunk: list[Planned] = []
    for one in made.planned:
        if chunk and sum(map(job.setting.seconds, (*chunk, one))) > JOB_SECONDS:
            yield FaultJob(job.setting, tuple(chunk))
            chunk = []
        chunk.append(one)
    if chunk:
        yield FaultJob(job.setting, tuple(chunk))


def _place(one: Planned) -> str:
    return LONG + one.place if one.on_long else one.place


@lru_cache(maxsize=4)
def _bench(setting: Setting, on_long: bool = False) -> Bench:
    bench = bench_of(setting.engine, setting.rows)
    return bench.on(_joined(bench.inputs)) if on_long else bench


def _spread(places: Sequence[str], most: int | None) -> Sequence[str]:
    """The first, the last and what lies evenly between."""
    if most is None or len(places) <= most:
        return places
    return [places[round(step * (len(places) - 1) / (most - 1))] for step in range(most)]


def _joined(inputs: EncoderInputs) -> EncoderInputs:
    """Each caption followed by the next ones until the context is full."""
    import numpy as np

    context, first, last = inputs.rows.shape[1], inputs.rows[0, 0], inputs.rows.max()
    words = [row[(row != 0) & (row != first) & (row != last)] for row in inputs.rows]
    rows = np.full_like(inputs.rows, last)
    for index in range(len(rows)):
        following = np.concatenate([words[place % len(words)] for place in range(index, index + context)])
        rows[index, 0], rows[index, 1:-1] = first, following[: context - 2]
    return EncoderInputs(name=inputs.name, rows=rows, ids=inputs.ids, digest=inputs_digest(inputs.name, rows))


# -- the command -------------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Plant, run, judge, print."""
    options = _parser().parse_args(arguments)
    gate_file = REPOSITORY / "gate.toml"
    header = Header(command=_command(options), machine=this_machine(), gate_file=gate_file.read_text(encoding="utf-8"))
    headers = (header,)
    if options.kept:
        headers, kept = _read(options.kept, gate_file)
    else:
        with tempfile.TemporaryDirectory() as folder:
            file = OutcomeFile(options.outcomes or Path(folder) / "outcomes.jsonl", header)
            if broken := _run(options, file):
                _tell(f"broken, so that there is no page: {'; '.join(broken)}")
                return 2
            kept = file.made
    return _printed(_in_order(options, kept), headers, options.write)


def _read(files: Sequence[Path], gate_file: Path) -> tuple[tuple[Header, ...], dict[str, Made]]:
    """What several files hold, by job, all of it held to one gate file; what a later file holds too is the later one's."""
    now, found = read_gate_file(gate_file), [read_outcomes(file) for file in files]
    approved = approved_to_fake_quant(one for _, made in found for one in made.values())
    kept = {name: held_to(one, header.policy, now, approved) for header, made in found for name, one in made.items()}
    return tuple(header for header, _ in found), kept


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Plant every fault of accuracy, and report which suite catches it.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also keep the page here")
    parser.add_argument("--outcomes", type=Path, metavar="FILE", help="keep each outcome here as it comes, and make none that is there")
    parser.add_argument(
        "--from",
        dest="kept",
        type=Path,
        action="append",
        metavar="FILE",
        help="make the page of kept outcomes, run nothing; repeat for more",
    )
    parser.add_argument("--only", default="", metavar="WORDS", help="engines whose name or weights contain these words")
    parser.add_argument("--kinds", default="", metavar="WORDS", help="faults whose kind contains these words")
    parser.add_argument("--without-false-alarms", action="store_true", help="leave the study of clean engines out")
    parser.add_argument("--draws", default="", metavar="WORDS", help="plant nothing; only draws whose name has these words")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes of one thread each")
    return parser


def _command(options: argparse.Namespace) -> str:
    """What makes the same page again, wherever its files lie."""
    chosen = [
        word for option in ("only", "kinds", "draws") if getattr(options, option) for word in (f"--{option}", getattr(options, option))
    ]
    left_out = ["--without-false-alarms"] if options.without_false_alarms else []
    return shlex.join(["python", "-m", "tests.helpers.accuracy_corpus", *chosen, *left_out])


def _first_jobs(options: argparse.Namespace) -> tuple[Job, ...]:
    if options.draws:
        return tuple(draw for draw in fresh_jobs({}) if options.draws in draw.name)
    settings = [setting for setting in SETTINGS if options.only in setting.name]
    clean = tuple(CleanJob(setting, options.kinds) for setting in settings)
    if options.without_false_alarms:
        return clean
    return (*clean, *fresh_jobs({job.setting.engine: job.name for job in clean}))


def _run(options: argparse.Namespace, file: OutcomeFile) -> Sequence[str]:
    """Names of jobs that broke."""

    def then(job: Job, made: Made) -> Iterable[Job]:
        return faults_after(job, made) if isinstance(job, CleanJob) else ()

    pool: SideBySide[Made] = SideBySide(options.workers, then, file.made)
    for job, made in pool.run(_first_jobs(options)):
        file.add(made)
        _tell(f"{made.seconds:6.1f} s  {job.name}")
    return pool.broken


def _in_order(options: argparse.Namespace, kept: Mapping[str, Made]) -> list[Made]:
    """What was asked for, in the order of settings, faults and places, whichever came first."""
    found: list[Made] = []
    for job in _first_jobs(options):
        if (made := kept.get(job.name)) is not None:
            found.append(made)
            if isinstance(job, CleanJob):
                found += [kept[fault.name] for fault in faults_after(job, made) if fault.name in kept]
    return found


def _printed(found: Sequence[Made], headers: Sequence[Header], write: Path | None) -> int:
    samples = [sample for made in found for sample in made.samples]
    alarms = [judged for made in found for judged in made.judged]
    text = page(samples, alarms, headers, seconds=sum(made.seconds for made in found))
    print(text)  # noqa: T201 (what the command is for)
    if write:
        write.write_text(text, encoding="utf-8")
    is_red = any(sample.is_missed or (sample.is_clean and sample.outcome.is_caught) for sample in samples)
    return int(is_red or any(alarm.failed for alarm in alarms if alarm.is_claimed))


def _tell(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201 (progress, for people)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
