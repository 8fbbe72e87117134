"""JUnit properties."""

from __future__ import annotations

from dataclasses import replace

from harness.records.verdict import Direction, Status, Suite, Verdict
from harness.report.junit import properties

VERDICT = Verdict(
    suite=Suite.BENCHMARK,
    encoder="ViT-B-32/image",
    recipe="linear",
    backend="tensorrt_rtx",
    target="SM89",
    metric="weights_bytes",
    observed=89_841_284,
    bound=0.1 + 0.2,
    unit="bytes",
    direction=Direction.CEILING,
    n=1,
    status=Status.FAIL,
    reason="too\nlarge",
)
BARE = Verdict(
    suite=Suite.GRAPH,
    encoder="e",
    recipe="r",
    backend=None,
    target=None,
    metric="finite",
    observed=None,
    bound=None,
    unit="",
    direction=Direction.EQUAL,
    n=0,
    status=Status.INVALID,
    reason="",
)


def test_every_field_of_a_verdict_is_one_property():
    prefix = "enginegate:benchmark:ViT-B-32/image:linear:tensorrt_rtx/SM89:weights_bytes"

    assert properties([VERDICT]) == [
        (f"{prefix}:status", "FAIL"),
        (f"{prefix}:observed", "89841284.0"),
        (f"{prefix}:bound", "0.30000000000000004"),
        (f"{prefix}:direction", "ceiling"),
        (f"{prefix}:n", "1"),
        (f"{prefix}:unit", "bytes"),
        (f"{prefix}:reason", "too large"),
    ]


def test_what_is_unknown_has_no_property():
    assert [name.rpartition(":")[2] for name, _ in properties([BARE])] == ["status", "direction", "n"]


def test_a_latency_has_what_it_could_have_seen():
    fields = dict(properties([replace(BARE, observed=6.1, interval=(5.8, 6.4), detectable=0.25)]))

    assert [value for name, value in fields.items() if name.endswith(":detectable")] == ["0.25"]


def test_an_estimate_has_its_bounds_and_its_budget():
    estimate = replace(BARE, observed=0.5, interval=(-0.25, 1.5), budget=7)

    fields = {name.rpartition(":")[2]: value for name, value in properties([estimate])}

    assert (fields["interval_low"], fields["interval_high"], fields["budget"]) == ("-0.25", "1.5", "7")


def test_no_two_verdicts_share_a_property():
    names = [name for name, _ in properties([VERDICT, BARE])]

    assert len(set(names)) == len(names)
