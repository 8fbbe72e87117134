"""Whether clean engines ever fail: of fresh inputs, and of other calibration rows.

Its tables are a part of `docs/accuracy.md`: how often each metric was PASS, INCONCLUSIVE and FAIL, how near it came to its bound, and the
upper bound of the rate of false alarms that so many engines without one support.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.judge.accuracy.evidence import AccuracyEvidence
from harness.judge.statistics import rate_bounds
from harness.pipeline.making import code_digest
from harness.pipeline.names import backend_of
from harness.prepare.dataset import encoder_inputs, inputs_digest
from harness.records.artifacts import EngineArtifact
from harness.records.observations import Embeddings, EncoderInputs, Float32Array, RangeUse
from harness.records.policy import GatePolicy
from harness.records.spec import EncoderSpec, EngineSpec, Recipe, Tower
from harness.records.task import Task
from harness.records.verdict import Direction, Judgement, Status
from tests.helpers.accuracy_bench import Bench, bench_of, judged_by
from tests.helpers.accuracy_faults.fault import recalibrated
from tests.helpers.accuracy_outcomes import CALIBRATION, IN_OTHER_WORDS, Judged, Made, is_failed
from tests.helpers.fresh_inputs import CalibrationDraw, FreshEmoji, OtherWords
from tests.helpers.other_rules import RULES, passes_by_rule, passes_polygraphys_l2

RECIPES = (Recipe.FP16, Recipe.LINEAR, Recipe.ATTENTION)
ARCH, WEIGHTS = "emoji-clip", "noto"
LARGE_ARCH, LARGE_WEIGHTS = "ViT-B-32", "seeded:0"
CORPUS_ROWS, LARGE_ROWS = 320, 32  # as faults are judged on, so that both share references


@dataclass(frozen=True)
class FreshInputs:
    """Draws of evaluation inputs, on all clean engines of one of emoji-clip's towers.

    Attributes:
        seeds: one a draw.
        rows: of each draw.
        in_other_words: captions in wordings that the encoder has not learnt, which its gate never sees.
        after: names of jobs that make what these engines are judged by; without them this makes it itself.
    """

    seeds: range
    rows: int
    tower: Tower
    in_other_words: bool = False
    after: tuple[str, ...] = ()

    @property
    def drawn(self) -> str:
        return f"{self.rows} inputs{IN_OTHER_WORDS if self.in_other_words else ''}"

    @property
    def name(self) -> str:
        return f"fresh {self.tower}: {self.drawn}, seeds {self.seeds.start} to {self.seeds.stop - 1}"

    @property
    def seconds(self) -> float:
        return 0.08 * self.rows * len(self.seeds)

    def run(self) -> Made:
        start = time.process_time()
        judged = tuple(_on_fresh_inputs(self))
        return Made(job=self.name, seconds=time.process_time() - start, judged=judged)


@dataclass(frozen=True)
class FreshCalibration:
    """One draw of calibration rows, for one engine, judged on the gate's own evaluation rows."""

    seed: int
    rows: int
    engine: EngineSpec
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"fresh calibration of {self.engine.id}, seed {self.seed}"

    @property
    def seconds(self) -> float:
        return 80 if self.engine.encoder.arch == LARGE_ARCH else 10

    def run(self) -> Made:
        start = time.process_time()
        judged = _with_fresh_calibration(self)
        return Made(job=self.name, seconds=time.process_time() - start, judged=(judged,))


# Seeds of their own for what is claimed: bounds were once looked at beside the draws in other words, on these or others of theirs.
DRAWS, LONG_DRAWS = range(5000, 5200), range(6000, 6004)
DRAWS_IN_OTHER_WORDS, LONG_DRAWS_IN_OTHER_WORDS = range(200), range(1000, 1004)
AT_ONCE = 20
DRAWS_OF_CALIBRATION, DRAWS_OF_LARGE_CALIBRATION = 20, 2


