"""PyTorch in FP32: the reference that every engine is compared with. It runs the checkpoint itself and builds nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backends._inputs import own_copy, require_inputs, tower_port
from harness.contracts import Action, Capability
from harness.errors import BuildFailed, InvalidMeasurement
from harness.need import is_installed, need, version_of
from harness.records.artifacts import BuiltFiles, EngineArtifact
from harness.records.observations import Tensors
from harness.records.spec import EncoderSpec, EngineSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

ModuleLoader = Callable[[EncoderSpec], "nn.Module"]
OUTPUT = "embedding"

_BUILDS_NOTHING = "PyTorch runs the checkpoint itself and builds no engine; choose another backend to build"
_NO_LOADER = "the pytorch backend was made without a loader of modules; make it with get_backend('pytorch', load=...)"


class PyTorchBackend:
    """The FP32 reference. `load` gives one tower of an encoder in FP32, on the CPU."""

    name = "pytorch"
    capabilities: frozenset[Capability] = frozenset()

    def __init__(self, load: ModuleLoader | None = None) -> None:
        self._load = load

    @property
    def version(self) -> str:
        """Version of torch."""
        return version_of("torch") or "absent"

    def why_not(self, action: Action, engine: EngineSpec) -> str | None:
        """None when the reference of `engine` can run here; else why not."""
        if action is Action.BUILD:
            return _BUILDS_NOTHING
        if not is_installed("torch"):
            return "torch is not installed; run: pip install torch"
        if engine.recipe.is_quantized:
            return f"the pytorch backend is the FP32 reference and runs no quantized recipe; recipe {engine.recipe} needs another backend"
        return _NO_LOADER if self._load is None else None

    def build(self, source: Path, engine: EngineSpec, folder: Path) -> BuiltFiles:
        """Not offered.

        Raises:
            BuildFailed: always.
        """
        raise BuildFailed(_BUILDS_NOTHING)

    @contextmanager
    def open(self, engine: EngineArtifact, *, threads: int | None = None) -> Iterator[PyTorchSession]:
        """A session over the encoder's module.

        Raises:
            InvalidMeasurement: the recipe is quantized, which this reference is not, or no loader was handed in.
            MissingLibrary: torch is not installed.
        """
        need("torch", extra=None, to="run the FP32 reference")
        reason = self.why_not(Action.RUN, engine.spec)
        if reason or self._load is None:
            raise InvalidMeasurement(reason or _NO_LOADER)
        session = PyTorchSession(self._load(engine.spec.encoder), engine.spec)
        try:
            yield session
        finally:
            session.close()


@dataclass(slots=True, eq=False)
class PyTorchFeed:
    """One input tensor, and the output of the last launch."""

    rows: Tensor
    output: Tensor | None = None


class PyTorchSession:
    """One module on the CPU. Float16 pictures are widened to float32, which changes no value."""

    def __init__(self, module: nn.Module, engine: EngineSpec) -> None:
        self._module: nn.Module | None = module.eval()
        self._engine = engine
        self._port = tower_port(engine.encoder)

    def upload(self, inputs: Tensors) -> PyTorchFeed:
        """Copy the inputs into a tensor."""
        torch = need("torch", extra=None, to="run the FP32 reference")
        require_inputs(inputs, (self._port,), self._engine.batch)
        rows = torch.from_numpy(own_copy(inputs[self._port.name]))
        return PyTorchFeed(rows.float() if rows.is_floating_point() else rows)

    def launch(self, feed: PyTorchFeed) -> None:
        """Run once.

        Raises:
            InvalidMeasurement: the module failed, with its own words, such as pictures of another size than it takes.
        """
        torch = need("torch", extra=None, to="run the FP32 reference")
        if self._module is None:
            raise InvalidMeasurement("this PyTorch session is closed; use it inside its `with` block")
        try:
            with torch.inference_mode():
                output = self._module(feed.rows)
        # A module may raise anything; whatever it is, no embedding was computed, and its words say why.
        except Exception as error:
            raise InvalidMeasurement(f"the FP32 module failed on {self._port.name} {list(feed.rows.shape)}: {error}") from error
        feed.output = _single_tensor(output, torch)

    def download(self, feed: PyTorchFeed) -> Tensors:
        """The output of the last launch as float32."""
        if feed.output is None:
            raise InvalidMeasurement("nothing was launched with this feed; launch it before its output is read")
        return {OUTPUT: own_copy(feed.output.float().numpy())}

    def close(self) -> None:
        """Let the module go."""
        self._module = None


def _single_tensor(output: Any, torch: Any) -> Tensor:
    if not isinstance(output, torch.Tensor):
        raise InvalidMeasurement(f"the module returned {type(output).__name__}; expected one tensor [batch, dim]")
    return output
