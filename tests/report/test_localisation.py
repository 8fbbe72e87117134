"""What people see of a localisation: a table, and a picture that any browser shows."""

import xml.etree.ElementTree as ElementTree

import pytest

from harness.records.localisation import LeftOut, Localisation, Stage
from harness.report.localisation import localisation_text
from harness.report.localisation_plot import localisation_svg


def stage(name, block, own_db, *, stands_out=False):
    return Stage(name=name, block=block, curve_db=own_db, own_db=own_db, expected_db=25.0, quantizers=10, stands_out=stands_out)


@pytest.fixture
def found():
    return Localisation(
        encoder="a/image",
        recipe="linear",
        engine="a/image-linear-b<c>",
        onnx_sha256="0" * 64,
        rows=16,
        stages=(stage("before the blocks", None, 69.0), stage("block 0", 0, None, stands_out=True), stage("block 1", 1, -3.25)),
        suspect="block 0",
        left_out=tuple(
            LeftOut(node=f"n{one}", tensor="t", feeds=f"block 0: product {one}", own_db=20.0 - one, recovered_db=None, recovers=one == 0)
            for one in range(7)
        ),
        all_left_out_db=30.0,
        graph_db=None,
        engine_db=None,
        sentence="first suspect: block 0 & more",
    )


def test_the_table_has_a_line_a_stage_and_the_quantizers_that_matter(found):
    lines = localisation_text(found).splitlines()

    assert lines[0] == "a/image-linear-b<c>, 16 inputs: first suspect: block 0 & more."
    assert [line.split("  ")[0] for line in lines if line.startswith(("before", "block 0  ", "block 1  "))] == [
        "before the blocks",
        "block 0",
        "block 1",
    ]
    assert next(line for line in lines if line.startswith("block 0  ")).endswith("stands out")
    assert sum("product" in line for line in lines) == 5
    assert lines[-1] == "2 more in the record"


def test_the_picture_is_well_formed_and_shows_every_stage(found):
    root = ElementTree.fromstring(localisation_svg(found))

    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"not finite", "-3.2", "0", "1", "before", "the blocks"} <= set(texts)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 1
    assert root[0].text == "a/image-linear-b<c>: first suspect: block 0 & more"


def test_every_mark_lies_inside_the_picture(found):
    root = ElementTree.fromstring(localisation_svg(found))

    width, height = (float(root.get(side)) for side in ("width", "height"))
    for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 <= float(circle.get("cx")) <= width
        assert 0 <= float(circle.get("cy")) <= height


def test_only_the_suspect_is_red(found):
    circles = list(ElementTree.fromstring(localisation_svg(found)).iter("{http://www.w3.org/2000/svg}circle"))

    red = [circle for circle in circles if circle.get("fill") == "#c53030" and len(circle)]
    assert [circle[0].text for circle in red] == ["block 0: not finite"]
