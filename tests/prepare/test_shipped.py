"""Weights that come with the project."""

import numpy as np
import pytest
from safetensors import safe_open

from harness.errors import UnusableCheckpoint
from harness.prepare.checkpoint import load_encoder, weights_origin
from harness.prepare.configurations import MODELS, tokenizer_settings
from harness.prepare.inputs import Split, make_inputs
from harness.prepare.references import exact_rows, fake_quant_rows
from harness.prepare.shipped import OUTLIER_GAIN, shipped_names
from harness.records.spec import EncoderSpec, Recipe, Tower
from tests.helpers.accuracy import snr_db

pytestmark = pytest.mark.filterwarnings("ignore")  # open_clip's and Model Optimizer's own


def encoder(tower, weights):
    return EncoderSpec(arch="emoji-clip", tower=Tower(tower), weights=weights)


def test_the_weights_fit_the_repository_and_are_half_precision():
    file = MODELS / "emoji-clip.safetensors"
    assert file.stat().st_size < 20e6
    with safe_open(file, framework="np") as tensors:
        assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"F16"}


def test_shipped_weights_are_named_by_what_is_in_their_file():
    plain, derived = (weights_origin(encoder("image", weights)) for weights in shipped_names("emoji-clip"))
    assert plain.startswith("sha256:")
    assert derived == f"{plain}+noto-outliers"


def test_names_of_shipped_weights_mean_nothing_to_other_configurations():
    with pytest.raises(UnusableCheckpoint, match="neither a file nor a pretrained tag"):
        load_encoder(EncoderSpec.parse("ViT-B-32/image", weights="noto"))


def test_an_unknown_name_is_answered_with_those_that_ship():
    with pytest.raises(UnusableCheckpoint, match="noto"):
        load_encoder(encoder("image", "nota"))


@pytest.mark.parametrize("tower", ["image", "text"])
def test_outlier_channels_change_nothing_in_fp32_and_cost_fp8_something(tower):
    inputs = make_inputs(encoder(tower, "noto"), Split.EVALUATION, 64)
    calibration = make_inputs(encoder(tower, "noto"), Split.CALIBRATION, 128)

    exact, with_outliers = (exact_rows(encoder(tower, weights), inputs).rows for weights in shipped_names("emoji-clip"))
    plain_db, derived_db = (
        snr_db(fake_quant_rows(encoder(tower, weights), Recipe.LINEAR, calibration, inputs).rows, exact)
        for weights in shipped_names("emoji-clip")
    )

    assert np.array_equal(exact, with_outliers)
    assert derived_db < plain_db - 0.5


def test_outlier_channels_are_really_there():
    plain, derived = (load_encoder(encoder("image", weights)).state_dict() for weights in shipped_names("emoji-clip"))
    name = "tower.transformer.resblocks.2.ln_2.weight"
    assert derived[name].abs().max() == OUTLIER_GAIN * plain[name].abs().max()


def test_the_tokenizer_is_made_of_the_merges_beside_the_configuration():
    assert tokenizer_settings("emoji-clip")["bpe_path"] == str(MODELS / "merges.txt.gz")
    assert tokenizer_settings("ViT-B-32") == {}
    tokens = make_inputs(encoder("text", "noto"), Split.EVALUATION, 3).rows
    assert (tokens.shape, int(tokens.max())) == ((3, 32), 4513)


def test_the_model_learnt_the_names_of_drawings_it_never_saw():
    pictures, names = (
        exact_rows(encoder(tower, "noto"), make_inputs(encoder(tower, "noto"), Split.EVALUATION, 256)) for tower in ("image", "text")
    )
    unit = [made.rows / np.linalg.norm(made.rows, axis=1, keepdims=True) for made in (pictures, names)]
    top1 = float((np.argmax(unit[0] @ unit[1].T, axis=1) == np.arange(256)).mean())
    assert 0.4 < top1 < 0.95  # of 256 names; chance is 0.004
    assert pictures.logit_scale == names.logit_scale > 1
