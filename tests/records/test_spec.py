import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UnknownName, UsageError
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, Recipe, Tower, normalized_target


def test_an_encoder_is_read_as_people_write_it():
    encoder = EncoderSpec.parse("ViT-L-14/text", weights="seeded:3")

    assert (encoder.arch, encoder.tower, encoder.seed, encoder.name) == ("ViT-L-14", Tower.TEXT, 3, "ViT-L-14/text")


@pytest.mark.parametrize("name", ["ViT-L-14", "ViT-L-14/audio", "/image", ""])
def test_an_encoder_without_arch_or_tower_is_refused(name):
    with pytest.raises(UnknownName, match="expected ARCH/image or ARCH/text"):
        EncoderSpec.parse(name)


def test_only_seeded_weights_have_a_seed():
    assert EncoderSpec.parse("a/image", weights="laion2b_s34b_b79k").seed is None


@pytest.mark.parametrize("weights", ["seeded:", "seeded:x", "seeded:-1"])
def test_a_seed_that_is_no_whole_number_is_refused(weights):
    with pytest.raises(UsageError, match="seeded:N"):
        EncoderSpec.parse("a/image", weights=weights)


@pytest.mark.parametrize(("text", "target"), [("SM89", "SM89"), ("sm120", "SM120"), (" Sm90 ", "SM90")])
def test_a_target_is_known_in_any_case(text, target):
    assert normalized_target(text) == target


@pytest.mark.parametrize("text", ["89", "ada", "SM", "SM8", "SM1200"])
def test_what_is_no_compute_capability_is_refused(text):
    with pytest.raises(UnknownName, match="SM89"):
        normalized_target(text)


@given(st.lists(st.integers(1, 4096), min_size=3, max_size=3).map(sorted))
def test_a_batch_profile_reads_back_as_it_is_written(sizes):
    profile = BatchProfile(minimum=sizes[0], optimum=sizes[1], maximum=sizes[2])

    assert BatchProfile.parse(str(profile)) == profile
    assert sizes[0] in profile
    assert sizes[2] + 1 not in profile


@pytest.mark.parametrize("text", ["0/1/2", "2/1/4", "1/4/2"])
def test_a_batch_profile_that_does_not_ascend_from_one_is_refused(text):
    with pytest.raises(UsageError, match="ascend"):
        BatchProfile.parse(text)


@pytest.mark.parametrize("text", ["1/8", "1/8/64/128", "a/b/c", "1/8/6.4", ""])
def test_what_is_no_batch_profile_is_refused(text):
    with pytest.raises(UsageError, match="MIN/OPT/MAX"):
        BatchProfile.parse(text)


def test_compact_is_attention_where_there_is_no_token_embedding():
    on_image, on_text = ({recipe: recipe.on(tower) for recipe in Recipe} for tower in (Tower.IMAGE, Tower.TEXT))

    assert on_text == {recipe: recipe for recipe in Recipe}
    assert on_image == {**on_text, Recipe.COMPACT: Recipe.ATTENTION}


def test_an_engine_is_named_by_what_sets_it_apart():
    engine = EngineSpec(encoder=EncoderSpec.parse("a-b/image"), recipe=Recipe.LINEAR, backend="tensorrt_rtx", target="SM89")

    assert engine.id == "a-b/image-linear-tensorrt_rtx-SM89"
    assert engine.stem == "a-b-image-linear-SM89"
    assert engine.prepared.id == "a-b/image-linear"
