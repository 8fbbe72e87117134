"""A module of the shape of each release of TensorRT, by the names that the real one has, which notes what it is asked and builds nothing.

What a release lacks, its stand-in lacks: to read or set a name that is not in `tensorrt_symbols/<release>.json` fails as it would there.
`benchmarks/tensorrt_symbols.py` makes those files of the real modules.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

TABLES = Path(__file__).with_name("tensorrt_symbols")
RELEASES = ("10.6", "10.15", "11.2")
ACTIVATION_BYTES = 4096
WEIGHTS_BYTES = 7000
INSPECTED = '{"Layers": [], "Bindings": ["image", "embedding"]}'


def symbols(release: str) -> dict[str, Any]:
    """What the real module has, by name."""
    return json.loads((TABLES / f"{release}.json").read_text(encoding="utf-8"))


@dataclass
class Script:
    """What the stand-in does.

    Attributes:
        says: lines that the builder logs, with their severities.
        plan: what it gives; None for no engine.
        parser_errors: node, operator and words of what the parser refuses.
        runtime_says: lines that a runtime logs while it is made; it is unusable then.
        loads: whether the runtime takes a plan.
        refuses_cache: whether the builder refuses a timing cache.
        drops_cache: whether it takes nothing from the file of one, which is all that it says.
        cache_says: lines that it logs when it is given one.
        during: called with the config while the engine is built.
        layers: names and milliseconds that a profiler is told after each launch.
        launch_bytes: what each launch takes of the device and keeps, where an allocator of ours is asked for it.
        asked: what it was asked, by name.
    """

    says: list[tuple[str, str]] = field(default_factory=list)
    plan: bytes | None = b"plan"
    parser_errors: list[tuple[str, str, str]] = field(default_factory=list)
    runtime_says: list[tuple[str, str]] = field(default_factory=list)
    loads: bool = True
    refuses_cache: bool = False
    drops_cache: bool = False
    cache_says: list[tuple[str, str]] = field(default_factory=list)
    during: Callable[[Any], None] | None = None
    layers: list[tuple[str, float]] = field(default_factory=list)
    launch_bytes: int = 0
    asked: dict[str, Any] = field(default_factory=dict)


def fake_tensorrt(release: str, script: Script | None = None) -> Any:
    """The stand-in for one release."""
    table, script = symbols(release), script or Script()
    module = SimpleNamespace(__name__="tensorrt", __version__=table["version"], __file__="fake", script=script)
    for name, members in table["enums"].items():
        setattr(module, name, enum.IntEnum(name, members))
    for name, members in table["classes"].items():
        setattr(module, name, _guarded(name, {*members["methods"], *members["properties"]}, module))
    return module


def _guarded(name: str, known: set[str], module: Any) -> type:
    """A class that has what the release has, and does what `_Behaviour` says."""

    def read(self: Any, attribute: str) -> Any:
        if attribute[0] != "_" and attribute not in known and not _is_a_tests_own(type(self), attribute):
            raise AttributeError(f"{name!r} of TensorRT {module.__version__} has no attribute {attribute!r}")
        return object.__getattribute__(self, attribute)

    def write(self: Any, attribute: str, value: Any) -> None:
        if type(self).__name__ == name and attribute[0] != "_" and attribute not in known:
            raise AttributeError(f"{name!r} of TensorRT {module.__version__} has no attribute {attribute!r}")
        object.__setattr__(self, attribute, value)

    # Compiled classes have their properties on instances of any kind; what none of ours is asked for need not be there.
    body = {"__getattribute__": read, "__setattr__": write, "_trt": module}
    return type(name, (_BEHAVIOURS.get(name, _Nothing),), body)


def _is_a_tests_own(kind: type, attribute: str) -> bool:
    """Whether a class of ours that inherits from one of the vendor's may have attributes of its own."""
    return kind.__mro__[0].__dict__.get("__getattribute__") is None


class _Nothing:
    _trt: Any

    @property
    def _script(self) -> Script:
        return self._trt.script


class _Interface(_Nothing):
    def __init__(self) -> None:
        pass


class _Builder(_Nothing):
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def create_network(self, flags: int) -> Any:
        self._script.asked["network flags"] = flags
        return self._trt.INetworkDefinition()

    def create_builder_config(self) -> Any:
        config = self._trt.IBuilderConfig()
        config._logger = self._logger
        return config

    def create_optimization_profile(self) -> Any:
        return self._trt.IOptimizationProfile()

    def build_serialized_network(self, _network: Any, config: Any) -> bytes | None:
        self._script.asked["config"] = config
        for severity, words in self._script.says:
            self._logger.log(SimpleNamespace(name=severity), words)
        if self._script.during is not None:
            self._script.during(config)
        return self._script.plan


class _Network(_Nothing):
    num_inputs, num_outputs = 1, 1

    def get_input(self, _index: int) -> Any:
        return SimpleNamespace(name="image", shape=(-1, 3, 4, 4))


class _Parser(_Nothing):
    def __init__(self, network: Any, logger: Any) -> None:
        pass

    def parse_from_file(self, _path: str) -> bool:
        return not self._script.parser_errors

    @property
    def num_errors(self) -> int:
        return len(self._script.parser_errors)

    def get_error(self, index: int) -> Any:
        error = self._trt.ParserError()
        error._found = self._script.parser_errors[index]
        return error


