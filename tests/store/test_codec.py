"""Records to JSON and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StoreFailed, UnreadableBaseline
from harness.records.artifacts import EngineArtifact, OnnxArtifact, Repair
from harness.records.baseline import Baseline, BaselineKey
from harness.records.machine import Machine
from harness.records.run import RunRecord
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, Recipe, Tower
from harness.records.verdict import Direction, Status, Suite, Verdict
from harness.store.codec import canonical_json, from_json, json_schema, to_json

TEXTS = st.text(max_size=12)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
KEYS = st.builds(BaselineKey, **dict.fromkeys(("machine_class", "arch", "tower", "recipe", "backend", "backend_version"), TEXTS))
BASELINES = st.builds(
    Baseline,
    key=KEYS,
    figures=st.dictionaries(TEXTS, FLOATS, max_size=3),
    samples=st.dictionaries(TEXTS, st.lists(FLOATS, max_size=4).map(tuple), max_size=2),
    provenance=st.dictionaries(TEXTS, TEXTS, max_size=2),
)
VERDICTS = st.builds(Verdict, encoder=TEXTS, recipe=TEXTS, metric=TEXTS, observed=st.none() | FLOATS, bound=st.none() | FLOATS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    ms: float = 0.0
    place: Path | None = None
    facts: Mapping[str, float] = field(default_factory=dict)
    rows: tuple[tuple[int, ...], ...] = ()


@given(st.one_of(BASELINES, VERDICTS, st.builds(Machine, memory_bytes=st.none() | st.integers(0, 2**40))))
def test_what_was_written_reads_back_equal(record: object):
    document = to_json(record)

    assert from_json(type(record), document, origin="somewhere") == record
    assert to_json(from_json(type(record), document, origin="somewhere")) == document


def test_an_engine_with_its_whole_provenance_reads_back_equal():
    encoder = EncoderSpec(arch="ViT-B-32", tower=Tower.IMAGE)
    onnx = OnnxArtifact(
        encoder=encoder,
        recipe=Recipe.LINEAR,
        origin="seeded:0",
        path=Path("a/encoder.onnx"),
        sha256="0" * 64,
        nbytes=3,
        opset=20,
        repairs=(Repair(name="domain", count=2, detail="trt"),),
    )
    spec = EngineSpec(encoder=encoder, recipe=Recipe.LINEAR, backend="fake", batch=BatchProfile(minimum=1, optimum=2, maximum=4))
    engine = EngineArtifact(
        spec=spec, source=onnx, backend_version="1", path=Path("a/engine"), sha256="1" * 64, plan_bytes=9, build_seconds=1.5
    )

    assert from_json(EngineArtifact, to_json(engine), origin="somewhere") == engine


def test_keys_are_sorted_and_a_list_of_numbers_stays_on_one_line():
    assert to_json(Sample(ms=1.5, facts={"b": 2.0, "a": 1.0}, rows=((1, 2), (3,)))).decode() == (
        '{\n  "facts": {\n    "a": 1.0,\n    "b": 2.0\n  },\n  "ms": 1.5,\n  "place": null,\n  "rows": [\n    [1, 2],\n    [3]\n  ]\n}\n'
    )


def test_a_file_name_that_is_no_utf_8_survives():
    odd = Sample(place=Path("weights-\udcff.onnx"))

    assert from_json(Sample, to_json(odd), origin="somewhere") == odd


def test_numbers_of_numpy_are_written_as_numbers():
    sample = Sample(ms=np.float32(0.5), facts=MappingProxyType({"a": np.float64(2)}))  # type: ignore[arg-type]

    assert from_json(Sample, to_json(sample), origin="somewhere") == Sample(ms=0.5, facts={"a": 2.0})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), np.float32("-inf")])
def test_a_number_that_is_not_finite_is_refused_with_its_field(number: float):
    with pytest.raises(StoreFailed, match=r"cannot write Sample: facts\.latency_ms is -?(nan|inf); expected a finite number"):
        to_json(Sample(facts={"latency_ms": number}))
    with pytest.raises(StoreFailed, match=r"\[1\]"):
        canonical_json([1.0, float(number)])
    with pytest.raises(StoreFailed, match="the value is"):
        canonical_json(float(number))


def test_a_value_without_json_is_a_programming_error():
    with pytest.raises(NotImplementedError, match="cannot write a PurePosixPath as JSON"):
        to_json(PurePosixPath("a"))


def test_the_canonical_spelling_knows_no_order_and_no_blanks():
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == canonical_json({"a": "é", "b": (1, 2.5)}) == b'{"a":"\\u00e9","b":[1,2.5]}'


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b'{\n  "ms": 1.5,\n}', r"file\.json:3: is no JSON"),
        (b'{"ms": 1.5\n<<<<<<< HEAD\n}', r"file\.json:2: holds merge-conflict markers; .* resolve the conflict"),
        (b'{"ms":\n=======\n1}', r"file\.json:2: holds merge-conflict markers"),
        (b"==================\n", r"file\.json:1: is no JSON"),
        (b'{"ms":\r\n1}\r\n>>>>>>> theirs', r"file\.json:3: holds merge-conflict markers"),
        (b'{\n"place": "\xff"}', r"file\.json:2: is no UTF-8"),
        (b'{"ms": NaN}', r"file\.json: holds NaN; expected a finite number"),
        (b'{"ms": -Infinity}', r"file\.json: holds -Infinity"),
        (b'{"ms": 1e999}', r"file\.json: holds 1e999"),
        (b'{"ms": 1, "ms": 2}', r"file\.json: gives the key 'ms' twice"),
        (b"[" * 100_000, r"file\.json: .*recursion"),
        (b'{"ms": "fast"}', r"file\.json: Expected `float`, got `str` - at `\$\.ms`"),
        (b'{"place": 3}', r"file\.json: Expected `str`, got `int` - at `\$\.place`"),
        (b'{"mss": 1}', r"file\.json: has the unknown key \$\.mss"),
        (b"[]", r"file\.json: Expected `object`, got `array`"),
    ],
)
def test_an_odd_document_is_refused_with_file_and_place(document: bytes, message: str):
    with pytest.raises(UnreadableBaseline, match=message):
        from_json(Sample, document, origin="file.json", refuse=UnreadableBaseline)


def test_an_unknown_key_deep_inside_is_named_by_its_path():
    document = json.loads(to_json(Machine(system="Linux", architecture="x", cpu_model="", cpu_count=1, memory_bytes=1, python="3")))
    verdict = Verdict(
        suite=Suite.GRAPH,
        encoder="a",
        recipe="b",
        backend=None,
        target=None,
        metric="m",
        observed=None,
        bound=None,
        unit="",
        direction=Direction.FLOOR,
        n=0,
        status=Status.PASS,
        reason="",
    )
    run = {"started": "", "finished": "", "command": [], "exit_code": 0, "outcome": None, "machine": document}
    run["verdicts"] = [json.loads(to_json(verdict)), {**json.loads(to_json(verdict)), "colour": "red"}]

    with pytest.raises(StoreFailed, match=r"unknown key \$\.verdicts\[1\]\.colour"):
        from_json(RunRecord, json.dumps(run).encode(), origin="run.json")


def test_what_a_record_itself_refuses_is_told_with_the_file():
    with pytest.raises(StoreFailed, match=r"spec\.json: batch profile 4/2/1 does not ascend"):
        from_json(BatchProfile, b'{"minimum": 4, "optimum": 2, "maximum": 1}', origin="spec.json")


def test_a_schema_requires_every_key_and_allows_no_other():
    schema = json_schema(Sample)

    assert schema["$defs"]["Sample"]["additionalProperties"] is False
    assert schema["$defs"]["Sample"]["required"] == ["facts", "ms", "place", "rows"]
    assert "$defs" not in json_schema(int)


def test_a_schema_of_a_class_that_is_no_record_is_a_programming_error():
    with pytest.raises(TypeError, match="PurePosixPath"):
        json_schema(PurePosixPath)


def test_a_class_that_cannot_be_read_is_refused():
    with pytest.raises(StoreFailed, match="Expected `str`"):
        from_json(PurePosixPath, b'"a"', origin="file.json")
