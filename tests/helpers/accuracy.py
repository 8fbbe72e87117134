"""Embeddings for tests."""

import numpy as np

from harness.judge.accuracy import snr_of
from harness.records.observations import Embeddings


def embeddings_of(rows: np.ndarray) -> Embeddings:
    """Rows as embeddings of one set of inputs."""
    ids = tuple(map(str, range(len(rows))))
    return Embeddings(rows=np.asarray(rows, dtype=np.float32), ids=ids, inputs_digest="one set", made_by="a test")


def snr_db(rows: np.ndarray, exact: np.ndarray) -> float:
    """Centred signal-to-noise ratio in dB."""
    return snr_of(embeddings_of(rows), embeddings_of(exact))