def fresh_jobs(clean: Mapping[EngineSpec, str]) -> Iterator[FreshInputs | FreshCalibration]:
    """The whole study.

    Two hundred draws, each of a size that a core runs in seconds; and a few larger than a gate's, since the worst of many rows is worse.

    Args:
        clean: the jobs that make what engines are judged by, by engine.
    """
    small = tuple(name for engine, name in clean.items() if (engine.encoder.arch, engine.encoder.weights) == (ARCH, WEIGHTS))
    for tower in Tower:
        yield from _jobs_of_inputs(tower, DRAWS, LONG_DRAWS, small)
        for recipe in RECIPES[1:]:
            engine = _engine_of(ARCH, WEIGHTS, tower, recipe)
            yield from (FreshCalibration(seed, CORPUS_ROWS, engine, small) for seed in range(DRAWS_OF_CALIBRATION))
        engine = _engine_of(LARGE_ARCH, LARGE_WEIGHTS, tower, Recipe.ATTENTION)
        after = (clean[engine],) if engine in clean else ()
        yield from (FreshCalibration(seed, LARGE_ROWS, engine, after) for seed in range(DRAWS_OF_LARGE_CALIBRATION))
        yield from _jobs_of_inputs(tower, DRAWS_IN_OTHER_WORDS, LONG_DRAWS_IN_OTHER_WORDS, small, in_other_words=True)


def _jobs_of_inputs(
    tower: Tower, draws: range, long_draws: range, after: tuple[str, ...], *, in_other_words: bool = False
) -> Iterator[FreshInputs]:
    """Of 64 rows as many at once as a core runs in a minute or two; of 691 one by one."""
    for first in draws[::AT_ONCE]:
        yield FreshInputs(range(first, first + AT_ONCE), 64, tower, in_other_words, after)
    yield from (FreshInputs(range(seed, seed + 1), 691, tower, in_other_words, after) for seed in long_draws)


def _engine_of(arch: str, weights: str, tower: Tower, recipe: Recipe) -> EngineSpec:
    return EngineSpec(encoder=EncoderSpec(arch=arch, tower=tower, weights=weights), recipe=recipe, backend="onnxruntime")


def _on_fresh_inputs(draws: FreshInputs) -> Iterator[Judged]:
    """All draws are embedded at once, as rows do not depend on each other, and judged one by one."""
    tower = draws.tower
    data = [(OtherWords if draws.in_other_words else FreshEmoji)(seed, draws.rows) for seed in draws.seeds]
    benches = {recipe: bench_of(_engine_of(ARCH, WEIGHTS, tower, recipe), CORPUS_ROWS) for recipe in RECIPES}
    plain, across = benches[Recipe.FP16], bench_of(_engine_of(ARCH, WEIGHTS, tower.other, Recipe.FP16), CORPUS_ROWS)
    inputs = [encoder_inputs(plain.engine.encoder, one) for one in data]
    exact = _exact(plain, inputs)
    others = _exact(across, [encoder_inputs(across.engine.encoder, one) for one in data])
    scale = plain.maker.logit_scale(plain.engine.encoder, plain.inputs)
    tasks = [
        Task(tower=tower, pairing=one.pairing, other=other, logit_scale=scale, same_weights=WEIGHTS)
        for one, other in zip(data, others, strict=True)
    ]
    half = _observed(plain, inputs)
    for recipe, bench in benches.items():
        quantizes = recipe.is_quantized
        observed = _observed(bench, inputs) if quantizes else half
        quantized = _fake_quant(bench, inputs) if quantizes else [(None, None)] * len(data)
        for draw, task in enumerate(tasks):
            seen = AccuracyEvidence(
                observed=observed[draw],
                exact=exact[draw],
                fake_quant=quantized[draw][0],
                range_use=quantized[draw][1],
                half=half[draw] if quantizes else None,
                task=task,
            )
            yield _judged(draws.drawn, bench.policy, bench.engine, seen, ())


def _with_fresh_calibration(draw: FreshCalibration) -> Judged:
    """Held to the engine that the gate's own calibration made."""
    bench = bench_of(draw.engine, draw.rows)
    rows = encoder_inputs(draw.engine.encoder, CalibrationDraw(draw.seed))
    subject = recalibrated(bench.clean, bench.clean.remake(rows))
    return _judged(CALIBRATION, bench.policy, draw.engine, bench.seen(subject), bench.checks(subject))


def _judged(drawn: str, policy: GatePolicy, engine: EngineSpec, seen: AccuracyEvidence, checks: tuple[str, ...]) -> Judged:
    passed = {**passes_by_rule(seen), "Polygraphy L2": passes_polygraphys_l2(seen)}
    return Judged(drawn=drawn, engine=engine, judgements=judged_by(policy, engine, seen), checks=checks, passed_by=passed)


Runner = Callable[[EncoderInputs], Float32Array]


