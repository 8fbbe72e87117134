"""What the command line and gate.toml ask for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.errors import BadGateFile, UsageError, WritesRefused
from harness.plugin.gpus import settle_gpu
from harness.plugin.properties import register_named_profile
from harness.plugin.run import start_run
from harness.records.baseline import BaselineMode
from harness.records.spec import BatchProfile, BuildOptions, EncoderSpec, Recipe, Tower, normalized_target

if TYPE_CHECKING:
    from harness.pipeline.commands import Places
    from harness.prepare.evaluation import PictureFiles
    from harness.records.policy import GatePolicy
    from harness.store.blobs import BlobStore
    from harness.store.cache import CacheMode

MARKERS = (
    "accuracy: embeddings against FP32",
    "graph: Q/DQ nodes, from ONNX to the engine's layers",
    "benchmark: bytes and times against stored baselines",
    "conformance: what every backend must do alike",
    "gates(*metrics, needs='run', quantized=False, trained=False, tower=None): which metrics a test judges, what its engine must be "
    "able to do (run, build, layers, memory), and whether it is about quantized recipes, trained weights, or one tower only",
)

# dest of our options, so that a run that names one is checked before collection.
_OWN = (
    "encoders",
    "recipes",
    "backends",
    "targets",
    "weights",
    "eval_data",
    "batch",
    "workspace_mib",
    "optimization_level",
    "timing_cache",
    "gpu",
    "gate_file",
    "baselines",
    "baselines_dir",
    "blobs",
    "run_dir",
    "list_only",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of a run, resolved.

    Attributes:
        build_options: for the backends that take some.
        asked_backends: whether backends were named by option; a gate that one of those cannot run is INVALID.
        eval_data: what trained encoders are judged by in place of the built-in data.
        blobs: where engines lie that were approved; None where nobody names a place.
        places: as they were typed.
    """

    policy: GatePolicy
    encoders: tuple[EncoderSpec, ...]
    recipes: tuple[Recipe, ...]
    backends: tuple[str, ...]
    targets: tuple[str, ...]
    batch: BatchProfile
    build_options: BuildOptions
    asked_backends: bool
    eval_data: PictureFiles | None
    cache_dir: Path
    cache_mode: CacheMode
    baselines_dir: Path
    baseline_mode: BaselineMode
    blobs: BlobStore | None
    places: Places


SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()
REFUSAL: pytest.StashKey[UsageError] = pytest.StashKey()  # why there are no settings


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("enginegate", "FP8 engine gates")
    add = group.addoption
    add("--encoders", action="append", metavar="ARCH/TOWER", help="encoder to gate, such as ViT-B-32/image; repeat for more")
    add("--recipes", action="append", metavar="RECIPE", help="recipe to gate: fp16, modelopt, linear, attention, compact; repeat for more")
    add("--backends", action="append", metavar="BACKEND", help="backend to gate on: onnxruntime, tensorrt_rtx; repeat for more")
    add("--targets", action="append", metavar="SMxx", help="GPU to compile for, such as SM89; repeat for more")
    add("--weights", action="append", metavar="[ARCH=]WEIGHTS", help="seeded:N, a checkpoint file, or an open_clip pretrained tag")
    add("--eval-data", metavar="PATH", help="folder of class folders, or .csv with the columns image,caption, to judge trained weights by")
    add("--batch", metavar="MIN/OPT/MAX", help="batch profile of every engine (default 1/8/64)")
    add("--workspace-mib", type=int, metavar="N", help="most scratch memory of a kernel, in engines of TensorRT (default: its choice)")
    add("--optimization-level", type=int, metavar="0-5", help="how long builders of TensorRT search (default: their choice)")
    add("--timing-cache", metavar="FILE", help="kernel times, read before and written after builds of TensorRT; not with --baselines")
    add("--gpu", action="append", metavar="UUID|N", help="GPU to use, by UUID or place in nvidia-smi -L; under -n repeat, one a process")
    add("--gate-file", metavar="FILE", help="what is gated and how tightly (default: ./gate.toml, else the packaged one)")
    add("--baselines", choices=[mode.value for mode in BaselineMode if mode != BaselineMode.COMPARE], help="write baselines; refused in CI")
    add("--baselines-dir", metavar="DIR", help="approved observations (default: ./baselines, else the packaged ones)")
    add("--blobs", metavar="DIR", help="engines that latency baselines name (default: ENGINEGATE_BLOBS, else [blobs] folder in gate.toml)")
    add("--run-dir", metavar="DIR", help="where the run's records go (default: runs/<time>-<id>)")
    add("--cache-dir", dest="artifact_cache_dir", metavar="DIR", help="where built artifacts are kept")
    add("--cache", dest="artifact_cache", choices=["use", "rebuild", "readonly"], default="use", help="how the artifact cache is used")
    add("--list", dest="list_only", action="store_true", help="say what would be built and run, and build nothing")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Before other plugins configure themselves: a listing needs no workers, and our hypothesis profiles must be known."""
    register_named_profile(config)
    if config.option.list_only and hasattr(config.option, "numprocesses"):
        config.option.numprocesses = None
        config.option.dist = "no"
        config.option.tx = []


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    start_run(config)
    if any(getattr(config.option, dest) for dest in _OWN):
        settings_of(config)


def pytest_report_header(config: pytest.Config) -> str | None:
    settings = config.stash.get(SETTINGS, None)
    if settings is None:
        return None
    chosen = ", ".join(encoder.name for encoder in settings.encoders)
    data = f"; {settings.eval_data.in_words}" if settings.eval_data is not None else ""
    return f"enginegate: {chosen}; recipes {', '.join(settings.recipes)}{data}; cache {settings.cache_dir}"


def settings_of(config: pytest.Config) -> Settings:
    """The run's settings, resolved on first use.

    Raises:
        pytest.UsageError: something named is unknown or malformed.
    """
    if SETTINGS not in config.stash:
        try:
            config.stash[SETTINGS] = _resolve(config)
        except UsageError as error:
            config.stash[REFUSAL] = error
            raise pytest.UsageError(str(error)) from error
    return config.stash[SETTINGS]


def _resolve(config: pytest.Config) -> Settings:
    from harness.pipeline.commands import Places
    from harness.pipeline.names import encoders_named, require_takes_options
    from harness.prepare.configurations import known_archs
    from harness.store.blobs import blob_store
    from harness.store.cache import CacheMode, default_cache_dir
    from harness.store.gatefile import default_gate_file, read_gate_file
    from harness.store.packaged import packaged

    option = config.option
    base = config.invocation_params.dir
    gate_file = base / option.gate_file if option.gate_file else default_gate_file(base)
    policy = read_gate_file(gate_file, read_gate_file(packaged("gate.toml")))
    _require_matching_patterns(policy, known_archs())
    encoders = encoders_named(option.encoders or policy.defaults.encoders, option.weights or (), policy.defaults.weights)
    backends, build_options = _known_backends(option.backends or policy.defaults.backends), _build_options(config)
    require_takes_options(backends, build_options)
    settle_gpu(config, backends)
    return Settings(
        policy=policy,
        encoders=encoders,
        recipes=tuple(dict.fromkeys(_recipe(name) for name in option.recipes or policy.defaults.recipes)),
        backends=backends,
        targets=tuple(dict.fromkeys(normalized_target(name) for name in option.targets or policy.defaults.targets)),
        batch=BatchProfile.parse(option.batch) if option.batch else BatchProfile(),
        build_options=build_options,
        asked_backends=bool(option.backends),
        eval_data=_eval_data(config, encoders),
        cache_dir=Path(option.artifact_cache_dir) if option.artifact_cache_dir else default_cache_dir(),
        cache_mode=CacheMode(option.artifact_cache),
        baselines_dir=_baselines_dir(config),
        baseline_mode=_baseline_mode(option.baselines),
        blobs=blob_store(str(base / option.blobs) if option.blobs else None, policy.blobs),
        places=Places(baselines_dir=option.baselines_dir, blobs=option.blobs, gate_file=option.gate_file),
    )


def _build_options(config: pytest.Config) -> BuildOptions:
    option = config.option
    if option.timing_cache and option.baselines:
        raise UsageError(
            "--timing-cache lets times of earlier builds choose kernels, and a baseline of such an engine could not be made again; "
            "approve baselines without it"
        )
    return BuildOptions(
        workspace_mib=option.workspace_mib,
        optimization_level=option.optimization_level,
        timing_cache=str((config.invocation_params.dir / option.timing_cache).absolute()) if option.timing_cache else None,
    )


def _recipe(name: str) -> Recipe:
    from harness.pipeline.names import recipe_of

    return recipe_of(name)


def _known_backends(names: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    from harness.pipeline.names import backend_of

    return tuple(dict.fromkeys(backend_of(name).name for name in names))


def _eval_data(config: pytest.Config, encoders: tuple[EncoderSpec, ...]) -> PictureFiles | None:
    """The data to judge by, read as far as names and picture heads go."""
    if config.option.eval_data is None:
        return None
    seeded = [encoder for encoder in encoders if encoder.seed is not None]
    if seeded:
        raise UsageError(
            f"--eval-data judges what weights have learnt, and {seeded[0].name} has {seeded[0].weights}, which learnt nothing; give "
            "trained weights with --weights, and name with --encoders only what has some"
        )
    from harness.prepare.evaluation import read_evaluation

    return read_evaluation(config.invocation_params.dir / config.option.eval_data)


def _baselines_dir(config: pytest.Config) -> Path:
    from harness.store.baselines import default_baselines_dir

    option = config.option
    if not option.baselines_dir:
        return default_baselines_dir(config.invocation_params.dir, writing=bool(option.baselines))
    named = config.invocation_params.dir / option.baselines_dir
    if not named.is_dir() and not option.baselines:
        raise UsageError(
            f"--baselines-dir names {named}, which is no folder; expected one with baselines, or --baselines=create to make it"
        )
    return named


def _require_matching_patterns(policy: GatePolicy, archs: tuple[str, ...]) -> None:
    """Refuse a line of gate.toml whose patterns match no engine that could ever be: it would bound nothing."""
    from harness.backends.registry import backend_names

    encoders = [f"{arch}/{tower}" for arch in archs for tower in Tower]
    for line in (*policy.bounds, *policy.margins):
        for kind, patterns, names in (("encoders", line.encoders, encoders), ("backends", line.backends, backend_names())):
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in names):
                    raise BadGateFile(f"gate file: {line.metric}: {kind} holds {pattern!r}, which matches nothing there is; correct it")


def _baseline_mode(value: str | None) -> BaselineMode:
    if value is None:
        return BaselineMode.COMPARE
    if os.environ.get("CI"):
        raise WritesRefused(
            f"--baselines={value} would write baselines, and CI is set; approve them on a machine where a person looks, and commit them"
        )
    return BaselineMode(value)
