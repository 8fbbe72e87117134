"""What an observation is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath

BASELINE_SCHEMA = "enginegate/baseline/1"


class BaselineMode(StrEnum):
    """What a run may do to baselines. By default it only compares."""

    COMPARE = "compare"
    CREATE = "create"  # add what is missing
    UPDATE = "update"  # replace what changed
    TRIM = "trim"  # remove what nothing asks for any more


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineKey:
    """Only an observation of the same key is compared.

    Attributes:
        machine_class: `aot-SM89` for ahead-of-time builds, `cpu-x86_64` for a CPU.
        weights: origin of the weights, free of paths: `seeded:N`, `sha256:HEX` or a pretrained tag.
        batch: `MIN/OPT/MAX`, as the engine was built.
        options: what its builder was asked beside the graph, as `BuildOptions` words it; empty for nothing.
    """

    machine_class: str
    arch: str
    tower: str
    recipe: str
    backend: str
    backend_version: str
    weights: str
    batch: str
    options: str = ""

    @property
    def path(self) -> PurePosixPath:
        """Where its record lies below the baselines folder; records of other weights and batches share the file."""
        return PurePosixPath(
            self.machine_class,
            self.arch.replace("/", "-"),
            self.tower,
            self.recipe,
            f"{self.backend}-{self.backend_version}.json",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """One approved observation.

    Attributes:
        figures: metric name to value, in the metric's unit.
        onnx_sha256: digest of the graph the engine was built from.
        samples: what the figures were made of, by name: `process_ratios` are the ratios of `latency_ratio`, one a process of every
            stage, in order.
        provenance: machine, library versions and time of making, for people; and what a figure is compared under: `inputs`, `processor`,
            `weighed_on`, `timing_driver` and `timing_protocol`.
    """

    key: BaselineKey
    figures: Mapping[str, float]
    onnx_sha256: str
    samples: Mapping[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    provenance: Mapping[str, str] = field(default_factory=dict[str, str])


def with_figures(
    before: Baseline | None,
    *,
    key: BaselineKey,
    onnx_sha256: str,
    figures: Mapping[str, float],
    samples: Mapping[str, tuple[float, ...]],
    provenance: Mapping[str, str],
) -> Baseline:
    """The record of `key` with more figures. What was seen of another graph is not kept beside them.

    Args:
        before: the record so far; None where there is none.
        onnx_sha256: digest of the graph that `figures` were seen of.
    """
    kept = before if before is not None and before.onnx_sha256 == onnx_sha256 else None
    return Baseline(
        key=key,
        figures=_plain_numbers({**(kept.figures if kept else {}), **figures}),
        onnx_sha256=onnx_sha256,
        samples={**(kept.samples if kept else {}), **samples},
        provenance={**(kept.provenance if kept else {}), **provenance},
    )


def _plain_numbers(figures: Mapping[str, float]) -> dict[str, float]:
    """Whole numbers without a decimal point, as a person would write bytes; the rest to four places."""
    return {name: int(figure) if float(figure).is_integer() else round(figure, 4) for name, figure in figures.items()}
