"""The accuracy corpus: every fault of accuracy at every place, which suite catches it, and what other tools' rules say of the same rows.

`python -m tests.helpers.accuracy_corpus` makes what it needs (from the artifact cache where it can), then studies false alarms, and prints
`docs/accuracy.md`; `--write FILE` also keeps it, `--json FILE` keeps every engine's outcome. The exit code is 1 when a fault that changes
anything was missed, or a clean engine failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.prepare.inputs import inputs_digest
from harness.records.observations import EncoderInputs
from harness.records.spec import EncoderSpec, EngineSpec, Recipe, Tower
from tests.helpers import false_alarms
from tests.helpers.accuracy_bench import Bench, Outcome, bench_of
from tests.helpers.accuracy_faults.all_faults import FAULTS
from tests.helpers.accuracy_faults.fault import unbroken
from tests.helpers.accuracy_page import page

TRUNCATED = "text truncated"
CLEAN = "clean"


@dataclass(frozen=True)
class Setting:
    """Engines in which every fault is planted: both towers of one encoder, under some recipes, judged on as many rows."""

    arch: str
    weights: str
    recipes: tuple[Recipe, ...]
    rows: int

    @property
    def title(self) -> str:
        return f"{self.arch}, {self.weights}"


SETTINGS = (
    Setting("emoji-clip", "noto", (Recipe.FP16, Recipe.LINEAR, Recipe.ATTENTION), 320),
    Setting("emoji-clip", "noto-outliers", (Recipe.LINEAR,), 320),
    Setting("ViT-B-32", "seeded:0", (Recipe.ATTENTION,), 24),
)


@dataclass(frozen=True)
class Sample:
    """One engine of the corpus."""

    setting: str
    tower: Tower
    recipe: Recipe
    kind: str
    place: str
    outcome: Outcome


def samples_of(setting: Setting, kinds: str = "") -> Iterator[Sample]:
    """Clean engines of a setting, and every fault whose kind contains `kinds` at every place."""
    for tower in Tower:
        for recipe in setting.recipes:
            engine = EngineSpec(encoder=EncoderSpec(arch=setting.arch, tower=tower, weights=setting.weights), recipe=recipe, backend="onnxruntime")
            bench = bench_of(engine, setting.rows)
            yield Sample(setting.title, tower, recipe, CLEAN, "", bench.outcome(unbroken(bench.clean)))
            yield from _planted(setting, bench, kinds)
            if tower is Tower.TEXT and TRUNCATED in kinds or not kinds and tower is Tower.TEXT:
                yield from _truncated(setting, bench)


def _planted(setting: Setting, bench: Bench, kinds: str, prefix: str = "") -> Iterator[Sample]:
    spec = bench.engine
    for fault in FAULTS:
        for place in fault.places(bench.clean) if kinds in fault.kind else ():
            outcome = bench.outcome(fault.plant(bench.clean, place))
            yield Sample(setting.title, spec.encoder.tower, spec.recipe, fault.kind, prefix + place, outcome)


def _truncated(setting: Setting, bench: Bench) -> Iterator[Sample]:
    """Truncation on captions that reach the end of the context: those of the evaluation set are too short to show it."""
    longer = bench.on(_joined(bench.inputs))
    yield from _planted(setting, longer, TRUNCATED, "captions as long as the context, ")


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
    parser.add_argument("--only", default="", metavar="WORDS", help="settings whose title contains these words")
    parser.add_argument("--kinds", default="", metavar="WORDS", help="faults whose kind contains these words")
    parser.add_argument("--without-false-alarms", action="store_true", help="leave the study of clean engines out")
    options = parser.parse_args(arguments)
    settings = [setting for setting in SETTINGS if options.only in setting.title]
    samples = list(_told(sample for setting in settings for sample in samples_of(setting, options.kinds)))
    alarms = () if options.without_false_alarms else false_alarms.study()
    text = page(samples, alarms)
    print(text)  # noqa: T201 (what the command is for)
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps([asdict(sample) for sample in samples], indent=1), encoding="utf-8")
    return int(any(_is_bad(sample) for sample in samples) or any(alarm.failed for alarm in alarms))


def _is_bad(sample: Sample) -> bool:
    if sample.kind == CLEAN:
        return sample.outcome.is_caught
    return not sample.outcome.is_caught and not sample.outcome.changes_nothing


def _told(samples: Iterable[Sample]) -> Iterator[Sample]:
    for sample in samples:
        print(f"{sample.setting}/{sample.tower} {sample.recipe}: {sample.kind} {sample.place}", file=sys.stderr)  # noqa: T201 (progress, for people)
        yield sample


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