def _by_draw(bench: Bench, run: Runner, what: Mapping[str, str], draws: Sequence[EncoderInputs]) -> list[Embeddings]:
    """All draws at once, a row that several share once, from the cache where they were made by the same before; then each for itself."""
    rows = np.concatenate([one.rows for one in draws])
    place_of: dict[bytes, int] = {}
    places = [place_of.setdefault(row.tobytes(), len(place_of)) for row in rows]
    rows = rows[[places.index(place) for place in range(len(place_of))]]
    every = replace(draws[0], rows=rows, ids=tuple(map(str, range(len(rows)))))
    made_from = {**what, "inputs": inputs_digest(every.name, every.rows), **_CODE}
    parts = np.split(bench.kept("fresh", made_from, lambda: run(every))[places], len(draws))
    return [
        Embeddings(rows=part, ids=one.ids, inputs_digest=one.digest, made_by="a clean engine")
        for part, one in zip(parts, draws, strict=True)
    ]


_CODE = {f"code of {package}": code_digest(f"harness.{package}") for package in ("prepare", "backends", "measure")}


def _exact(bench: Bench, draws: Sequence[EncoderInputs]) -> list[Embeddings]:
    from harness.prepare.references import exact_rows

    encoder = bench.engine.encoder
    made_from = {"by": "torch", "encoder": encoder.name, "weights": bench.maker.origin(encoder)}
    return _by_draw(bench, lambda inputs: exact_rows(encoder, inputs).rows, made_from, draws)


def _fake_quant(bench: Bench, draws: Sequence[EncoderInputs]) -> list[tuple[Embeddings, RangeUse]]:
    """What the quantizers alone make of each draw. Rows are kept with their use of ranges beside them, in further columns."""
    from harness.prepare.references import fake_quant_rows

    encoder, recipe, calibration = bench.engine.encoder, bench.engine.recipe, bench.clean.calibration
    made_from = {
        "by": f"fake quantization and its ranges, {recipe}",
        "encoder": encoder.name,
        "weights": bench.maker.origin(encoder),
        "calibration": calibration.digest,
    }
    quantizers = bench.maker.range_use(encoder, recipe, bench.inputs).quantizers

    def run(inputs: EncoderInputs) -> Float32Array:
        made = fake_quant_rows(encoder, recipe, calibration, inputs)
        return np.hstack([made.rows, made.shares])

    return [_apart(one, quantizers) for one in _by_draw(bench, run, made_from, draws)]


def _apart(seen: Embeddings, quantizers: tuple[str, ...]) -> tuple[Embeddings, RangeUse]:
    rows, shares = np.split(seen.rows, [-len(quantizers)], axis=1)
    return replace(seen, rows=rows), RangeUse(shares=shares, quantizers=quantizers, inputs_digest=seen.inputs_digest)


def _observed(bench: Bench, draws: Sequence[EncoderInputs]) -> list[Embeddings]:
    from harness.measure.embeddings import embed

    backend, engine = backend_of(bench.engine.backend), bench.engine
    source = bench.maker.onnx(engine.encoder, engine.recipe)

    def run(inputs: EncoderInputs) -> Float32Array:
        artifact = EngineArtifact(
            spec=engine, source=source, backend_version=backend.version, path=source.path, sha256=None, plan_bytes=None, build_seconds=0.0
        )
        with backend.open(artifact, threads=1) as session:
            return embed(session, inputs, profile=engine.batch, made_by=engine.id).rows

    return _by_draw(bench, run, {"by": f"{backend.name} {backend.version}", "onnx": source.sha256, "batch": str(engine.batch)}, draws)


# -- what it comes to --------------------------------------------------------------------------------------------------------------


def tables(alarms: Sequence[Judged]) -> str:
    """Markdown: engines by status, metrics by how near they came to their bounds, and other tools' alarms."""
    sections = (_claim, _by_engine, _gap, _failures, _bound_of, _gap, _by_metric, _gap, _by_rule)
    return "\n".join(line for section in sections for line in section(alarms))


def _gap(_alarms: Sequence[Judged]) -> Iterator[str]:
    yield ""


def _claim(alarms: Sequence[Judged]) -> Iterator[str]:
    """What the project claims, and what it does not."""
    claimed = [one for one in alarms if one.is_claimed]
    others = [one for one in alarms if not one.is_claimed]
    yield f"Of what gates are fed with, {sum(one.failed for one in claimed)} of {len(claimed)} clean engines fail: names that do not"
    yield "calibrate, of which a gate judges some; their pictures turned, moved and recoloured; other names to calibrate with.\n"
    if others:
        failed = sum(one.failed for one in others)
        yield f"Captions{IN_OTHER_WORDS} are beyond that: of six wordings the encoder has learnt one, in which its quantizers were"
        yield f"calibrated too. There {failed} of {len(others)} fail. An engine that is fed with other words wants to be calibrated and"
        yield "judged with them.\n"


