"""Picture files that are damaged, hostile or huge are refused in words, before or while they are decoded."""

import os
import resource
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from harness.errors import UnusableInputs
from harness.prepare.dataset import encoder_inputs
from harness.prepare.evaluation import read_evaluation
from harness.records.spec import EncoderSpec
from tests.helpers.gates import REPOSITORY
from tests.helpers.pictures import class_folders, draw, png_that_claims

IMAGE = EncoderSpec.parse("small-clip/image")


@pytest.fixture
def animals(tmp_path):
    return class_folders(tmp_path / "animals", {"cat": ["1.png", "2.png"], "fox": ["1.png"]})


def refused_when_read(root, match):
    with pytest.raises(UnusableInputs, match=match):
        read_evaluation(root)


def refused_when_decoded(root, match):
    data = read_evaluation(root)
    with pytest.raises(UnusableInputs, match=match):
        list(data.pictures())


def test_pictures_become_the_rows_that_open_clip_makes_of_them(animals):
    draw(animals / "cat" / "2.png", "white")

    inputs = encoder_inputs(IMAGE, read_evaluation(animals))

    white = (1 - 0.48145466) / 0.26862954  # open_clip's default mean and deviation of red
    assert (inputs.name, inputs.rows.dtype, inputs.rows.shape) == ("image", np.float16, (3, 3, 32, 32))
    assert inputs.ids == ("cat/1.png", "cat/2.png", "fox/1.png")
    assert inputs.rows[1, 0].mean() == pytest.approx(white, abs=1e-3)
    assert not np.array_equal(inputs.rows[0], inputs.rows[1])


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"])
def test_a_file_that_is_no_picture_is_refused(animals, content):
    (animals / "cat" / "2.png").write_bytes(content)

    size = len(content)
    refused_when_read(animals, rf"1 of 3 pictures cannot be used, first 'cat/2\.png', which of {size} bytes is damaged or no picture")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tiff"])
def test_a_truncated_picture_is_refused_before_it_becomes_a_row(tmp_path, suffix):
    class_folders(tmp_path, {"cat": [f"1.{suffix}", "2.png"], "fox": ["1.png"]})
    Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 20).convert("RGB").save(tmp_path / "cat" / f"1.{suffix}")
    content = (tmp_path / "cat" / f"1.{suffix}").read_bytes()
    (tmp_path / "cat" / f"1.{suffix}").write_bytes(content[: len(content) // 2])

    with pytest.raises(UnusableInputs, match=rf"1\.{suffix}'.* is damaged or no picture"):  # by its head, or once it is decoded
        list(read_evaluation(tmp_path).pictures())


@pytest.mark.parametrize(("width", "height"), [(9_460, 9_460), (60_000, 60_000)])
def test_a_picture_of_too_many_pixels_is_named_with_them(animals, width, height):
    (animals / "cat" / "2.png").write_bytes(png_that_claims(width, height))

    refused_when_read(animals, rf"'cat/2\.png', which .*({width * height:,}|{width * height}) pixels.* expected at most 89,478,485 pixels")


def test_a_strip_that_preprocessing_would_blow_up_is_refused(animals):
    draw(animals / "cat" / "2.png", size=(3, 303))

    refused_when_read(animals, "which has sides of 3 x 303 pixels; expected .* sides of at most 100 to 1")


def test_a_strip_just_within_bounds_is_read(animals):
    draw(animals / "cat" / "2.png", size=(3, 300))

    assert len(encoder_inputs(IMAGE, read_evaluation(animals))) == 3


def test_huge_pictures_are_refused_in_little_memory(animals):
    (animals / "cat" / "2.png").write_bytes(png_that_claims(60_000, 60_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    refused_when_read(animals, "is too large to decode")

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB; decoded it would be ten million


def test_what_pillow_warns_of_stops_nothing(animals):
    picture = Image.new("P", (8, 8))
    picture.putpalette([*range(256)] * 3)
    picture.putdata(range(0, 256, 4))
    picture.save(animals / "cat" / "2.png", transparency=bytes(range(256)))
    with warnings.catch_warnings(), Image.open(animals / "cat" / "2.png") as opened:
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="Palette images with Transparency"):
            opened.convert("RGB")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [picture.mode for picture in read_evaluation(animals).pictures()] == ["RGB"] * 3


def test_a_picture_that_changes_during_the_run_is_refused(animals):
    data = read_evaluation(animals)
    data.source()
    draw(animals / "cat" / "2.png", "blue")

    with pytest.raises(UnusableInputs, match=r"'cat/2\.png' has changed since the run began"):
        list(data.pictures())


def test_a_picture_that_goes_away_during_the_run_is_refused(animals):
    data = read_evaluation(animals)
    (animals / "cat" / "2.png").unlink()

    with pytest.raises(UnusableInputs, match=r"'cat/2\.png' cannot be opened \(No such file"):
        data.source()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(animals):
    os.mkfifo(animals / "cat" / "3.png")

    refused_when_read(animals, "which is no plain file")


def test_pictures_are_opened_one_at_a_time(animals):
    for index in range(40):
        draw(animals / "fox" / f"{index + 2}.png", size=(900, 900))
    script = (
        "import resource, sys; from pathlib import Path; from harness.prepare.evaluation import read_evaluation;"
        "pictures = read_evaluation(Path(sys.argv[1])).pictures(); next(pictures).load();"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; count = sum(1 for _ in pictures);"
        "print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )

    done = subprocess.run([sys.executable, "-c", script, str(animals)], cwd=REPOSITORY, capture_output=True, text=True, check=True)

    count, grown_kib = map(int, done.stdout.split())
    assert count == 42
    assert grown_kib < 30_000  # all of them together are 97 MB
