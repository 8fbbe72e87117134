"""What must hold before two sets of embeddings are compared."""

from __future__ import annotations

import numpy as np

from harness.errors import InvalidMeasurement
from harness.records.observations import Embeddings


def require_same_inputs(observed: Embeddings, reference: Embeddings) -> None:
    """Raise InvalidMeasurement unless both hold one row of one width for each of the same inputs."""
    require_same_digest(observed, reference)
    if not len(observed.rows):
        raise InvalidMeasurement(f"{observed.made_by} has no rows; expected at least one; look at the evaluation inputs")
    if observed.rows.shape != reference.rows.shape:
        raise InvalidMeasurement(
            f"{observed.made_by} gave {observed.rows.shape}, {reference.made_by} {reference.rows.shape}; expected equal shapes"
        )
    for one in (observed, reference):
        if one.rows.dtype.kind != "f":
            raise InvalidMeasurement(f"{one.made_by} gave rows of {one.rows.dtype}; expected float32")


def require_same_digest(observed: Embeddings, reference: Embeddings) -> None:
    """Raise InvalidMeasurement unless both were computed from the same inputs."""
    if observed.inputs_digest != reference.inputs_digest:
        raise InvalidMeasurement(
            f"{observed.made_by} and {reference.made_by} were computed from different inputs "
            f"({observed.inputs_digest[:12]} and {reference.inputs_digest[:12]}); make both from one set"
        )


def require_finite(reference: Embeddings) -> None:
    """Raise InvalidMeasurement for a reference with rows that are not finite: nothing can be compared with it."""
    broken = np.flatnonzero(~np.isfinite(reference.rows).all(axis=1))
    if len(broken):
        raise InvalidMeasurement(
            f"{reference.made_by} has {len(broken)} rows that are not finite, first {reference.ids[broken[0]]}; "
            "expected finite references; look at the weights and the inputs"
        )
