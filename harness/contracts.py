"""What a backend is to the rest of the house.

These protocols are small so that a new compiler is one file. Conveniences (run, warm-up, repetition) are functions in
`measure` over the three verbs of a session, not methods here. Changing a protocol changes every backend: do it rarely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from harness.records.artifacts import BuiltFiles, EngineArtifact
from harness.records.machine import Gpu
from harness.records.observations import DeviceMemory, LayerRow, Tensors
from harness.records.profile import Ceilings
from harness.records.spec import EngineSpec

Feed = Any  # a session's own handle on uploaded inputs; opaque to everyone else
LayerMilliseconds = tuple[tuple[str, float], ...]  # one launch, layer by layer


class Action(StrEnum):
    """What may be asked of a backend; it can be able to do one and not the other."""

    BUILD = "build"
    RUN = "run"


class Capability(StrEnum):
    """What a backend offers beyond building and running."""

    FP8 = "fp8"  # runs or compiles graphs with FP8 Q/DQ nodes
    LAYER_TABLE = "layer_table"  # its build log holds the engine's layers
    MEMORY_FIGURES = "memory_figures"  # its build log says what the engine's activations need
    COMPILES_FOR_GPU = "compiles_for_gpu"  # needs a target such as SM89
    MAY_NEED_FIXED_BATCH = "may_need_fixed_batch"  # some releases have FP8 kernels for a batch that cannot change, and for no other
    NEEDS_ISOLATION = "needs_isolation"  # its compiler can end or poison the process that it runs in
    BUILD_OPTIONS = "build_options"  # its builder can be asked more than the graph, such as a workspace
    TIMES_KERNELS = "times_kernels"  # its builder chooses kernels by timing them, so that a timing cache spares it some
    ENGINE_IS_ONNX = "engine_is_onnx"  # the engine file is the ONNX file itself
    LAUNCHES_AT_ONCE = "launches_at_once"  # several threads may use one session, each with feeds of its own
    LAYER_TIMES = "layer_times"  # its sessions say how long each layer of a launch takes
    DEVICE_MEMORY = "device_memory"  # what its runtime takes of the device is counted request by request


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPort:
    """One input of an engine. None in `shape` is an axis of any length; the first axis is the batch."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        axes = ", ".join("any" if length is None else str(length) for length in self.shape)
        return f"{self.name} {self.dtype} [{axes}]"


class Session(Protocol):
    """One loaded engine on one device.

    A feed belongs to the session that made it; feeds do not share buffers.
    """

    def upload(self, inputs: Tensors) -> Feed:
        """Put inputs where the engine reads them. May allocate, may copy.

        Raises:
            OutsideProfile: the batch is not one the engine was built for.
            UnusableInputs: a name, shape or dtype the engine does not take.
        """
        ...

    def launch(self, feed: Feed) -> None:
        """What is timed: no allocation and no copy of ours; on a device, no wait."""
        ...

    def download(self, feed: Feed) -> Tensors:
        """Wait, and return the outputs of the last launch as arrays of the caller's own."""
        ...


@runtime_checkable
class SelfDescribed(Protocol):
    """A session that says what it takes, so that rows can be made for it without knowing the encoder."""

    @property
    def ports(self) -> Sequence[InputPort]: ...


@runtime_checkable
class DeviceBound(Protocol):
    """A backend whose engines are built on, and run on, one GPU of this machine and those like it."""

    def gpu(self) -> Gpu | None:
        """The GPU it uses here; None without one."""
        ...

    def gpus(self) -> Sequence[Gpu]:
        """Every GPU that it could use here, the one that it uses first."""
        ...

    def library_path(self) -> Path | None:
        """Folder that the loader must search for the vendor's libraries from the start of a process; None where it finds them."""
        ...


Say = Callable[[str], None]


@runtime_checkable
class TellsProgress(Protocol):
    """A backend whose builds say how far they are."""

    def telling(self, say: Say) -> Backend:
        """The same backend, whose next builds call `say` with a phase and its percentage; from any thread, and not often."""
        ...


@runtime_checkable
class NamesRefusals(Protocol):
    """A backend for which a library, a device or a type may be missing: each is an event of its own."""

    def require_possible(self, action: Action, engine: EngineSpec) -> None:
        """Nothing where `why_not` gives None; else its words, raised as what they are about.

        Raises:
            MissingLibrary, MissingDevice, UnsupportedTarget: as it is.
        """
        ...


