"""Where in an encoder its accuracy is lost: the content of `locate/<engine>.json` in a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LOCALISATION_SCHEMA = "enginegate/localisation/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One part of a tower: a block, or what lies before or after the blocks.

    Attributes:
        name: `before the blocks`, `block 0` and so on, `after the blocks`.
        block: index of the block; None for the other two.
        curve_db: SNR of what comes out of it in the diagnostic copy, whose errors add up from the input on: energy of the exact
            tensor around its mean over the inputs, over the energy of the error. None where something is not finite.
        own_db: SNR of what it adds itself when it is given exact tensors: energy of the exact output less the exact input, over
            the energy of the error. None where something is not finite.
        expected_db: what `own_db` would be without a fault, by the other blocks or by what its number format keeps.
        quantizers: how many roundings to FP8 it holds.
        stands_out: whether its own error is larger than a sound stage's.
    """

    name: str
    block: int | None
    curve_db: float | None
    own_db: float | None
    expected_db: float
    quantizers: int
    stands_out: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """The suspect's error without one of its quantizers.

    Attributes:
        node: the QuantizeLinear, or the DequantizeLinear of a stored weight.
        tensor: what it rounds, by its name in the graph.
        feeds: in words, such as `block 5: input of fc2`.
        own_db: of the suspect, with this quantizer left out; None where something is not finite.
        recovered_db: by how much that is above the suspect's `own_db`; None where either is not finite.
        recovers: whether the suspect would not stand out without it.
    """

    node: str
    tensor: str
    feeds: str
    own_db: float | None
    recovered_db: float | None
    recovers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Localisation:
    """Where one engine's accuracy is lost, as far as the graph that it was built from shows.

    Attributes:
        engine: `EngineSpec.id`.
        rows: evaluation inputs that were looked at.
        stages: in the order in which a tower computes them.
        suspect: name of the stage that stands out most; None when none does.
        left_out: each quantizer of the suspect, the one that recovers most first.
        all_left_out_db: the suspect's `own_db` without any of its quantizers; None where it has none, or something is not finite.
        graph_db: SNR of the diagnostic copy's embeddings, centred as `centred_snr_db` is; None where one is not finite.
        engine_db: the same of the engine under test on the same rows; None where its embeddings of them are not at hand.
        sentence: all of this in one sentence, for a failing gate.
    """

    encoder: str
    recipe: str
    engine: str
    onnx_sha256: str
    rows: int
    stages: tuple[Stage, ...]
    suspect: str | None
    left_out: tuple[LeftOut, ...]
    all_left_out_db: float | None
    graph_db: float | None
    engine_db: float | None
    sentence: str
    schema: Literal["enginegate/localisation/1"] = LOCALISATION_SCHEMA
