"""An engine's embeddings stay where FP32 put them, and where its quantizers alone would have put them."""

import pytest

pytestmark = pytest.mark.accuracy


@pytest.mark.gates("finite")
def test_every_embedding_is_sound(engine, expect_of):
    expect_of(engine, "finite")


@pytest.mark.gates("cosine_min")
def test_no_embedding_turns_away_from_fp32(engine, expect_of):
    expect_of(engine, "cosine_min", "cosine_p01")


@pytest.mark.gates("centred_snr_db")
def test_differences_between_embeddings_survive(engine, expect_of):
    expect_of(engine, "centred_snr_db")


@pytest.mark.gates("snr_loss_db", "snr_to_fake_quant_db", quantized=True)
def test_the_compiler_costs_no_more_than_quantization_does(engine, expect_of):
    expect_of(engine, "snr_loss_db", "snr_to_fake_quant_db")


@pytest.mark.gates("calibration_coverage", quantized=True)
def test_calibration_saw_what_the_encoder_is_used_for(engine, expect_of):
    expect_of(engine, "calibration_coverage")


@pytest.mark.gates("fp8_error_db", quantized=True)
def test_fp8_is_really_at_work(engine, expect_of):
    expect_of(engine, "fp8_error_db")
