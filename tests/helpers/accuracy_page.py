"""docs/accuracy.md: what the accuracy corpus and the study of clean engines came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tests.helpers.accuracy_outcomes import Header, Judged, Sample
from tests.helpers.false_alarms import tables
from tests.helpers.other_rules import RULES, tensorrt_llm_theta

_HEAD = """\
# Faults of accuracy, and what catches them

Each kind of fault of `tests/helpers/accuracy_faults` is planted alone, at every place that it knows (first, middle and last block, several
layers), in the exported graph, its calibration, its inputs or its rows. The engine then runs in ONNX Runtime and is judged as a gate would:
by the accuracy suite with the bounds of `gate.toml`, held to the clean engine as approved, and by the checks of the exported graph. Other
tools' rules are given the same rows and the same FP32 reference.

Made by `{command}`, which `tox run -e accuracy` runs, in {minutes:.0f} minutes of CPU time, on {machine}.

- **accuracy**, **graph**: how many engines that suite catches, and by what: the metric that fails first, the checks.
- **same**: engines whose centred SNR is within 0.1 dB of the clean engine's and in whose graph no check finds anything: nothing is wrong
  with such an engine on these weights and inputs. They are listed below and count neither as caught nor as missed.
- **Polygraphy**: cosine of the flattened output, at least 0.997 (its own function and default). **Torch-TensorRT**: the same, above 0.99.
  **TensorRT-LLM**: zero-shot accuracy not below FP32's by more than two unpaired samples may differ (alpha 0.05, sigma 50); "-" where
  weights have learnt nothing.

