"""What a builder of full TensorRT or TensorRT-RTX is asked beside the graph, by what its release has."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.contracts import Say
from harness.errors import UnsupportedOption, UnusableTimingCache
from harness.records.spec import BuildOptions

# How often a build says how far it is; between, phases begin and end by the thousand.
SAY_EVERY_S = 1.0
# In an error of TensorRT 8 and later, which builds on without the cache.
_UNUSED = "timing cache will not be used"


def apply_options(trt: ModuleType, config: Any, options: BuildOptions) -> None:
    """Ask the builder for everything but the timing cache.

    Raises:
        UnsupportedOption: this release has no such thing.
    """
    if options.workspace_mib is not None:
        _require(hasattr(trt, "MemoryPoolType") and hasattr(config, "set_memory_pool_limit"), trt, "--workspace-mib")
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * 2**20)
    if options.optimization_level is not None:
        _require(hasattr(config, "builder_optimization_level"), trt, "--optimization-level")
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        _require(hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE"), trt, "--version-compatible")
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)


class TimingCache:
    """A file of kernel times: what it holds goes to the builder, and what the builder knows afterwards goes back.

    Of two builds that end at one time the later one's file stays; what the other timed is timed again some day.

    Args:
        errors: what the vendor's log called one so far; it grows as the builder speaks.

    Raises:
        UnsupportedOption: this release has none.
        UnusableTimingCache: the file cannot be read, or the builder refuses it.
    """

    def __init__(self, trt: ModuleType, config: Any, path: Path, errors: Sequence[str]) -> None:
        _require(hasattr(config, "create_timing_cache") and hasattr(config, "set_timing_cache"), trt, "--timing-cache")
        self._config, self._path, self._errors = config, path, errors
        self._builder = f"{trt.__name__} {trt.__version__}"
        before, told = self._read(), len(errors)
        cache = config.create_timing_cache(before)
        is_taken = cache is not None and config.set_timing_cache(cache, False)
        # Of a file that is none the builder only logs so, and times every kernel again: minutes later nobody would know why.
        if not is_taken or len(errors) > told or (before and self._is_dropped(cache, before)):
            raise self._refused(errors[told:])
        self._before = _digest(before)

    def keep(self) -> str:
        """Write what the builder knows now; both digests in words.

        Raises:
            UnusableTimingCache: the file cannot be written, or the builder made no use of it after all.
        """
        if unused := [words for words in self._errors if _UNUSED in words]:
            raise self._refused(unused)
        after = bytes(self._config.get_timing_cache().serialize())
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            beside.write_bytes(after)
            beside.replace(self._path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise UnusableTimingCache(f"the timing cache {self._path} cannot be written ({error.strerror}); name another file") from error
        return f"built with kernel times of {self._path.name}, before {self._before}, after {_digest(after)}"

    def _is_dropped(self, cache: Any, before: bytes) -> bool:
        """Whether the builder took nothing from a file that holds something: its cache is the one that it makes of no file."""
        taken, empty = (bytes(one.serialize() or b"") for one in (cache, self._config.create_timing_cache(b"")))
        return taken == empty != before

    def _refused(self, words: Sequence[str]) -> UnusableTimingCache:
        said = "".join(f"\n  {line}" for line in words)
        return UnusableTimingCache(
            f"{self._builder} refuses the timing cache {self._path}: it is none, or another release's or GPU's; name another file"
            + (f"; it said{said}" if said else "")
        )

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise UnusableTimingCache(f"the timing cache {self._path} cannot be read ({error.strerror}); name another file") from error


def new_monitor(trt: ModuleType, say: Say) -> Any:
    """What the builder tells its phases; it says the innermost one with its percentage, seldom. None where a release has none.

    The builder calls it from threads of its own, where an exception would have to cross C++.
    """
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases = Phases(say)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.phases.step(phase_name, step)
            return True  # false would end the build

        def phase_finish(self, phase_name: str) -> None:
            self.phases.finish(phase_name)

    return Monitor()


class Phases:
    """The phases that run just now, the innermost last, said at most once in `SAY_EVERY_S` seconds."""

    def __init__(self, say: Say) -> None:
        self._say: Say | None = say
        self._running: dict[str, tuple[int, int]] = {}  # steps done, and of how many
        self._lock = threading.Lock()
        self._said_at = 0.0

    def start(self, phase: str, steps: int) -> None:
        """A phase of so many steps began."""
        with self._lock:
            self._running[phase] = (0, steps)
            self._tell()

    def step(self, phase: str, step: int) -> None:
        """Its step of that number, from 0, is done."""
        with self._lock:
            if phase in self._running:
                self._running[phase] = (step + 1, self._running[phase][1])
            self._tell()

    def finish(self, phase: str) -> None:
        """It is over."""
        with self._lock:
            self._running.pop(phase, None)

    def _tell(self) -> None:
        now = time.monotonic()
        if self._say is None or not self._running or now - self._said_at < SAY_EVERY_S:
            return
        self._said_at = now
        phase, (done, steps) = next(reversed(self._running.items()))
        try:
            self._say(f"{phase} {100 * min(done, steps) // max(steps, 1)} %")
        # Whoever listened is gone; that is no reason to fail a build.
        except Exception:  # noqa: BLE001
            self._say = None


def _require(has: bool, trt: ModuleType, option: str) -> None:
    if not has:
        raise UnsupportedOption(f"{trt.__name__} {trt.__version__} has nothing for {option}; expected a release that does; leave it out")


def _digest(content: bytes) -> str:
    return f"sha256 {hashlib.sha256(content).hexdigest()[:16]} ({len(content):,} bytes)" if content else "empty"
