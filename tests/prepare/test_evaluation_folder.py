"""Image folders as evaluation data: what they are taken for, and what is refused."""

import os

import numpy as np
import pytest

from harness.errors import UnusableInputs
from harness.prepare.evaluation import read_evaluation
from tests.helpers.pictures import class_folders, draw


@pytest.fixture
def animals(tmp_path):
    return class_folders(tmp_path / "animals", {"red_fox": ["1.png", "2.png"], "cat": ["1.jpg"]})


def refused(path, match):
    with pytest.raises(UnusableInputs, match=match):
        read_evaluation(path)


def test_folders_are_classes_in_the_order_of_their_names(animals):
    data = read_evaluation(animals)

    assert data.captions == ("a photo of a cat", "a photo of a red fox")
    assert data.picture_ids == ("cat/1.jpg", "red_fox/1.png", "red_fox/2.png")
    assert np.array_equal(data.pairing.pairs, [[0, 0], [1, 1], [2, 1]])
    assert (data.pairing.source, data.pairing.pictures, data.pairing.captions) == ("animals", 3, 2)


def test_a_relative_path_has_the_name_of_its_folder(animals, monkeypatch):
    monkeypatch.chdir(animals)

    assert read_evaluation(animals.parent / "animals" / ".").pairing.source == "animals"


def test_hidden_files_and_what_file_managers_leave_are_passed_over(animals):
    for name in (".DS_Store", "cat/._1.jpg", "cat/Thumbs.db", "README.md"):
        (animals / name).write_text("not for us")

    assert len(read_evaluation(animals).picture_ids) == 3


def test_a_path_that_is_not_there_is_refused(tmp_path):
    refused(tmp_path / "gone", r"gone does not exist; expected a folder whose folders are classes, or a \.csv")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "pairs.tsv").write_text("image\tcaption\n")

    refused(tmp_path / "pairs.tsv", "pairs.tsv is neither")


def test_an_empty_folder_is_refused(tmp_path):
    refused(tmp_path, "holds no folders; expected one folder a class")


def test_pictures_without_class_folders_are_refused(tmp_path):
    draw(tmp_path / "1.png")

    refused(tmp_path, "holds 1 picture and no folders; expected one folder a class")


def test_pictures_beside_class_folders_are_refused(animals):
    draw(animals / "stray.png")

    refused(animals, r"1 picture beside its folders, first 'stray\.png'")


def test_a_single_class_is_refused(tmp_path):
    refused(class_folders(tmp_path / "one", {"cat": ["1.png", "2.png"]}), "hold 1 caption, 'a photo of a cat'; expected at least two")


def test_a_class_without_pictures_is_refused(animals):
    (animals / "dog").mkdir()

    refused(animals, "dog holds no pictures; expected at least one")


def test_a_folder_of_splits_is_not_taken_for_classes(tmp_path):
    class_folders(tmp_path, {"train/cat": ["1.png"], "val/cat": ["1.png"]})

    refused(tmp_path, r"train holds 1 folder, first 'cat'; .* if its folders are the classes, name .*train")


def test_a_file_in_a_class_that_is_no_picture_is_refused(animals):
    (animals / "cat" / "2.heic").write_text("not a format that is read")

    refused(animals, r"1 file of another kind, first '2\.heic'; expected only \.bmp")


@pytest.mark.parametrize("other", ["red fox", "Red_Fox", "_red__fox"])
def test_two_folders_of_one_class_are_refused(animals, other):
    class_folders(animals, {other: ["1.png"]})

    refused(animals, "which are one class '[Rr]ed [Ff]ox'; join them")


def test_a_folder_that_names_no_class_is_refused(animals):
    class_folders(animals, {"__": ["1.png"]})

    refused(animals, "'__', which names no class")


def test_a_name_that_is_not_utf8_is_refused(animals):
    draw(animals / "cat" / "2.png").rename(animals / "cat" / os.fsdecode(b"\xff.png"))

    refused(animals, r"'\\udcff\.png', a name that is not UTF-8")


def test_a_link_within_the_folder_is_followed(animals):
    (animals / "cat" / "2.png").symlink_to(animals / "red_fox" / "2.png")

    assert "cat/2.png" in read_evaluation(animals).picture_ids


def test_a_link_that_leaves_the_folder_is_refused(animals, tmp_path):
    (animals / "cat" / "2.png").symlink_to(draw(tmp_path / "elsewhere.png"))

    refused(animals, r"first 'cat/2\.png', which is a link that leaves")


def test_a_class_that_is_a_link_out_of_the_folder_is_refused(animals, tmp_path):
    (animals / "dog").symlink_to(class_folders(tmp_path / "others", {"dog": ["1.png"]}) / "dog")

    refused(animals, "dog is a link that leaves")


def test_a_link_to_the_whole_folder_is_followed(animals, tmp_path):
    (tmp_path / "link").symlink_to(animals)

    assert read_evaluation(tmp_path / "link").pairing.source == "animals"


def test_the_source_depends_on_names_captions_and_every_byte(animals, tmp_path):
    first = read_evaluation(animals).source()
    assert read_evaluation(animals).source() == first

    changed = [first]
    for change in (
        lambda: draw(animals / "cat" / "1.jpg", "blue"),
        lambda: (animals / "cat" / "1.jpg").rename(animals / "cat" / "2.jpg"),
        lambda: (animals / "cat").rename(animals / "lynx"),
        lambda: (animals / "red_fox" / "1.png").unlink(),
    ):
        change()
        changed.append(read_evaluation(animals).source())
    assert len({source["content"] for source in changed}) == 5


def test_a_moved_folder_has_the_same_source(animals, tmp_path):
    before = read_evaluation(animals).source()

    assert read_evaluation(animals.rename(tmp_path / "moved")).source() == before
