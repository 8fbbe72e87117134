"""TensorRT-RTX as a compiler ahead of time: NVIDIA's own fusions, types and weight memory, on a machine without a GPU.

It picks kernels only on the device, so its log says nothing of tactics and times.
"""

from __future__ import annotations

import platform
import re
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.backends._nvinfer import build_plan
from harness.contracts import Action, Capability, Session
from harness.errors import MissingDevice, UnsupportedTarget
from harness.need import is_installed, need, version_of
from harness.records.artifacts import BuiltFiles, EngineArtifact
from harness.records.spec import EngineSpec, normalized_target

MODULE = "tensorrt_rtx_bindings"
ENGINE_FILE = "engine.engine"
LOG_FILE = "build.log"

_DISTRIBUTIONS = ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings")
_TARGET = re.compile(r"SM\d+")
_RUNS_NOTHING = (
    "this version compiles TensorRT-RTX engines ahead of time and does not run them; "
    "choose backend onnxruntime to run the graph, or load the engine with TensorRT-RTX on an RTX GPU"
)
# Systems and architectures with wheels of the vendor's on PyPI (versions 1.5 to 1.7).
_WHEELS = frozenset({("Linux", "x86_64"), ("Windows", "AMD64")})


class TensorRtRtxBackend:
    """Compiles for one compute capability; no driver needed."""

    name = "tensorrt_rtx"
    capabilities = frozenset(
        {Capability.FP8, Capability.LAYER_TABLE, Capability.MEMORY_FIGURES, Capability.COMPILES_FOR_GPU, Capability.BUILD_OPTIONS}
    )

    @property
    def version(self) -> str:
        """Version of the vendor's bindings."""
        return next(filter(None, map(version_of, _DISTRIBUTIONS)), "absent")

    def why_not(self, action: Action, engine: EngineSpec) -> str | None:
        """None when `engine` can be compiled here; running is not offered."""
        if action is Action.RUN:
            return _RUNS_NOTHING
        return _why_not_installed() or _why_not_target(engine)

    def build(self, source: Path, engine: EngineSpec, folder: Path) -> BuiltFiles:
        """Compile `source` for `engine.target` into `engine.engine`, with everything the builder says in `build.log`.

        Raises:
            BuildFailed: with the last lines of the vendor's log.
            MissingLibrary: TensorRT-RTX is not installed.
            UnsupportedTarget: the library does not know the target, or the target cannot run the graph.
            UnusableGraph: the parser refuses the file.
        """
        trt = need(MODULE, extra="rtx", to="compile for a GPU")
        capability = _capability(trt, engine)
        plan = build_plan(trt, source, engine.batch, folder / LOG_FILE, partial(_aim_at, capability), options=engine.options)
        with (folder / ENGINE_FILE).open("wb") as file:
            file.write(plan.content)
        return BuiltFiles(engine=ENGINE_FILE, log=LOG_FILE, notes=plan.notes)

    def open(self, engine: EngineArtifact, *, threads: int | None = None) -> AbstractContextManager[Session]:
        """Not offered.

        Raises:
            MissingDevice: always.
        """
        raise MissingDevice(_RUNS_NOTHING)


def _why_not_installed() -> str | None:
    if is_installed(MODULE):
        return None
    system, machine = platform.system(), platform.machine()
    if (system, machine) not in _WHEELS:
        return f"NVIDIA publishes no TensorRT-RTX wheels for {system} on {machine}; it has them for Linux and Windows on x86-64"
    return "tensorrt_rtx_bindings is not installed; run: pip install 'enginegate[rtx]'"


def _why_not_target(engine: EngineSpec) -> str | None:
    if engine.target is None:
        return f"{engine.id} names no target, and TensorRT-RTX compiles for one; add a target such as SM89"
    return None


def _capability(trt: ModuleType, engine: EngineSpec) -> Any:
    """The vendor's word for the engine's target. `CURRENT` and `NONE` are no targets."""
    known = {name: member for name, member in trt.ComputeCapability.__members__.items() if _TARGET.fullmatch(name)}
    target = normalized_target(engine.target) if engine.target else None
    if target not in known:
        raise UnsupportedTarget(
            f"TensorRT-RTX {trt.__version__} does not compile for {target or 'no target'}; it knows {', '.join(known)}; choose one of them"
        )
    return known[target]


def _aim_at(capability: Any, config: Any) -> None:
    """Compile for this one compute capability; without it the builder asks a driver which GPU is there."""
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(capability, 0):
        raise UnsupportedTarget(f"TensorRT-RTX refuses the target {capability.name}; choose another, such as SM89")
