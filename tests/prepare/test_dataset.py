"""Rows made of any data: captions that do not fit, captions that cannot be told apart, and how large it all will be."""

import numpy as np
import pytest

from harness.errors import UnusableInputs
from harness.prepare import dataset
from harness.prepare.dataset import encoder_inputs, rows_in_words
from harness.prepare.evaluation import read_evaluation
from harness.prepare.inputs import EmojiSet, Split
from harness.records.spec import EncoderSpec
from tests.helpers.pictures import class_folders, table

IMAGE, TEXT = EncoderSpec.parse("small-clip/image"), EncoderSpec.parse("small-clip/text")  # a context of 77 tokens


def captioned(tmp_path, *captions):
    return read_evaluation(table(tmp_path, [(f"{name}.png", caption) for name, caption in zip("abcd", captions, strict=False)]))


def test_a_caption_that_fills_the_context_is_not_cut(tmp_path):
    data = captioned(tmp_path, "fox " * 75, "cat")  # 75 words, and a token before and after them

    assert encoder_inputs(TEXT, data).notes == ()


def test_captions_longer_than_the_context_are_cut_counted_and_named(tmp_path):
    data = captioned(tmp_path, "cat", "fox " * 76, "bear " * 200)

    inputs = encoder_inputs(TEXT, data)

    assert inputs.rows.shape == (3, 77)
    assert inputs.notes == (f"2 of 3 captions did not fit the context of 77 tokens and were cut, first {('fox ' * 20)[:57]!r}...",)


def test_captions_that_are_equal_once_cut_are_refused(tmp_path):
    data = captioned(tmp_path, "fox " * 80 + "asleep", "fox " * 80 + "awake")

    with pytest.raises(UnusableInputs, match=r"captions 'fox .* are the same once cut after 77 tokens, so that no answer"):
        encoder_inputs(TEXT, data)


def test_captions_that_the_tokenizer_cannot_tell_apart_are_refused(tmp_path):
    data = captioned(tmp_path, "cats &amp; dogs", "cats & dogs")

    with pytest.raises(UnusableInputs, match="'cats &amp; dogs' and 'cats & dogs' are the same in this tokenizer"):
        encoder_inputs(TEXT, data)


@pytest.mark.parametrize("filler", [0, 1, 49407])  # open_clip's own; a tokenizer's padding; one that fills with the end itself
def test_what_was_cut_is_seen_whatever_a_tokenizer_fills_up_with(filler):
    start, end = 49406, 49407

    def tokenized(words, context):
        content = range(100, 100 + min(words, context - 2))
        return [start, *content, end, *[filler] * (context - 2 - len(content))]

    lengths = [0, 1, 6, 7, 20]
    rows = np.array([tokenized(words, 8) for words in lengths])
    longer = np.array([tokenized(words, 10) for words in [0, *lengths]])

    assert dataset._rows_cut(rows, longer).tolist() == [False, False, False, True, True]


def test_the_emoji_come_through_the_same_door():
    data = EmojiSet(split=Split.EVALUATION, rows=5)

    images, tokens = encoder_inputs(IMAGE, data), encoder_inputs(TEXT, data)

    assert images.ids == tokens.ids == data.picture_ids
    assert (data.pairing.pictures, data.pairing.captions) == (5, 5)
    assert np.array_equal(data.pairing.pairs[:, 0], data.pairing.pairs[:, 1])


def test_how_much_will_be_read_is_known_without_reading_it(tmp_path):
    root = class_folders(tmp_path / "animals", {"cat": ["1.png"], "fox": ["1.png", "2.png"]})
    data = read_evaluation(root)
    large = EncoderSpec.parse("ViT-L-14-336/image")

    assert rows_in_words(large, data) == "3 pictures of animals, 2 MB"  # 3 x 3 x 336 x 336 halves
    assert rows_in_words(TEXT, data) == "2 captions of animals"


def test_rows_that_no_memory_holds_are_refused_with_their_size(tmp_path, monkeypatch):
    data = captioned(tmp_path, "cat", "fox")

    def too_much(*_):
        raise MemoryError

    monkeypatch.setattr(dataset.np, "empty", too_much)
    with pytest.raises(UnusableInputs, match=r"2 pictures of shape \[3, 32, 32\] need 0\.0 GB in half precision"):
        encoder_inputs(IMAGE, data)
