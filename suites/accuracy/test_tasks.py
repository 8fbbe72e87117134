"""What embeddings are for survives: names of pictures, and pictures of names."""

import pytest

pytestmark = pytest.mark.accuracy


@pytest.mark.gates("logit_drift_p99", trained=True)
def test_no_logit_drifts_far(engine, expect_of):
    expect_of(engine, "logit_drift_p99")


@pytest.mark.gates("zero_shot_agreement", "zero_shot_top1_drop", trained=True)
def test_pictures_keep_their_names(engine, expect_of):
    expect_of(engine, "zero_shot_agreement", "zero_shot_top1_drop")


@pytest.mark.gates("recall_at_1_drop", "recall_at_5_drop", "top10_overlap", trained=True)
def test_searches_find_what_they_found(engine, expect_of):
    expect_of(engine, "recall_at_1_drop", "recall_at_5_drop", "top10_overlap")
