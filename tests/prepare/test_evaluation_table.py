"""Image-caption pairs as evaluation data: what they are taken for, and what is refused."""

import numpy as np
import pytest

from harness.errors import UnusableInputs
from harness.prepare.evaluation import read_evaluation
from tests.helpers.pictures import draw, table

PAIRS = [("a.png", "a fox"), ("b.png", "a cat, asleep"), ("a.png", "an animal")]


def refused(path, match):
    with pytest.raises(UnusableInputs, match=match):
        read_evaluation(path)


def test_captions_are_taken_as_they_are_and_a_repeated_image_has_several(tmp_path):
    data = read_evaluation(table(tmp_path, PAIRS))

    assert data.captions == ("a fox", "a cat, asleep", "an animal")
    assert data.picture_ids == ("a.png", "b.png")
    assert np.array_equal(data.pairing.pairs, [[0, 0], [1, 1], [0, 2]])
    assert (data.pairing.source, data.notes) == ("pairs.csv", ())


def test_several_images_may_share_a_caption(tmp_path):
    data = read_evaluation(table(tmp_path, [*PAIRS, ("c.png", "a fox")]))

    assert np.array_equal(data.pairing.pairs[-1], [2, 0])


def test_columns_may_come_in_either_order(tmp_path):
    data = read_evaluation(table(tmp_path, [row[::-1] for row in PAIRS], header=("caption", "image")))

    assert data.picture_ids == ("a.png", "b.png")


def test_a_byte_order_mark_and_empty_lines_are_passed_over(tmp_path):
    file = table(tmp_path, PAIRS, encoding="utf-8-sig")
    file.write_bytes(file.read_bytes().replace(b"\r\n", b"\r\n\r\n"))

    assert len(read_evaluation(file).captions) == 3


def test_paths_are_relative_to_the_file_wherever_the_run_began(tmp_path, monkeypatch):
    draw(tmp_path / "pictures" / "a.png")
    file = table(tmp_path, [("./pictures//a.png", "one"), ("pictures/../pictures/a.png", "two"), ("a.png", "three")])
    monkeypatch.chdir("/")

    assert read_evaluation(file).picture_ids == ("pictures/a.png", "a.png")


def test_a_repeated_row_counts_once_and_is_told(tmp_path):
    data = read_evaluation(table(tmp_path, [*PAIRS, PAIRS[1]]))

    assert len(data.pairing.pairs) == 3
    assert data.notes == ("1 row of pairs.csv with an earlier image and caption, left out, first line 5",)


def test_captions_in_another_case_are_one_caption_and_that_is_told(tmp_path):
    data = read_evaluation(table(tmp_path, [*PAIRS, ("c.png", "A  Fox"), ("d.png", " a fox ")]))

    assert data.captions == ("a fox", "a cat, asleep", "an animal")
    assert data.notes == ("1 row of pairs.csv with an earlier caption in another case, taken for it, first line 5",)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (("a.png", "a fox"), "'a.png,a fox'"),
        (("filepath", "title"), "'filepath,title'"),
        (("image", "caption", "split"), "'image,caption,split'"),
        (("image",), "'image'"),
        (("image;caption",), "'image;caption'"),
        (("Image", "Caption"), "'Image,Caption'"),
    ],
)
def test_a_header_of_anything_else_is_refused(tmp_path, header, found):
    refused(table(tmp_path, PAIRS, header=header), rf"begins with the columns {found}; expected a first line with the two columns")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "pairs.csv").touch()

    refused(tmp_path / "pairs.csv", "begins with nothing")


def test_a_header_without_rows_is_refused(tmp_path):
    refused(table(tmp_path, []), "hold 0 pictures; expected at least two")


def test_one_caption_of_all_pictures_is_refused(tmp_path):
    refused(table(tmp_path, [("a.png", "a fox"), ("b.png", "A fox")]), "hold 1 caption, 'a fox'; expected at least two")


def test_one_picture_of_all_captions_is_refused(tmp_path):
    refused(table(tmp_path, [("a.png", "a fox"), ("a.png", "an animal")]), r"hold 1 picture, 'a\.png'; expected at least two")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_refused(tmp_path, encoding):
    refused(table(tmp_path, [*PAIRS, ("c.png", "café")], encoding=encoding), r"is not UTF-8 \(found the byte 0x..\); .* save it so")


def test_a_quote_that_never_ends_is_refused(tmp_path):
    file = table(tmp_path, PAIRS)
    file.write_bytes(file.read_bytes() + b'c.png,"a fox\n')

    refused(file, "is no CSV .*; expected cells between commas")


@pytest.mark.parametrize("row", [("a.png",), ("a.png", "a fox", "asleep")])
def test_a_row_with_another_number_of_cells_is_refused(tmp_path, row):
    refused(table(tmp_path, [*PAIRS, row]), f"line 5, has {len(row)} cells; expected two")


@pytest.mark.parametrize(("row", "what"), [(("", "a fox"), "image"), (("a.png", " "), "caption")])
def test_an_empty_cell_is_refused(tmp_path, row, what):
    refused(table(tmp_path, [*PAIRS, row]), f"line 5, has no {what}")


def test_captions_without_their_picture_are_refused_and_counted(tmp_path):
    rows = [*PAIRS, ("gone.png", "a bear"), ("lost.png", "a bee"), ("gone.png", "brown")]

    refused(table(tmp_path, rows), r"pairs\.csv: 2 of 4 pictures cannot be used, first 'gone\.png' \(line 5\), which is not there")


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "..", "b/../../outside.png"])
def test_a_path_out_of_the_files_folder_is_refused(tmp_path, name):
    draw(tmp_path / "outside.png")
    (tmp_path / "data").mkdir()

    refused(table(tmp_path / "data", [*PAIRS, (name, "a bear")]), "line 5, names the picture .* which is outside the file's folder")


def test_a_link_out_of_the_files_folder_is_refused(tmp_path):
    file = table(tmp_path / "data", [*PAIRS, ("link.png", "a bear")])
    (tmp_path / "data" / "link.png").symlink_to(draw(tmp_path / "outside.png"))

    refused(file, r"'link\.png' \(line 5\), which is a link that leaves")


def test_a_folder_named_as_a_picture_is_refused(tmp_path):
    (tmp_path / "pictures").mkdir()

    refused(table(tmp_path, [*PAIRS, ("pictures", "a bear")]), r"'pictures' \(line 5\), which is no plain file")