@runtime_checkable
class DeviceTimed(Protocol):
    """A session whose device has a clock of its own, and can replay launches as a graph. Without it the host's clock is used."""

    @property
    def device_uuid(self) -> str:
        """The device, as NVML names it; whoever guards its clocks asks NVML by this name."""
        ...

    @property
    def clock(self) -> str:
        """Whose clock it is, for people: `CUDA events`."""
        ...

    @property
    def cold_cache(self) -> str:
        """How caches are emptied before a cold launch, for people."""
        ...

    def capture(self, feed: Feed) -> str | None:
        """Make later launches of `feed` replays of one graph. None when it worked; else why not, in words, and launches stay plain."""
        ...

    def time_launches(self, feed: Feed, launches: int, *, cold: bool) -> tuple[float, ...]:
        """Milliseconds of each launch by the device's clock, [launches]; waits once, at the end.

        Args:
            cold: push everything out of the device's caches before each launch, outside of its time.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledLaunches:
    """What a profiler told.

    Attributes:
        launches: of each launch, the layers in the order in which they were told.
        rows: the layers of a launch as rows of a layer table, where the profiler says what they are.
        inspector: what the engine says of its layers, as JSON of the engine inspector, where it has one.
    """

    launches: tuple[LayerMilliseconds, ...]
    rows: tuple[LayerRow, ...] = ()
    inspector: str | None = None


@runtime_checkable
class LayerTimed(Protocol):
    """A session that can say how long each layer of a launch takes. That slows launches down, so nothing is timed meanwhile."""

    @property
    def layer_clock(self) -> str:
        """Who times the layers, for people: `TensorRT's IProfiler`."""
        ...

    def profile(self, feed: Feed, launches: int) -> ProfiledLaunches:
        """Launch so often, each time waiting for the end."""
        ...


class CountedSession(Session, Protocol):
    """A session whose memory on the device is counted, from the loading of its engine on. It is not timed."""

    def device_memory(self, rows: int) -> DeviceMemory:
        """What was taken so far, also once it is closed.

        Args:
            rows: batch of its launches.
        """
        ...


@runtime_checkable
class CountsDeviceMemory(Protocol):
    """A backend whose runtime takes memory of the device through an allocator of ours; see `Capability.DEVICE_MEMORY`."""

    def open_counted(self, engine: EngineArtifact) -> AbstractContextManager[CountedSession]:
        """Load the engine as `open` does, and count.

        Raises:
            InvalidMeasurement: this release of the runtime takes no allocator.
        """
        ...


@runtime_checkable
class LoadsForRows(Protocol):
    """A backend that can load an engine so that many rows take it less time: for what they give, never for times or memory."""

    def open_for_rows(self, engine: EngineArtifact, *, threads: int | None = None) -> AbstractContextManager[Session]:
        """As `open`, and what the rows give is the same, up to the last bit of few."""
        ...


@runtime_checkable
class Limited(Protocol):
    """A backend that can measure how fast its device is at best."""

    def ceilings(self, folder: Path) -> Ceilings:
        """Measured now; what cannot be measured is None, with the reason in words.

        Args:
            folder: for files that measuring needs.
        """
        ...


@runtime_checkable
class Delayable(Protocol):
    """A session whose device can be made slower by a known amount, to show that a slow-down of that size is found."""

    def delay(self, feed: Feed, delay_ms: float) -> float:
        """Have each launch of `feed` last longer by so many milliseconds; by how many it does, as its device measured them."""
        ...


class Backend(Protocol):
    """A way to make an engine of an ONNX file and to run it."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """Version of the vendor's library, without importing it; `absent` when it is not installed."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    def why_not(self, action: Action, engine: EngineSpec) -> str | None:
        """None when this machine can; else the reason, in words for people. Loads no vendor library."""
        ...

    def build(self, source: Path, engine: EngineSpec, folder: Path) -> BuiltFiles:
        """Make the engine of the ONNX file `source`, and leave its files in `folder`.

        Raises:
            BuildFailed: with the last lines of the vendor's log.
            UnsupportedTarget: the target cannot run this graph.
            UnusableGraph: the parser refuses the file.
        """
        ...

    def open(self, engine: EngineArtifact, *, threads: int | None = None) -> AbstractContextManager[Session]:
        """Load the engine; leaving the context frees it.

        Args:
            threads: how many of the host's threads may compute; None is all this process may use. A backend that computes on a
                device has no use for it.
        """
        ...
