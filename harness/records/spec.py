"""What is asked for: an encoder, a recipe, and the engine that should come of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from enum import StrEnum

from harness.errors import UnknownName, UsageError

_SEEDED = re.compile(r"seeded:(\d+)")
_SEEDS = 2**63  # torch takes no larger seed
_TARGET = re.compile(r"SM(\d{2,3})")
_HIGHEST_LEVEL = 5  # of TensorRT's builder, in every release from 8.6 on


class Tower(StrEnum):
    """Which half of a CLIP model."""

    IMAGE = "image"
    TEXT = "text"

    @property
    def other(self) -> Tower:
        """The half it is compared with."""
        return Tower.TEXT if self is Tower.IMAGE else Tower.IMAGE


class Recipe(StrEnum):
    """How an encoder becomes the graph that is built. What each promises is in gate.toml."""

    FP16 = "fp16"
    MODELOPT = "modelopt"
    LINEAR = "linear"
    ATTENTION = "attention"
    COMPACT = "compact"

    @property
    def is_quantized(self) -> bool:
        """Whether the graph holds FP8 nodes."""
        return self is not Recipe.FP16

    def on(self, tower: Tower) -> Recipe:
        """The recipe that makes the same graph of this tower: an image tower has no token embedding, so `compact` is `attention` there."""
        return Recipe.ATTENTION if self is Recipe.COMPACT and tower is Tower.IMAGE else self


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProfile:
    """The batches an engine accepts: `minimum` to `maximum`, tuned for `optimum`. Rows, not bytes."""

    minimum: int = 1
    optimum: int = 8
    maximum: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise UsageError(f"batch profile {self} does not ascend from 1; expected MIN/OPT/MAX such as 1/8/64")

    @classmethod
    def parse(cls, text: str) -> BatchProfile:
        """Read `MIN/OPT/MAX`."""
        parts = text.split("/")
        if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
            raise UsageError(f"batch profile {text!r} is not MIN/OPT/MAX; expected three whole numbers such as 1/8/64")
        minimum, optimum, maximum = (int(part) for part in parts)
        return cls(minimum=minimum, optimum=optimum, maximum=maximum)

    def __str__(self) -> str:
        return f"{self.minimum}/{self.optimum}/{self.maximum}"

    @property
    def is_fixed(self) -> bool:
        """Whether every batch has the same length."""
        return self.minimum == self.maximum

    @property
    def fixed(self) -> BatchProfile:
        """The one batch that stands in where none may change: the optimum, which is what most launches are expected to bring."""
        return BatchProfile(minimum=self.optimum, optimum=self.optimum, maximum=self.optimum)

    def __contains__(self, rows: object) -> bool:
        return isinstance(rows, int) and self.minimum <= rows <= self.maximum


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What a builder is asked beside the graph. None leaves a choice to the builder.

    Attributes:
        workspace_mib: most scratch memory that a kernel may take on the device, in MiB.
        optimization_level: 0, the quickest build, to 5, which tries most kernels.
        timing_cache: file of kernel times, read before a build and written after it; a build that finds its kernels there times none.
        version_compatible: the plan loads in later releases too. It then carries code that runs on the host.
    """

    workspace_mib: int | None = None
    optimization_level: int | None = None
    timing_cache: str | None = None
    version_compatible: bool = False

    def __post_init__(self) -> None:
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UsageError(f"a workspace of {self.workspace_mib} MiB holds nothing; expected 1 or more")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= _HIGHEST_LEVEL:
            raise UsageError(f"optimization level {self.optimization_level} is none; expected 0 (quickest build) to {_HIGHEST_LEVEL}")

    @property
    def names(self) -> tuple[str, ...]:
        """Options that differ from what a builder is asked otherwise, as the command line spells them."""
        return tuple(word for word in self.arguments if word.startswith("--"))

    @property
    def arguments(self) -> tuple[str, ...]:
        """What to type after `enginegate build` to ask the same."""
        asked = {f"--{field.name.replace('_', '-')}": getattr(self, field.name) for field in fields(self)}
        given = {name: value for name, value in asked.items() if value is not None and value is not False}
        return tuple(word for name, value in given.items() for word in ([name] if value is True else [name, str(value)]))

    @property
    def in_words(self) -> str:
        """What changes the engine, as `optimization_level=5,workspace_mib=512`; empty where nothing was asked.

        A timing cache is left out: it spares a build the timing, and what it changes in an engine no figure may rest on.
        """
        asked = {"optimization_level": self.optimization_level, "workspace_mib": self.workspace_mib}
        asked["version_compatible"] = self.version_compatible or None
        return ",".join(f"{name}={value}" for name, value in sorted(asked.items()) if value is not None)

    @property
    def made_from(self) -> dict[str, str]:
        """What an engine's place in a cache depends on: what changes it, and whether times of earlier builds chose its kernels."""
        return {"options": self.in_words, "timing_cache": "used" if self.timing_cache else "none"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """One tower of one open_clip configuration with one set of weights.

    `weights` is `seeded:N` (open_clip's own initialisation under seed N), a checkpoint file, or an open_clip pretrained tag.
    Whether the configuration exists is asked where open_clip is loaded, in `prepare`.
    """

    arch: str
    tower: Tower
    weights: str = "seeded:0"

    def __post_init__(self) -> None:
        if not self.arch:
            raise UnknownName("an encoder needs a configuration name; expected ARCH/image or ARCH/text, such as ViT-B-32/image")
        if self.weights.startswith("seeded:") and not (_SEEDED.fullmatch(self.weights) and int(self.weights[7:]) < _SEEDS):
            raise UsageError(
                f"weights {self.weights!r} name no seed; expected seeded:N with a whole number N below 2**63, such as seeded:0"
            )

    @classmethod
    def parse(cls, name: str, *, weights: str = "seeded:0") -> EncoderSpec:
        """Read `ARCH/image` or `ARCH/text`."""
        arch, separator, tower = name.rpartition("/")
        if not separator or tower not in set(Tower):
            raise UnknownName(f"encoder {name!r} names no tower; expected ARCH/image or ARCH/text, such as ViT-B-32/image")
        return cls(arch=arch, tower=Tower(tower), weights=weights)

    @property
    def name(self) -> str:
        """`ARCH/TOWER`, as people write it."""
        return f"{self.arch}/{self.tower}"

    @property
    def stem(self) -> str:
        """The name as part of a file name."""
        return f"{self.arch}-{self.tower}".replace("/", "-")

    @property
    def seed(self) -> int | None:
        """The seed of seeded weights; None for trained ones."""
        match = _SEEDED.fullmatch(self.weights)
        return int(match.group(1)) if match else None


def normalized_target(text: str) -> str:
    """`SM89` from any case of it.

    Raises:
        UnknownName: it is no compute capability.
    """
    target = text.strip().upper()
    if not _TARGET.fullmatch(target):
        raise UnknownName(f"target {text!r} is no compute capability; expected SM and its digits, such as SM89 or SM120")
    return target


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSpec:
    """One exported encoder: what every backend starts from."""

    encoder: EncoderSpec
    recipe: Recipe

    @property
    def id(self) -> str:
        """Short and unique within a run: `ViT-B-32/image-linear`."""
        return f"{self.encoder.name}-{self.recipe}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """One engine to build: encoder, recipe, backend, and, for compilers, the GPU it is compiled for.

    `target` is None for a backend that does not compile for a GPU.
    """

    encoder: EncoderSpec
    recipe: Recipe
    backend: str
    target: str | None = None
    batch: BatchProfile = BatchProfile()
    options: BuildOptions = BuildOptions()

    @property
    def prepared(self) -> PreparedSpec:
        """The exported encoder it is built from."""
        return PreparedSpec(encoder=self.encoder, recipe=self.recipe)

    @property
    def id(self) -> str:
        """Short and unique within a run: `ViT-B-32/image-linear-tensorrt_rtx-SM89`."""
        return "-".join(filter(None, (self.encoder.name, self.recipe, self.backend, self.target)))

    @property
    def stem(self) -> str:
        """File name for what `build` leaves: `<arch>-<tower>-<recipe>[-<target>]`."""
        return "-".join(filter(None, (self.encoder.stem, self.recipe, self.target)))
