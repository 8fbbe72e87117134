"""The accuracy corpus: every fault of accuracy at every place, which suite catches it, and what other tools' rules say of the same rows.

`python -m tests.helpers.accuracy_corpus` makes what it needs (from the artifact cache where it can), then studies false alarms, and prints
`docs/accuracy.md`; `--write FILE` also keeps it, `--json FILE` keeps every engine's outcome. The exit code is 1 when a fault that changes
anything was missed, or a clean engine failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.prepare.dataset import inputs_digest
from harness.records.observations import EncoderInputs
from harness.records.spec import EncoderSpec, EngineSpec, Recipe, Tower
from tests.helpers import false_alarms
from tests.helpers.accuracy_bench import Bench, Outcome, bench_of
from tests.helpers.accuracy_faults.all_faults import FAULTS
from tests.helpers.accuracy_faults.fault import unbroken
from tests.helpers.accuracy_page import page
from tests.helpers.side_by_side import side_by_side

TRUNCATED = "text truncated"
CLEAN = "clean"


@dataclass(frozen=True)
class Setting:
    """One engine that every fault is planted in.

    Attributes:
        most_places: of each fault; None for every place that it knows.
    """

    encoder: EncoderSpec
    recipe: Recipe
    rows: int
    most_places: int | None = None

    @property
    def title(self) -> str:
        return f"{self.encoder.name}, {self.encoder.weights}"

    @property
    def engine(self) -> EngineSpec:
        return EngineSpec(encoder=self.encoder, recipe=self.recipe, backend="onnxruntime")


def _both_towers(arch: str, weights: str, recipes: Sequence[str], rows: int, most_places: int | None = None) -> Iterator[Setting]:
    for tower in Tower:
        encoder = EncoderSpec(arch=arch, tower=tower, weights=weights)
        yield from (Setting(encoder, Recipe(recipe), rows, most_places) for recipe in recipes)


SETTINGS = (
    *_both_towers("emoji-clip", "noto", ("fp16", "linear", "attention"), 320),
    *_both_towers("emoji-clip", "noto-outliers", ("linear",), 320, 3),
    *_both_towers("ViT-B-32", "seeded:0", ("attention",), 32, 3),
)


@dataclass(frozen=True)
class Sample:
    """One engine of the corpus."""

    setting: str
    rows: int
    recipe: Recipe
    kind: str
    place: str
    outcome: Outcome

    @property
    def is_clean(self) -> bool:
        return self.kind == CLEAN

    @property
    def is_missed(self) -> bool:
        return not self.is_clean and not self.outcome.is_caught and not self.outcome.changes_nothing


@dataclass(frozen=True)
class Job:
    """A setting, and which faults to plant."""

    setting: Setting
    kinds: str = ""


def samples_of(job: Job) -> list[Sample]:
    """The clean engine, and every fault whose kind contains `kinds` at its places."""
    setting = job.setting
    bench = bench_of(setting.engine, setting.rows)
    clean = Sample(setting.title, setting.rows, setting.recipe, CLEAN, "", bench.outcome(unbroken(bench.clean)))
    found = [clean, *_planted(setting, bench, job.kinds)]
    if setting.encoder.tower is Tower.TEXT and job.kinds in TRUNCATED:
        # The evaluation set's captions are too short for truncation to show.
        found += _planted(setting, bench.on(_joined(bench.inputs)), TRUNCATED, "captions as long as the context, ")
    return found


def _planted(setting: Setting, bench: Bench, kinds: str, prefix: str = "") -> Iterator[Sample]:
    for fault in FAULTS:
        places = fault.places(bench.clean) if kinds in fault.kind else ()
        for place in _spread(places, setting.most_places):
            _tell(f"{setting.engine.id}: {fault.kind}, {prefix}{place}")
            outcome = bench.outcome(fault.plant(bench.clean, place))
            yield Sample(setting.title, setting.rows, setting.recipe, fault.kind, prefix + place, outcome)


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


def main(arguments: Sequence[str]) -> int:
    """Plant, run, judge, print."""
    parser = argparse.ArgumentParser(description="Plant every fault of accuracy, and report which suite catches it.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also keep the page here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the outcome of every engine here")
    parser.add_argument("--only", default="", metavar="WORDS", help="engines whose name or weights contain these words")
    parser.add_argument("--kinds", default="", metavar="WORDS", help="faults whose kind contains these words")
    parser.add_argument("--without-false-alarms", action="store_true", help="leave the study of clean engines out")
    options = parser.parse_args(arguments)
    jobs = [Job(setting, options.kinds) for setting in SETTINGS if options.only in setting.engine.id + setting.encoder.weights]
    samples = [sample for made in side_by_side(samples_of, jobs) for sample in made]
    alarms = () if options.without_false_alarms else false_alarms.study()
    text = page(samples, alarms, arguments)
    print(text)  # noqa: T201 (what the command is for)
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps([asdict(sample) for sample in samples], indent=1), encoding="utf-8")
    is_red = any(sample.is_missed or (sample.is_clean and sample.outcome.is_caught) for sample in samples)
    return int(is_red or any(alarm.failed for alarm in alarms))


def _tell(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201 (progress, for people)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
