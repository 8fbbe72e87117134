"""Reads the trace that ONNX Runtime's profiler writes: which nodes ran in each launch, how long, and of which tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.contracts import LayerMilliseconds, ProfiledLaunches
from harness.errors import InvalidMeasurement
from harness.records.observations import LayerRow, LayerTensor

_KERNEL = "_kernel_time"
# The layer tables' words for types.
_TYPES = {"float8e4m3fn": "FP8", "float16": "Half", "bfloat16": "BFloat16", "float": "Float"}


def read_profile(document: bytes, launches: int) -> ProfiledLaunches:
    """Times of each launch, and a row for each node of the last one.

    Raises:
        InvalidMeasurement: it is no such trace, or not of so many launches.
    """
    try:
        events = [event for event in json.loads(document) if isinstance(event, dict)]
        runs = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event.get("name") == "model_run")
        kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_KERNEL)]
        kernels.sort(key=lambda event: event["ts"])
        if len(runs) != launches:
            raise InvalidMeasurement(f"ONNX Runtime's profile holds {len(runs)} launches; expected {launches}; profile it again")
        last = [event for event in kernels if _is_within(event, runs[-1])] if runs else []
        return ProfiledLaunches(
            launches=tuple(_launch(kernels, run) for run in runs),
            rows=tuple(_row(event) for event in last),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidMeasurement(f"ONNX Runtime's profile cannot be read ({error!r}); expected its trace of events") from error


def _launch(kernels: Sequence[Mapping[str, Any]], run: tuple[int, int]) -> LayerMilliseconds:
    """Microseconds in the trace become milliseconds."""
    return tuple((_name(event), event["dur"] / 1000) for event in kernels if _is_within(event, run))


def _is_within(event: Mapping[str, Any], run: tuple[int, int]) -> bool:
    return run[0] <= event["ts"] <= run[1]


def _name(event: Mapping[str, Any]) -> str:
    return event["name"].removesuffix(_KERNEL)


def _row(event: Mapping[str, Any]) -> LayerRow:
    facts, name = event["args"], _name(event)
    return LayerRow(
        name=name,
        kind=facts["op_name"],
        inputs=tuple(_tensors(facts.get("input_type_shape", ()))),
        constants=(),
        outputs=tuple(_tensors(facts.get("output_type_shape", ()))),
        tactic=facts.get("provider", ""),
        onnx_nodes=(name,),
    )


def _tensors(listed: Sequence[Mapping[str, Sequence[int]]]) -> Iterator[LayerTensor]:
    """Each is `{type: shape}`; names are not told, and weights stand among the inputs."""
    for tensor in listed:
        for datatype, shape in tensor.items():
            yield LayerTensor(name="", shape=tuple(shape), datatype=_TYPES.get(datatype.lower(), datatype.capitalize()))
