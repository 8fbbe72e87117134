"""Judges embeddings: each row against its reference, one reference against another, and what the rows are for."""

from harness.judge.accuracy.rows import ROWS_FOR_P01, centred_snr_db, cosine_min, cosine_p01, finite, row_cosines, snr_of

__all__ = ["ROWS_FOR_P01", "centred_snr_db", "cosine_min", "cosine_p01", "finite", "row_cosines", "snr_of"]