def _by_engine(alarms: Sequence[Judged]) -> Iterator[str]:
    yield "| engine | drawn afresh | draws | PASS | INCONCLUSIVE | FAIL |"
    yield "| --- | --- | --- | --- | --- | --- |"
    counted = Counter((_name(one), one.drawn, one.status) for one in alarms)
    for name, drawn in dict.fromkeys((_name(one), one.drawn) for one in alarms):
        numbers = [counted[name, drawn, status] for status in (Status.PASS, Status.INCONCLUSIVE, Status.FAIL)]
        yield f"| {name} | {drawn} | {sum(numbers)} | {' | '.join(map(str, numbers))} |"


def _failures(alarms: Sequence[Judged]) -> Iterator[str]:
    """Every false alarm, by what."""
    for one in alarms:
        found = [
            f"{judged.metric} {_spelled(judged.observed)}, bound {_spelled(judged.bound)}" for judged in one.judgements if is_failed(judged)
        ]
        if found or one.checks:
            yield f"- failed: {_name(one)}, {one.drawn}: {'; '.join((*found, *one.checks))}"
    yield ""


def _bound_of(alarms: Sequence[Judged]) -> Iterator[str]:
    """What so many draws say, by what was drawn. Draws are counted, since engines of one draw are judged on the same inputs."""
    for drawn in dict.fromkeys((one.drawn, one.engine.encoder.arch) for one in alarms):
        of_draws = [one for one in alarms if (one.drawn, one.engine.encoder.arch) == drawn]
        draws, failed = Counter(map(_name, of_draws)), Counter(_name(one) for one in of_draws if one.failed)
        worst = max(draws, key=lambda name: failed[name])
        high = rate_bounds(failed[worst], draws[worst]).high
        yield (
            f"Fresh {drawn[0]}, {drawn[1]}: {sum(failed.values())} of {len(of_draws)} engines failed. {failed[worst]} failures in "
            f"{draws[worst]} draws of one engine leave a false-alarm rate of at most {high:.2%} (95 %, Clopper and Pearson).\n"
        )


def _by_metric(alarms: Sequence[Judged]) -> Iterator[str]:
    yield "| metric | recipes | drawn afresh | bound | nearest | farthest | smallest distance | FAIL | INCONCLUSIVE |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    groups: dict[tuple[str, str, str], list[Judgement]] = {}
    for one in alarms:
        recipes = "fp16" if one.engine.recipe is Recipe.FP16 else "quantized"
        for judgement in one.judgements:
            groups.setdefault((judgement.metric, f"{one.engine.encoder.arch}, {recipes}", one.drawn), []).append(judgement)
    for (metric, recipes, drawn), found in groups.items():
        bounds = {one.bound for one in found}
        bound = bounds.pop() if len(bounds) == 1 else None
        nearest, farthest = min(found, key=_distance), max(found, key=_distance)
        statuses = Counter(one.status for one in found)
        yield (
            f"| `{metric}` | {recipes} | {drawn} | {_spelled(bound)} | {_spelled(nearest.observed)} | {_spelled(farthest.observed)} | "
            f"{_spelled(_distance(nearest))} | {statuses[Status.FAIL] + statuses[Status.INVALID]} | {statuses[Status.INCONCLUSIVE]} |"
        )


def _distance(judgement: Judgement) -> float:
    """From the bound into the good side, in the metric's unit."""
    if judgement.observed is None or judgement.bound is None:
        return -np.inf
    distance = judgement.observed - judgement.bound
    return {Direction.FLOOR: distance, Direction.CEILING: -distance, Direction.EQUAL: -abs(distance)}[judgement.direction]


def _spelled(number: float | None) -> str:
    return "each engine's own" if number is None else f"{number + 0.0:.4g}"  # adding nothing makes -0 a 0


def _by_rule(alarms: Sequence[Judged]) -> Iterator[str]:
    yield "| rule | engines that it fails | of |"
    yield "| --- | --- | --- |"
    yield f"| this project | {sum(one.failed for one in alarms)} | {len(alarms)} |"
    for rule in (*RULES, "Polygraphy L2"):
        said = [one.passed_by[rule] for one in alarms if one.passed_by[rule] is not None]
        yield f"| {rule} | {sum(passed is False for passed in said)} | {len(said)} |"


def _name(one: Judged) -> str:
    return f"{one.engine.encoder.name} {one.engine.recipe}"