class _ParserError(_Nothing):
    _found: tuple[str, str, str]

    def node_name(self) -> str:
        return self._found[0]

    def node_operator(self) -> str:
        return self._found[1]

    def desc(self) -> str:
        return self._found[2]


class _Config(_Nothing):
    _logger: Any
    builder_optimization_level = 3

    def add_optimization_profile(self, profile: Any) -> None:
        self._script.asked["profile"] = profile._shapes

    def set_memory_pool_limit(self, pool: Any, nbytes: int) -> None:
        self._script.asked["pool"] = (pool.name, nbytes)

    def set_flag(self, flag: Any) -> None:
        self._script.asked.setdefault("flags", []).append(flag.name)

    def create_timing_cache(self, content: bytes) -> Any:
        cache = self._trt.ITimingCache()
        cache._content = b"" if self._script.drops_cache else content
        for severity, words in self._script.cache_says if content else ():
            self._logger.log(SimpleNamespace(name=severity), words)
        return cache

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self._cache = cache
        self._script.asked["ignores a cache's mismatch"] = ignore_mismatch
        return not self._script.refuses_cache

    def get_timing_cache(self) -> Any:
        return self._cache


class _Profile(_Nothing):
    def __init__(self) -> None:
        self._shapes: dict[str, Any] = {}

    def set_shape(self, name: str, *shapes: Any) -> None:
        self._shapes[name] = shapes


class _Cache(_Nothing):
    _content = b""

    def serialize(self) -> bytes:
        return self._content + b"more"


class _Block:
    """Memory of the device for as long as it lives, where an allocator of ours is asked for it."""

    def __init__(self, allocator: Any, nbytes: int) -> None:
        self._allocator = allocator
        self._address = allocator.allocate(nbytes, 256, 0) if allocator is not None else 0

    def __del__(self) -> None:
        if self._allocator is not None:
            self._allocator.deallocate(self._address)


class _Runtime(_Nothing):
    engine_host_code_allowed = True
    gpu_allocator: Any = None

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        for severity, words in self._script.runtime_says:
            logger.log(SimpleNamespace(name=severity), words)

    def deserialize_cuda_engine(self, _plan: bytes) -> Any:
        self._script.asked["host code allowed"] = self.engine_host_code_allowed
        if self._script.loads:
            engine = self._trt.ICudaEngine()
            engine._allocator, engine._weights = self.gpu_allocator, _Block(self.gpu_allocator, WEIGHTS_BYTES)
            return engine
        for severity, words in self._script.says:
            self._logger.log(SimpleNamespace(name=severity), words)
        return None


class _Engine(_Nothing):
    _allocator: Any = None
    num_io_tensors = 2
    num_optimization_profiles = 1
    device_memory_size = -1  # what the old name says of an engine of more than 2 GiB
    device_memory_size_v2 = ACTIVATION_BYTES

    def create_engine_inspector(self) -> Any:
        return self._trt.EngineInspector()

    def get_device_memory_size_for_profile(self, _profile: int) -> int:
        return -1

    def get_device_memory_size_for_profile_v2(self, _profile: int) -> int:
        return ACTIVATION_BYTES

    def get_engine_stat(self, stat: Any) -> int:
        return WEIGHTS_BYTES if stat.name == "TOTAL_WEIGHTS_SIZE" else 0

    def create_execution_context(self) -> Any:
        context = self._trt.IExecutionContext()
        context._allocator, context._blocks = self._allocator, [_Block(self._allocator, ACTIVATION_BYTES)]
        return context

    def get_tensor_name(self, index: int) -> str:
        return ("image", "embedding")[index]

    def get_tensor_mode(self, name: str) -> Any:
        return self._trt.TensorIOMode.INPUT if name == "image" else self._trt.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, _name: str) -> Any:
        return self._trt.DataType.HALF

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3, 4, 4) if name == "image" else (-1, 8)


class _Context(_Nothing):
    profiler = None
    _allocator: Any
    _blocks: list[_Block]

    def __init__(self) -> None:
        self._rows = 0

    def set_input_shape(self, _name: str, shape: tuple[int, ...]) -> bool:
        self._rows = shape[0]
        return True

    def get_tensor_shape(self, _name: str) -> tuple[int, ...]:
        return (self._rows, 8)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._script.asked.setdefault("addresses", {})[name] = address
        return True

    def execute_async_v3(self, _stream: int) -> bool:
        self._script.asked["launches"] = self._script.asked.get("launches", 0) + 1
        if self._script.launch_bytes:
            self._blocks.append(_Block(self._allocator, self._script.launch_bytes))
        for name, ms in self._script.layers if self.profiler is not None else ():
            self.profiler.report_layer_time(name, ms)
        return True


class _Inspector(_Nothing):
    def get_engine_information(self, _format: Any) -> str:
        return INSPECTED


_BEHAVIOURS: dict[str, type] = {
    "Builder": _Builder,
    "EngineInspector": _Inspector,
    "IBuilderConfig": _Config,
    "ICudaEngine": _Engine,
    "IExecutionContext": _Context,
    "IGpuAllocator": _Interface,
    "ILogger": _Interface,
    "INetworkDefinition": _Network,
    "IOptimizationProfile": _Profile,
    "IProfiler": _Interface,
    "IProgressMonitor": _Interface,
    "ITimingCache": _Cache,
    "OnnxParser": _Parser,
    "ParserError": _ParserError,
    "Runtime": _Runtime,
}
