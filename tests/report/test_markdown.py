"""A run as Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from harness.records.artifacts import Repair
from harness.records.machine import Machine
from harness.records.verdict import Direction, NotRun, Status, Suite, Verdict
from harness.report.markdown import LIMIT_BYTES, summary

MACHINE = Machine(
    system="Linux", architecture="x86_64", cpu_model="a CPU", cpu_count=2, memory_bytes=None, python="3.11", versions={"torch": "2.10"}
)


@dataclass(frozen=True, kw_only=True)
class Engine:
    encoder: str = "ViT-B-32/image"
    recipe: str = "linear"
    backend: str = "tensorrt_rtx"
    backend_version: str = "1.7.1"
    batch: str = "8/8/8"
    notes: tuple[str, ...] = ()
    target: str | None = "SM89"
    weights_bytes: int | None = 89_841_284
    plan_bytes: int | None = None
    activation_bytes: int | None = 0
    onnx_bytes: int | None = 90_000_000
    build_seconds: float | None = 2.54
    build_host_bytes: int | None = 712_000_000
    cache: str | None = "miss"
    repairs: tuple[Repair, ...] = (Repair(name="stale_value_info", count=3, detail="types <old>"),)


@dataclass(frozen=True, kw_only=True)
class Remark:
    suite: Suite = Suite.GRAPH
    encoder: str = "ViT-B-32/image"
    recipe: str = "modelopt"
    backend: str | None = None
    target: str | None = None
    check: str = "check_O7"
    message: str = "24 attention MatMuls"


@dataclass(frozen=True, kw_only=True)
class Run:
    started: str = "2026-11-23T15:04:05+00:00"
    finished: str = "2026-11-23T15:05:05+00:00"
    outcome: Status | None = Status.FAIL
    machine: Machine = MACHINE
    engines: tuple[Engine, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    not_run: tuple[NotRun, ...] = ()
    reports: tuple[Remark, ...] = field(default=())


def verdict(status: Status, metric: str = "centred_snr_db", reason: str = "") -> Verdict:
    return Verdict(
        suite=Suite.ACCURACY,
        encoder="ViT-B-32/image",
        recipe="linear",
        backend="onnxruntime",
        target=None,
        metric=metric,
        observed=9.5,
        bound=10.0,
        unit="dB",
        direction=Direction.FLOOR,
        n=64,
        status=status,
        reason=reason,
    )


def test_the_outcome_leads_and_the_worst_gates_come_first():
    text = summary(Run(verdicts=tuple(verdict(status) for status in Status)))

    assert text.startswith("## enginegate: FAIL\n\n5 gates: 1 PASS, 1 FAIL, 1 INCONCLUSIVE, 1 INVALID, 1 NO_BASELINE; 0 not run; ")
    rows = [line.split("|")[1].strip(" *\\") for line in text.splitlines() if line.startswith("| ")]
    assert rows == ["verdict", "---", "FAIL", "INVALID", "INCONCLUSIVE", "NO_BASELINE", "PASS"]


def test_a_gate_shows_its_figures_with_unit_and_direction():
    text = summary(Run(verdicts=(verdict(Status.FAIL, reason="too far"),)))

    assert (
        r"| **FAIL** | accuracy | ViT-B-32/image | linear | onnxruntime | centred\_snr\_db | 9.5 | &gt;= 10.0 | dB | 64 |  | too far |"
        in text
    )


def test_an_estimate_shows_what_it_rests_on():
    estimate = replace(verdict(Status.INCONCLUSIVE, reason="too few"), interval=(8.84, 10.96), budget=-1)

    assert r"| 9.5 | &gt;= 10.0 | dB | 64 | \[8.8, 11.0\] no budget in 64 | too few |" in summary(Run(verdicts=(estimate,)))


def test_engines_repairs_findings_and_the_rest_are_there():
    missing = NotRun(
        suite=Suite.BENCHMARK, encoder="a/text", recipe="linear", backend=None, target=None, gate="latency_ms", reason="no GPU"
    )
    bare = Engine(weights_bytes=None, build_seconds=None, build_host_bytes=None, cache=None, target=None, repairs=())

    text = summary(Run(engines=(Engine(), bare), not_run=(missing,), reports=(Remark(),)))

    assert r"| ViT-B-32/image | linear | tensorrt\_rtx/SM89 | 1.7.1 | 89,841,284 | - | 0 | 90,000,000 | 2.5 | 712,000,000 | miss |" in text
    assert r"| ViT-B-32/image | linear | tensorrt\_rtx | 1.7.1 | - | - | 0 | 90,000,000 | - | - | - |" in text
    assert r"- ViT-B-32/image linear: stale\_value\_info, 3 places: types &lt;old&gt;" in text
    assert r"- no GPU: benchmark a/text linear - (latency\_ms)" in text
    assert r"- graph ViT-B-32/image modelopt - check\_O7: 24 attention MatMuls" in text
    assert "Linux x86\\_64, a CPU x 2, no GPU, Python 3.11\n\ntorch 2.10" in text


def test_a_run_without_verdicts_says_so():
    machine = Machine(
        system="L", architecture="x", cpu_model="c", cpu_count=1, memory_bytes=1, python="3", gpus=("H200", "H200"), driver="580"
    )

    text = summary(Run(outcome=None, machine=machine))

    assert text.startswith("## enginegate: no verdict\n\n0 gates; ")
    assert "H200, H200, driver 580" in text
    assert "### Engines" not in text


def test_marks_in_a_reason_stay_text():
    text = summary(Run(verdicts=(verdict(Status.FAIL, reason="a | b\n<img> `c` [d](e)"),)))

    assert r"a \| b &lt;img&gt; \`c\` \[d\](e) |" in text


@pytest.mark.parametrize("limit_bytes", [200, 1000, 5000])
def test_a_summary_that_is_too_large_is_cut_at_a_line_and_says_so(limit_bytes: int):
    text = summary(Run(verdicts=(verdict(Status.FAIL, "é" * 20),) * 500), limit_bytes=limit_bytes)

    assert len(text.encode()) <= limit_bytes
    assert text.startswith("## enginegate: FAIL")
    assert text.endswith(" more lines. The whole run is in run.json.\n")


def test_ten_thousand_gates_fit_the_page_of_a_ci_step():
    assert len(summary(Run(verdicts=(verdict(Status.PASS, reason="r" * 100),) * 10_000)).encode()) <= LIMIT_BYTES


def test_what_to_know_of_an_engine_has_a_section_where_there_is_something():
    note = "built for batch 8/8/8 in place of 1/8/64"
    assert f"### What to know of engines\n\n- ViT-B-32/image linear, batch 8/8/8: {note}\n" in summary(
        Run(engines=(Engine(notes=(note,)),))
    )
    assert "What to know" not in summary(Run(engines=(Engine(),)))
