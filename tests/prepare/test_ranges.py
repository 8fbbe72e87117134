import numpy as np
import pytest
import torch

from harness.errors import InvalidMeasurement
from harness.prepare.attention import unpack_attention
from harness.prepare.checkpoint import load_encoder
from harness.prepare.inputs import Split, make_inputs
from harness.prepare.quantize import activation_quantizers, quantize
from harness.prepare.ranges import RangeWatch, watched
from harness.records.spec import EncoderSpec, Recipe

SPEC = EncoderSpec.parse("small-clip/image")


@pytest.fixture(scope="module")
def calibration():
    return make_inputs(SPEC, Split.CALIBRATION, 4)


@pytest.fixture(scope="module")
def quantized(calibration):
    encoder = load_encoder(SPEC)
    unpack_attention(encoder)
    quantize(encoder, Recipe.LINEAR, calibration)
    return encoder


def shares(encoder, rows):
    with watched(encoder) as watch, torch.inference_mode():
        for batch in np.array_split(rows, 2):
            encoder(torch.from_numpy(batch).float())
    return watch.shares(len(rows))


def test_what_calibrated_a_range_fills_it_and_never_leaves_it(quantized, calibration):
    seen = shares(quantized, calibration.rows)

    assert seen.shape == (4, len(list(activation_quantizers(quantized))))
    largest = seen.max(axis=0)
    assert largest[0] == pytest.approx(1, abs=1e-3), "the first quantizer meets the very tensor it was calibrated on"
    assert largest == pytest.approx(1, abs=5e-2), "later ones meet what FP8 before them made of it: a few per cent, E4M3's step"


def test_larger_inputs_leave_the_range_of_the_first_layers(quantized, calibration):
    assert shares(quantized, 100 * calibration.rows).max() > 1


def test_watching_changes_no_output_and_ends_with_its_context(quantized, calibration):
    rows = torch.from_numpy(calibration.rows).float()
    with torch.inference_mode():
        before = quantized(rows)
        with watched(quantized) as watch:
            during = quantized(rows)
        quantized(rows)

    assert torch.equal(before, during)
    assert len(watch.shares(4)) == 4, "the run after the context was not noted"


def test_a_quantizer_that_is_not_fed_one_row_an_input_is_refused():
    watch = RangeWatch()
    watch.note("visual.conv1", 1.0, torch.ones(3, 2))

    with pytest.raises(InvalidMeasurement, match=r"visual\.conv1 was fed 3 rows of 4"):
        watch.shares(4)
