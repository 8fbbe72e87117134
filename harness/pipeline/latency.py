"""Latency samples from a file to a judgement."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harness.errors import BadSamples
from harness.judge.latency.samples import judge_samples
from harness.records.latency import LatencyJudgement
from harness.report.latency import latency_text
from harness.store.codec import to_json
from harness.store.latency_samples import read_latency_samples

STDIN = "-"


@dataclass(frozen=True, slots=True)
class JudgedLatency:
    """A judgement, and its two forms for readers."""

    judgement: LatencyJudgement

    @property
    def document(self) -> str:
        """JSON, schema `enginegate/latency-judgement/1`."""
        return to_json(self.judgement).decode().rstrip()

    @property
    def text(self) -> str:
        """For people."""
        return latency_text(self.judgement)


def judge_latency_file(name: str, stdin: BinaryIO, *, alpha: float, delta: float, against: float) -> JudgedLatency:
    """Judge the samples in the file `name`, or on `stdin` when it is `-`.

    Raises:
        BadSamples: it cannot be read, is no JSON, or of another schema.
    """
    samples = read_latency_samples(_content(name, stdin), origin="stdin" if name == STDIN else name)
    return JudgedLatency(judge_samples(samples, alpha=alpha, delta=delta, against=against))


def _content(name: str, stdin: BinaryIO) -> bytes:
    if name == STDIN:
        return stdin.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise BadSamples(f"cannot read {name} ({error.strerror}); expected a file of latency samples") from error