ONNX Runtime computes in FP32 between FP16 nodes on a CPU, so that nothing can overflow there: the two FP16 overflows are spelled out by
nodes. A real one needs an engine on a GPU to show.
"""


def page(samples: Sequence[Sample], alarms: Sequence[Judged], headers: Sequence[Header], *, seconds: float) -> str:
    """The whole page.

    Args:
        samples, alarms: of the corpus, and of clean engines.
        headers: how they were made: of each file of outcomes, the first one's first.
        seconds: of a CPU, that this took.
    """
    settings = list(dict.fromkeys(sample.setting for sample in samples))
    parts = [
        _HEAD.format(command=headers[0].command, minutes=seconds / 60, machine=_machine_words(headers[0])),
        *(f"Later, by `{later.command}`, on {_machine_words(later)}: the draws whose names have those words.\n" for later in headers[1:]),
        *_summary(samples, alarms),
        *(part for setting in settings for part in _setting(setting, samples)),
    ]
    parts += _unchanged(samples)
    if alarms:
        parts += ["## Clean engines", "", tables(alarms)]
    return "\n".join(parts).rstrip() + "\n"


def _machine_words(header: Header) -> str:
    machine, named = header.machine, ("onnxruntime", "torch", "nvidia-modelopt", "onnx", "open_clip_torch")
    versions = ", ".join(f"{name} {machine.versions[name]}" for name in named if name in machine.versions)
    return f"{machine.cpu_count} CPUs ({machine.cpu_model}), Python {machine.python}, {versions}"


def _summary(samples: Sequence[Sample], alarms: Sequence[Judged]) -> Iterator[str]:
    """Side by side: who catches how many of the faults that change anything, and who fails clean engines."""
    broken = [sample for sample in samples if not (sample.is_clean or _is_same(sample) or _gains(sample))]
    clean = [sample for sample in samples if sample.is_clean]
    yield "## Side by side\n"
    yield "| rule | faults caught | missed | clean engines failed |"
    yield "| --- | --- | --- | --- |"
    caught = sum(sample.outcome.is_caught for sample in broken)
    false = sum(sample.outcome.is_caught for sample in clean) + sum(alarm.failed for alarm in alarms)
    yield f"| this project, accuracy and graph | {caught} | {len(broken) - caught} | {false} of {len(clean) + len(alarms)} |"
    accuracy = sum(bool(sample.outcome.failed) for sample in broken)
    yield f"| this project, accuracy alone | {accuracy} | {len(broken) - accuracy} | |"
    for rule in RULES:
        said = [passed for sample in broken if (passed := _passed(sample, rule)) is not None]
        of_clean = [sample.outcome.passed_by.get(rule) for sample in clean] + [alarm.passed_by.get(rule) for alarm in alarms]
        judged = [passed for passed in of_clean if passed is not None]
        yield f"| {rule} | {said.count(False)} | {said.count(True)} | {judged.count(False)} of {len(judged)} |"
    theta = tensorrt_llm_theta(320)
    yield f"\nTensorRT-LLM's rule finds a drop of {theta:.1f} points in four of five cases at 320 pictures."
    yield "Polygraphy's other default, an L2 distance of 1e-5, fails every engine, the clean FP16 ones too.\n"


def _setting(setting: str, samples: Sequence[Sample]) -> Iterator[str]:
    own = [sample for sample in samples if sample.setting == setting]
    recipes = ", ".join(dict.fromkeys(f"`{sample.recipe}`" for sample in own))
    missed = [sample for sample in own if sample.is_missed]
    kinds = list(dict.fromkeys(sample.kind for sample in own if not sample.is_clean))
    yield f"## {setting}: {recipes}, {own[0].rows} rows\n"
    yield f"{len(kinds)} kinds, {sum(not sample.is_clean for sample in own)} engines, {len(missed) or 'none'} missed. {_clean_words(own)}\n"
    yield f"| fault | engines | accuracy | graph | same | missed | {' | '.join(RULES)} |"
    yield "| --- | --- | --- | --- | --- | --- |" + " --- |" * len(RULES)
    yield from (_row(kind, [sample for sample in own if sample.kind == kind]) for kind in kinds)
    yield ""
    yield from (f"- missed: {sample.kind}, `{sample.recipe}`, {sample.place}: {_snr(sample)}" for sample in missed)
    yield ""


def _clean_words(own: Iterable[Sample]) -> str:
    clean = [sample for sample in own if sample.is_clean]
    figures = ", ".join(f"`{sample.recipe}` {sample.outcome.clean_snr_db:.1f} dB" for sample in clean)
    failed = [
        f"`{sample.recipe}` fails {', '.join((*sample.outcome.failed, *sample.outcome.checks))}"
        for sample in clean
        if sample.outcome.is_caught
    ]
    return f"Clean: {figures}; {'; '.join(failed) or 'nothing fails'}."


def _row(kind: str, own: Sequence[Sample]) -> str:
    accuracy = [sample for sample in own if sample.outcome.failed]
    graph = [sample for sample in own if sample.outcome.checks]
    first = Counter(sample.outcome.failed[0] for sample in accuracy).most_common()
    checks = sorted({check for sample in graph for check in sample.outcome.checks}, key=lambda check: int(check[1:]))
    cells = [
        kind,
        str(len(own)),
        f"{len(accuracy)}" + (f" ({', '.join(f'`{metric}`' for metric, _ in first)})" if first else ""),
        f"{len(graph)}" + (f" ({', '.join(checks)})" if checks else ""),
        str(sum(map(_is_same, own)) or "-"),
        f"**{missed}**" if (missed := sum(sample.is_missed for sample in own)) else "none",
        *(_rule_cell(own, rule) for rule in RULES),
    ]
    return f"| {' | '.join(cells)} |"


def _rule_cell(own: Sequence[Sample], rule: str) -> str:
    said = [passed for sample in own if (passed := _passed(sample, rule)) is not None]
    return f"{said.count(False)}" if said else "-"


def _passed(sample: Sample, rule: str) -> bool | None:
    """An engine that does not build needs no rule to be caught."""
    return sample.outcome.passed_by.get(rule) if sample.outcome.is_built else False


def _gains(sample: Sample) -> bool:
    return not sample.is_clean and not sample.outcome.is_caught and sample.outcome.gains


def _is_same(sample: Sample) -> bool:
    return not sample.outcome.is_caught and sample.outcome.changes_nothing


def _unchanged(samples: Sequence[Sample]) -> Iterator[str]:
    same = [sample for sample in samples if not sample.is_clean and _is_same(sample)]
    yield "## Faults that change nothing\n"
    yield "| encoder | recipe | fault | places | centred SNR, change in dB |"
    yield "| --- | --- | --- | --- | --- |"
    for setting, recipe, kind in dict.fromkeys((sample.setting, sample.recipe, sample.kind) for sample in same):
        own = [sample for sample in same if (sample.setting, sample.recipe, sample.kind) == (setting, recipe, kind)]
        changes = [(sample.outcome.snr_db or 0.0) - sample.outcome.clean_snr_db for sample in own]
        places = ", ".join(sample.place for sample in own)
        yield f"| {setting} | `{recipe}` | {kind} | {places} | {min(changes):+.2f} to {max(changes):+.2f} |"
    yield ""
    if better := list(filter(_gains, samples)):
        yield "These are nearer to FP32 than the clean engine, so that there is nothing to catch; they count as neither too:\n"
        yield from (f"- {one.setting}, `{one.recipe}`: {one.kind}, {one.place}: {_snr(one)}" for one in better)
        yield ""


def _snr(sample: Sample) -> str:
    return f"{sample.outcome.snr_db:.1f} dB, clean {sample.outcome.clean_snr_db:.1f} dB"
