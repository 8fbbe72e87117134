"""An engine's embeddings stay where FP32 put them."""

import pytest

from harness.judge.accuracy import centred_snr_db, cosine_min, cosine_p01, finite

pytestmark = pytest.mark.accuracy


@pytest.mark.gates("finite")
def test_every_embedding_is_sound(engine, observe, expect):
    expect(finite(observe.embeddings(engine), observe.reference(engine)))


@pytest.mark.gates("cosine_min")
def test_no_embedding_turns_away_from_fp32(engine, observe, expect):
    seen, exact = observe.embeddings(engine), observe.reference(engine)
    expect(cosine_min(seen, exact, floor=observe.limit("cosine_min", engine)))
    expect(cosine_p01(seen, exact, floor=observe.limit("cosine_p01", engine)))


@pytest.mark.gates("centred_snr_db")
def test_differences_between_embeddings_survive(engine, observe, expect):
    seen, exact = observe.embeddings(engine), observe.reference(engine)
    floor, margin_db = observe.limit("centred_snr_db", engine), observe.margin("centred_snr_db", engine)
    expect(centred_snr_db(seen, exact, floor=floor, approved_db=observe.approved("centred_snr_db", engine), margin_db=margin_db))
