"""Batches to try an engine with, built from small structures."""

import numpy as np
import pytest

from harness.measure.crowds import Caption, Crowd, Filled, HotPixel, NewTail, caption_rows, crowd_rows, token_shape, with_new_tail

START, END = 98, 99
CAPTIONS = np.array([[START, 5, 6, END, 0, 0], [START, 7, END, 0, 0, 0], [START, 5, 6, 7, 8, END]], np.int64)
PICTURES = np.arange(3 * 12, dtype=np.float16).reshape(3, 3, 2, 2)


class TestPictures:
    def test_rows_stand_where_the_crowd_says(self):
        batch = crowd_rows(PICTURES, Crowd(0, (2, 0, 0)), None)

        np.testing.assert_array_equal(batch, PICTURES[[2, 0, 0]])
        assert batch.dtype == np.float16

    def test_a_filled_picture_and_a_hot_pixel_take_the_place_of_a_row(self):
        batch = crowd_rows(PICTURES, Crowd(0, (Filled(np.nan), HotPixel(13, 65504.0), 2)), None)

        assert np.isnan(batch[0]).all()
        assert batch[1].flat[1] == np.float16(65504)
        assert (batch[1] != PICTURES[1]).sum() == 1

    def test_the_evaluation_rows_are_left_as_they_are(self):
        before = PICTURES.copy()
        crowd_rows(PICTURES, Crowd(0, (HotPixel(0, 9.0),) * 3), None)

        np.testing.assert_array_equal(PICTURES, before)


class TestCaptions:
    def test_their_layout_is_read_from_tokenized_ones(self):
        shape = token_shape(CAPTIONS)

        assert (shape.start, shape.end, shape.padding, shape.context, shape.longest) == (START, END, 0, 6, 4)
        assert shape.vocabulary.tolist() == [5, 6, 7, 8]

    def test_captions_that_share_no_largest_token_have_no_end(self):
        assert token_shape(np.array([[1, 2, 0], [1, 3, 0]])) is None

    def test_there_is_one_of_each_length_and_the_longest_ends_in_the_last_place(self):
        rows = caption_rows(token_shape(CAPTIONS))

        assert rows.argmax(axis=1).tolist() == [1, 2, 3, 4, 5]
        assert rows[0].tolist() == [START, END, 0, 0, 0, 0]
        assert (rows == END).sum() == 5

    def test_a_new_tail_changes_nothing_up_to_the_end_and_holds_no_second_one(self):
        changed = with_new_tail(CAPTIONS[1], 0, token_shape(CAPTIONS))

        assert changed[:3].tolist() == CAPTIONS[1][:3].tolist()
        assert set(changed[3:].tolist()) <= {5, 6, 7, 8}

    def test_a_crowd_of_captions_is_int64(self):
        batch = crowd_rows(CAPTIONS, Crowd(0, (Caption(0), NewTail(0, 1), Filled(END))), token_shape(CAPTIONS))

        assert batch.dtype == np.int64
        assert batch[1, :4].tolist() == CAPTIONS[0, :4].tolist()
        assert (batch[2] == END).all()


class TestPlaces:
    def test_rows_that_moved_stayed_and_stand_twice_are_told_apart(self):
        crowd = Crowd(0, (Filled(0.0), 1, 3, 3))

        assert (crowd.moved, crowd.stayed, crowd.twins) == ((2,), (1, 3), ((2, 3),))

    def test_where_nothing_is_new_no_row_stayed_among_others(self):
        assert Crowd(0, (0, 1, 2)).stayed == ()

    def test_it_reads_as_people_would_say_it(self):
        assert (
            str(Crowd(3, (1, Filled(np.nan), Caption(4)))) == "evaluation batch 3 as [0: row 1, 1: filled with nan, 2: caption of 4 tokens]"
        )


@pytest.mark.parametrize("value", [65504.0, -65504.0, np.inf, np.nan])
def test_a_picture_that_fp16_cannot_sum_is_a_neighbour_only(value):
    assert not Filled(value).is_ordinary
