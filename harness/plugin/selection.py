"""Which engines each test meets, and what is said of those it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from harness.contracts import Action, Capability
from harness.errors import UsageError
from harness.plugin.options import Settings, settings_of
from harness.records.gate_lines import LATENCY_MS, MAY_BE_LEFT_OUT, TIMED
from harness.records.spec import EncoderSpec, EngineSpec, PreparedSpec, Recipe, Tower
from harness.records.verdict import Suite

if TYPE_CHECKING:
    from harness.contracts import Backend
    from harness.pipeline.pacing import Timed


# What a test may need to be told of an engine: the capability to tell it, and what is said of a backend that cannot.
_TOLD = {
    "layers": (Capability.LAYER_TABLE, "it keeps no table of the engine's layers"),
    "memory": (Capability.MEMORY_FIGURES, "it does not say what the engine's activations need"),
    "device_memory": (Capability.DEVICE_MEMORY, "no allocator of ours is under its runtime, to count what the engine takes of a device"),
}
# What is seen of a running engine, and not of its build.
_RUNS = ("run", "device_memory")


_NO_STORE = (
    "no engine is stored to time it beside: no blob store is named (--blobs, ENGINEGATE_BLOBS, or [blobs] folder in gate.toml); "
    "latency_ratio is held to a stored number, and its line says how little that sees"
)
_UNTRAINED = "seeded weights have learnt nothing, so how well they do a task is chance; give trained ones with --weights"

# Fixtures that the selection gives its engines to, and where they are: other projects have some of these names too.
_OURS = ("engine", "prepared")
_FIXTURES = f"{__package__}.fixtures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unable:
    """A gate that none of the chosen backends can run here.

    Attributes:
        reasons: each candidate with its backend's words.
        was_asked: whether the backends were named by option, and one of them is of the kind that this gate is about.
    """

    prepared: PreparedSpec
    reasons: tuple[tuple[EngineSpec, str], ...]
    was_asked: bool

    @property
    def words(self) -> str:
        """All reasons, each once."""
        return "; ".join(dict.fromkeys(f"{engine.backend}: {reason}" for engine, reason in self.reasons))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """What a test's `gates` marker says."""

    metrics: tuple[str, ...] = ()
    needs: str = "run"
    quantized: bool = False
    trained: bool = False
    tower: Tower | None = None

    @classmethod
    def of(cls, definition: pytest.Item) -> Gates:
        """Read the closest marker of a test.

        Raises:
            UsageError: `needs` is none of the words, or `tower` is neither of the two.
        """
        marker = definition.get_closest_marker("gates")
        stray = sorted(set(marker.kwargs) - {"needs", "quantized", "trained", "tower"}) if marker else []
        if stray:
            raise UsageError(f"the gates marker has {stray[0]!r}; expected metrics, needs, quantized, trained and tower")
        gates = cls(metrics=tuple(marker.args), **marker.kwargs) if marker else cls()
        if gates.needs not in ("run", "build", *_TOLD):
            raise UsageError(f"the gates marker needs {gates.needs!r}; expected run, build, {' or '.join(_TOLD)}")
        if gates.tower not in (None, *Tower):
            raise UsageError(f"the gates marker is about tower {gates.tower!r}; expected image or text, or none for both")
        return gates

    def why_not(self, backend: Backend, engine: EngineSpec) -> str | None:
        """None when the backend can do here what the test needs."""
        reason = backend.why_not(Action.BUILD, engine)
        if reason is None and self.needs in _RUNS and self.fits(backend):
            reason = backend.why_not(Action.RUN, engine)
        return reason if reason or self.fits(backend) else _TOLD[self.needs][1]

    def fits(self, backend: Backend) -> bool:
        """Whether the backend is of the kind that the test is about, whatever this machine can do."""
        return self.needs not in _TOLD or _TOLD[self.needs][0] in backend.capabilities


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    wanted = [name for name in _OURS if name in metafunc.fixturenames and _is_ours(metafunc.definition, name)]
    if not wanted:
        return
    settings = settings_of(metafunc.config)
    gates = Gates.of(metafunc.definition)
    recipes = [recipe for recipe in settings.recipes if recipe.is_quantized or not gates.quantized]
    encoders = [encoder for encoder in settings.encoders if gates.tower in (None, encoder.tower)]
    pairs = [PreparedSpec(encoder=encoder, recipe=recipe) for encoder in encoders for recipe in recipes]
    if "prepared" in wanted:
        metafunc.parametrize("prepared", pairs, ids=[pair.id for pair in pairs], indirect=True)
    else:
        subjects = [subject for pair in pairs for subject in _subjects(settings, gates, pair)]
        metafunc.parametrize("engine", subjects, ids=[_id(subject) for subject in subjects], indirect=True)


