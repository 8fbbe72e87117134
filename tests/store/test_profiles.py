"""Profiles in files: what is written reads back equal, and what is none is refused by name."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import UnusableProfile
from harness.records.observations import LayerRow, LayerTable, LayerTensor
from harness.records.profile import Ceilings
from harness.store.codec import to_json
from harness.store.profiles import is_profile, read_profile, write_profile
from tests.helpers.profiles import profile_of

TENSOR = LayerTensor(name="x", shape=(128, 8), datatype="Half")
ROW = LayerRow(name="a", kind="gemm", inputs=(TENSOR,), constants=(TENSOR,), outputs=(TENSOR,), tactic="t", onnx_nodes=("/fc",))
PROFILE = replace(
    profile_of(LayerTable(rows=(ROW,), source="a test"), None),
    flops={"/fc": 7},
    ceilings=Ceilings(copy_gbps=1.5, words={"copy_gbps": "copies"}),
    notes=("a note",),
)


def changed(**times: object) -> bytes:
    """The document with other times."""
    plain = json.loads(to_json(PROFILE))
    return json.dumps({**plain, "times": {**plain["times"], **times}}).encode()


@pytest.mark.parametrize("compressed", [True, False])
def test_a_profile_reads_back_equal(compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / ("a.profile.json.gz" if compressed else "a.profile.json")
    if compressed:
        write_profile(path, PROFILE)
    else:
        path.write_bytes(to_json(PROFILE))
    assert is_profile(path)
    assert read_profile(path) == PROFILE


def test_the_same_profile_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_profile(tmp_path / name, PROFILE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"", "is no JSON"),
        (gzip.compress(to_json(PROFILE))[:-20], "cannot be read"),
        (to_json({"schema": "enginegate/profile/2"}), "newer enginegate"),
        (to_json({"schema": "enginegate/profile/1"}), "engine"),
        (changed(layers=[]), "hold 0 layers with no launches"),
        (changed(layers=[{"name": "a", "ms": [1.0]}, {"name": "b", "ms": [1.0, 2.0]}]), "2 layers with 1 and 2 launches"),
        (changed(layers=[{"name": "a", "ms": [-1.0]}]), "a took no time or less"),
        (changed(launch_ms=[0.0]), "a whole launch took no time"),
        (changed(launch_ms=[]), "beside 0 whole launches"),
        (json.dumps({**json.loads(to_json(PROFILE)), "extra": 1}).encode(), "unknown key"),
    ],
)
def test_what_is_no_profile_is_refused_with_words(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.profile.json.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnusableProfile, match=words):
        read_profile(path)
