from __future__ import annotations

import hashlib
import io
import zipfile
from importlib import resources

import numpy as np
import pytest
import torch
from PIL import Image

from harness.errors import UnknownName, UnusableInputs
from harness.prepare import inputs as inputs_module
from harness.prepare.dataset import image_transform, inputs_digest
from harness.prepare.inputs import CALIBRATION_ROWS, EVALUATION_ROWS, SHA256, Split, make_inputs, split_source
from harness.prepare.vendor_log import import_quietly, quiet_to
from harness.records.spec import EncoderSpec

IMAGE, TEXT = EncoderSpec.parse("small-clip/image"), EncoderSpec.parse("small-clip/text")


def test_the_shipped_files_are_the_pinned_ones():
    folder = resources.files("harness") / "data" / "emoji"
    assert {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in SHA256} == SHA256


def test_the_splits_share_no_name_and_together_hold_the_whole_set():
    calibration = set(make_inputs(TEXT, Split.CALIBRATION, CALIBRATION_ROWS).ids)
    evaluation = set(make_inputs(TEXT, Split.EVALUATION, EVALUATION_ROWS).ids)
    assert not calibration & evaluation
    assert len(calibration | evaluation) == 1510


def test_a_longer_split_begins_with_the_shorter_one():
    few, more = (make_inputs(TEXT, Split.EVALUATION, rows) for rows in (5, 9))
    assert more.ids[:5] == few.ids
    assert np.array_equal(more.rows[:5], few.rows)


def test_row_i_of_one_tower_belongs_to_row_i_of_the_other():
    assert make_inputs(IMAGE, Split.EVALUATION, 4).ids == make_inputs(TEXT, Split.EVALUATION, 4).ids


def test_pictures_are_normalised_half_precision_rows():
    inputs = make_inputs(IMAGE, Split.CALIBRATION, 3)
    assert (inputs.name, inputs.rows.dtype, inputs.rows.shape) == ("image", np.float16, (3, 3, 32, 32))
    white = (1 - 0.48145466) / 0.26862954  # the ground is white: open_clip's default mean and deviation of red
    assert inputs.rows[0, 0, 0, 0] == pytest.approx(white, abs=1e-3)


def test_captions_become_the_tokens_of_open_clips_tokenizer():
    inputs = make_inputs(TEXT, Split.EVALUATION, 3)
    captions = {pair["id"]: pair["caption"] for pair in inputs_module._pairs(Split.EVALUATION)}
    tokenizer = import_quietly("open_clip", to="test").get_tokenizer("ViT-B-32")
    assert (inputs.name, inputs.rows.dtype, inputs.rows.shape) == ("tokens", np.int64, (3, 77))
    assert np.array_equal(inputs.rows, tokenizer([captions[emoji] for emoji in inputs.ids]).numpy())


@pytest.mark.parametrize("arch", ["small-clip", "small-timm"])
def test_preprocessing_is_what_open_clip_makes_with_the_model(arch):
    with quiet_to(None), torch.random.fork_rng(devices=[]):
        _, _, expected = import_quietly("open_clip", to="test").create_model_and_transforms(arch)
    picture = Image.effect_mandelbrot((61, 47), (-2, -1, 1, 1), 20).convert("RGB")
    assert torch.equal(image_transform(EncoderSpec(arch=arch, tower=IMAGE.tower))(picture), expected(picture))


def test_a_pretrained_tag_brings_its_own_mean_and_interpolation():
    tagged = image_transform(EncoderSpec.parse("ViT-B-16-SigLIP/image", weights="webli"))
    plain = image_transform(EncoderSpec.parse("ViT-B-16-SigLIP/image"))
    white = Image.new("RGB", (8, 8), "white")
    assert tagged(white).max() == pytest.approx(1.0)  # mean and deviation one half
    assert plain(white).max() > 1.5


def test_the_digest_depends_on_name_type_shape_and_values():
    rows = np.arange(6, dtype=np.int64).reshape(2, 3)
    others = [("image", rows), ("tokens", rows.astype(np.int32)), ("tokens", rows.reshape(3, 2)), ("tokens", rows + 1)]
    digests = {inputs_digest(name, array) for name, array in [("tokens", rows), *others]}
    assert len(digests) == 5
    assert make_inputs(TEXT, Split.EVALUATION, 2).digest == inputs_digest("tokens", make_inputs(TEXT, Split.EVALUATION, 2).rows)


@pytest.mark.parametrize("split", list(Split))
def test_a_source_names_its_files_and_its_rule(split):
    source, other = split_source(split, 8), split_source(split, 9)
    assert SHA256["captions.json"] in source.values()
    assert source != other
    assert source != split_source(next(one for one in Split if one is not split), 8)


@pytest.mark.parametrize(("split", "rows"), [(Split.CALIBRATION, 129), (Split.EVALUATION, 1383), (Split.CALIBRATION, 0)])
def test_more_rows_than_the_set_holds_are_refused(split, rows):
    with pytest.raises(UnusableInputs, match=f"{rows} {split} rows were asked for"):
        make_inputs(TEXT, split, rows)
    with pytest.raises(UnusableInputs):
        split_source(split, rows)


def test_a_data_file_that_is_not_the_pinned_one_is_refused(monkeypatch):
    monkeypatch.setitem(SHA256, "noto.zip", "0" * 64)
    with pytest.raises(UnusableInputs, match=r"emoji/noto\.zip has sha256"):
        make_inputs(IMAGE, Split.CALIBRATION, 1)


def test_a_tokenizer_from_an_unreachable_hub_is_told_in_words(monkeypatch):
    def unreachable(_):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("open_clip.get_tokenizer", unreachable)
    with pytest.raises(UnusableInputs, match=r"tokenizer of small-clip cannot be had: ConnectionError: no route"):
        make_inputs(TEXT, Split.EVALUATION, 1)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(UnknownName):
        make_inputs(EncoderSpec.parse("ViT-B-33/image"), Split.EVALUATION, 1)


@pytest.mark.parametrize("name", ["noto.zip", "twemoji.zip"])
def test_every_picture_opens_and_has_a_caption(name):
    captions = {pair["id"] for split in Split for pair in inputs_module._pairs(split)}
    with zipfile.ZipFile(io.BytesIO(inputs_module._pinned(name))) as archive:
        assert {entry.removesuffix(".png") for entry in archive.namelist()} == captions
        assert archive.testzip() is None