def _is_ours(item: pytest.Item, name: str) -> bool:
    """Whether a test that asks for this fixture is given ours, and not one of its own project, or parameters of its own."""
    if any(name in _argnames(mark) for mark in item.iter_markers("parametrize")):
        return False
    # pytest has no public way to ask which of several fixtures of one name a test gets: it is the last of these.
    info: Any = getattr(item, "_fixtureinfo", None)
    found: list[Any] = list(info.name2fixturedefs.get(name, ())) if info is not None else []
    while found and found[-1].func.__module__ != _FIXTURES and name in found[-1].argnames:  # one that adds to the one before it
        found.pop()
    return bool(found) and found[-1].func.__module__ == _FIXTURES


def _argnames(mark: pytest.Mark) -> Sequence[str]:
    names = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else names


def _subjects(settings: Settings, gates: Gates, pair: PreparedSpec) -> Sequence[EngineSpec | Unable]:
    """The engines of one pair that can do what is needed; when there is none, one `Unable`."""
    from harness.pipeline.names import backend_of

    candidates = list(candidate_engines(settings, pair.encoder, pair.recipe))
    if gates.trained and pair.encoder.seed is not None:
        return [Unable(prepared=pair, reasons=((candidates[0], _UNTRAINED),), was_asked=False)] if candidates else []
    ungated = {engine: _why_not_gated(settings, gates, engine) for engine in candidates}
    reasons = [(engine, gates.why_not(backend_of(engine.backend), engine) or ungated[engine]) for engine in candidates]
    able = [engine for engine, reason in reasons if reason is None]
    refused = tuple((engine, reason) for engine, reason in reasons if reason is not None)
    # An engine whose layers no chosen backend lists is not a backend that fails to run: such a gate was not asked for. Likewise one that
    # gate.toml leaves out.
    fitting = any(gates.fits(backend_of(engine.backend)) and not ungated[engine] for engine in candidates)
    return able or [Unable(prepared=pair, reasons=refused, was_asked=settings.asked_backends and fitting)]


def _why_not_gated(settings: Settings, gates: Gates, engine: EngineSpec) -> str | None:
    """Why gate.toml leaves out what the test judges, or what it lacks for that; None when neither is so."""
    from harness.pipeline.isolating import machine_class_of
    from harness.store.latency_baselines import LatencyBaselines

    where = machine_class_of(engine)
    for metric in MAY_BE_LEFT_OUT.intersection(gates.metrics):
        line = settings.policy.margin_line(metric, engine, where)
        if not line.gated:
            return f"{metric} is not gated on {where}: {line.reason}"
    if LATENCY_MS not in gates.metrics or settings.blobs is not None:
        return None
    # One that was approved and cannot be fetched is NO_BASELINE, and not something that was never asked for.
    return None if LatencyBaselines(settings.baselines_dir).has_any(where, engine) else _NO_STORE


def latency_gates(items: Sequence[pytest.Item]) -> tuple[Timed, ...]:
    """What the tests time, each once."""
    from harness.pipeline.pacing import Timed

    timed = ((metric, subject_of(item)) for item in items for metric in sorted(TIMED.intersection(Gates.of(item).metrics)))
    return tuple(dict.fromkeys(Timed(metric=metric, engine=subject) for metric, subject in timed if isinstance(subject, EngineSpec)))


