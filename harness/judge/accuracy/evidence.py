"""What judges of accuracy look at."""

from __future__ import annotations

from dataclasses import dataclass

from harness.records.observations import Embeddings, RangeUse
from harness.records.task import Task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AccuracyEvidence:
    """What one engine made of the evaluation inputs, and what it is compared with. All rows are of the same inputs, in one order.

    Attributes:
        observed: by the engine under test.
        exact: by the untouched encoder, in FP32 torch.
        fake_quant: by the same encoder with Model Optimizer's quantizers, in FP32 torch; None for a recipe that quantizes nothing.
        range_use: of the quantizers' inputs, by the fake-quantized encoder; None where that is.
        half: by the FP16 engine of the same backend; None where that is the engine under test.
        task: what the rows are for; None for weights that have learnt nothing.
        approved_snr_db: centred SNR of the approved engine on these inputs; None where there is none.
        approved_to_fake_quant_db: SNR of the approved engine to its own quantizers, on these inputs; None where there is none.
        weights: origin of the weights of `observed` and of the references, to be held against the task's; None where it is not known.
    """

    observed: Embeddings
    exact: Embeddings
    fake_quant: Embeddings | None = None
    range_use: RangeUse | None = None
    half: Embeddings | None = None
    task: Task | None = None
    approved_snr_db: float | None = None
    approved_to_fake_quant_db: float | None = None
    weights: str | None = None
