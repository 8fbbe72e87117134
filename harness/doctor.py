"""What this machine can build, run and measure, and why not the rest."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.contracts import Action, Capability
from harness.need import version_of
from harness.records.machine import Machine
from harness.records.spec import EncoderSpec, EngineSpec, Recipe

DOCTOR_SCHEMA = "enginegate/doctor/1"

# Asked about: an encoder and a GPU that every backend's answer is about. The answers do not depend on which.
_ENCODER = EncoderSpec.parse("ViT-B-32/image")
_TARGET = "SM89"

_WIDTH = 140
_WHAT = len("build fp16, linear, attention, compact")

_PREPARES_WITH = ("torch", "open-clip-torch", "nvidia-modelopt", "onnx", "onnxruntime")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendAnswer:
    """What one backend says of one action; `why_not` is None when it can."""

    backend: str
    version: str
    recipe: str
    action: str
    why_not: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """A machine, and what can be done on it. `prepare_missing` lists libraries without which no encoder can be exported."""

    machine: Machine
    cache_dir: str
    prepare_missing: tuple[str, ...]
    backends: tuple[BackendAnswer, ...]
    schema: str = DOCTOR_SCHEMA

    @property
    def document(self) -> str:
        """As JSON."""
        from harness.store.codec import to_json

        return to_json(self).decode().rstrip()

    @property
    def text(self) -> str:
        """For people."""
        machine = self.machine
        missing = ", ".join(self.prepare_missing)
        return "\n".join(
            [
                f"machine   {machine.system}, {machine.cpu_model}, {machine.cpu_count} cores, Python {machine.python}",
                f"GPUs      {', '.join(machine.gpus) or 'none'}" + (f", driver {machine.driver}" if machine.driver else ""),
                f"cache     {self.cache_dir}",
                f"prepare   {f'no: missing {missing}; run: pip install enginegate' if missing else 'yes'}",
                *_lines(self.backends),
            ]
        )


def examine() -> Examination:
    """Ask every backend, loading no vendor library."""
    from harness.backends.registry import backend_names
    from harness.measure.machine import this_machine
    from harness.store.cache import default_cache_dir

    return Examination(
        machine=this_machine(),
        cache_dir=str(default_cache_dir()),
        prepare_missing=tuple(name for name in _PREPARES_WITH if version_of(name) is None),
        backends=tuple(answer for name in backend_names() for answer in _answers(name)),
    )


def _lines(answers: Sequence[BackendAnswer]) -> Iterator[str]:
    """One line for each backend, action and answer, with the recipes it is about."""
    grouped: dict[tuple[str, str, str, str | None], list[str]] = {}
    for answer in answers:
        grouped.setdefault((answer.backend, answer.version, answer.action, answer.why_not), []).append(answer.recipe)
    for (backend, version, action, why_not), recipes in grouped.items():
        about = "" if len(recipes) == len(Recipe) else f" {', '.join(recipes)}"
        said = "yes" if why_not is None else f"no: {why_not}"
        yield from textwrap.wrap(
            said,
            _WIDTH,
            initial_indent=f"{f'{backend} {version}':<24}{action + about:<{_WHAT}} ",
            subsequent_indent=" " * (24 + _WHAT + 1),
            break_long_words=False,
            break_on_hyphens=False,
        )


def _answers(name: str) -> list[BackendAnswer]:
    from harness.pipeline.names import backend_of

    backend = backend_of(name)
    target = _TARGET if Capability.COMPILES_FOR_GPU in backend.capabilities else None
    answers = []
    for action in Action:
        for recipe in Recipe:
            engine = EngineSpec(encoder=_ENCODER, recipe=recipe, backend=name, target=target)
            why_not = backend.why_not(action, engine)
            answers.append(BackendAnswer(backend=name, version=backend.version, recipe=recipe, action=action, why_not=why_not))
    return answers