def evaluated_engines(items: Sequence[pytest.Item]) -> tuple[EngineSpec, ...]:
    """Engines that the tests will run on the evaluation rows, each once, in the tests' order; a bench may be allowed no row."""
    asking = (item for item in items if item.get_closest_marker(Suite.ACCURACY.value) and "bench" not in getattr(item, "fixturenames", ()))
    return tuple(dict.fromkeys(subject for item in asking if isinstance(subject := subject_of(item), EngineSpec)))


def candidate_engines(settings: Settings, encoder: EncoderSpec, recipe: Recipe) -> Sequence[EngineSpec]:
    """Every engine of this encoder and recipe that the options name, possible or not."""
    from harness.pipeline.names import backend_of, taken_options

    found = []
    for name in settings.backends:
        backend = backend_of(name)
        options = taken_options(backend, settings.build_options)
        for target in settings.targets if Capability.COMPILES_FOR_GPU in backend.capabilities else (None,):
            found.append(EngineSpec(encoder=encoder, recipe=recipe, backend=name, target=target, batch=settings.batch, options=options))
    return found


def _id(subject: EngineSpec | Unable) -> str:
    return f"{subject.prepared.id}-not-run" if isinstance(subject, Unable) else subject.id


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop tests for which the options leave no recipe or no tower: they ask nothing, and pytest would show them as skipped.

    Nobody deselected them, and a run without them is as whole as it can be. The rest of the accuracy suite asks engine by engine.
    """
    items[:] = _engine_by_engine([item for item in items if not _has_no_subject(item)])


def _engine_by_engine(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Tests of accuracy that are about one engine next to each other, in the places that such tests had: the next engine runs meanwhile."""
    ours = [item for item in items if item.get_closest_marker(Suite.ACCURACY.value) and subject_of(item) is not None]
    places = {_prepared_of(item): place for place, item in reversed(list(enumerate(ours)))}
    ordered = iter(sorted(ours, key=lambda item: places[_prepared_of(item)]))
    moved = set(map(id, ours))
    return [next(ordered) if id(item) in moved else item for item in items]


def _prepared_of(item: pytest.Item) -> PreparedSpec | None:
    subject = subject_of(item)
    return subject if subject is None or isinstance(subject, PreparedSpec) else subject.prepared


def subject_of(item: pytest.Item) -> EngineSpec | PreparedSpec | Unable | None:
    """What a test is about; None when it is about no engine."""
    subject = _parameter(item)
    return subject if isinstance(subject, (EngineSpec, PreparedSpec, Unable)) else None


def _has_no_subject(item: pytest.Item) -> bool:
    """Whether a test asks for an engine of ours and the options leave none: pytest then gives it a placeholder."""
    return _parameter(item) is not None and subject_of(item) is None and any(_is_ours(item, name) for name in _OURS)


def _parameter(item: pytest.Item) -> object:
    callspec = getattr(item, "callspec", None)
    params: dict[str, object] = callspec.params if callspec is not None else {}
    return params.get("engine", params.get("prepared"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Under `--list`, print what would be built and run instead of running it."""
    if not session.config.option.list_only:
        return None
    terminal = session.config.get_terminal_writer()
    for line in _listing(session.items):
        terminal.line(line)
    return True


def _listing(items: Sequence[pytest.Item]) -> list[str]:
    subjects = [subject_of(item) for item in items]
    engines = list(dict.fromkeys(subject for subject in subjects if isinstance(subject, EngineSpec)))
    unable = list(dict.fromkeys(subject for subject in subjects if isinstance(subject, Unable)))
    return [
        f"engines: {len(engines)}",
        *(f"  {engine.id}  batch {engine.batch}  weights {engine.encoder.weights}" for engine in engines),
        f"gates: {len(items)}",
        *(f"  {item.nodeid}" for item in items),
        *(f"not run: {subject.prepared.id}: {subject.words}" for subject in unable),
    ]
