"""What a builder is asked is checked where it is said, and changes the keys of what it changes."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.pipeline.names import backend_of, require_takes_options, taken_options
from harness.records.spec import BatchProfile, BuildOptions


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"workspace_mib": 0}, "0 MiB"), ({"optimization_level": 6}, "level 6"), ({"optimization_level": -1}, "level -1")],
)
def test_what_no_builder_has_is_refused(asked: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        BuildOptions(**asked)


def test_what_changes_an_engine_is_in_its_words() -> None:
    assert BuildOptions().in_words == ""
    assert BuildOptions(workspace_mib=512, optimization_level=0).in_words == "optimization_level=0,workspace_mib=512"
    assert BuildOptions(version_compatible=True).in_words == "version_compatible=True"


def test_a_timing_cache_is_part_of_a_cached_engine_and_of_no_baseline() -> None:
    timed = BuildOptions(timing_cache="/tmp/times")
    assert timed.in_words == BuildOptions().in_words
    assert timed.made_from != BuildOptions().made_from
    assert timed.made_from == BuildOptions(timing_cache="/elsewhere").made_from


def test_options_are_named_as_the_command_line_spells_them() -> None:
    assert BuildOptions().names == ()
    assert BuildOptions(optimization_level=0, version_compatible=True).names == ("--optimization-level", "--version-compatible")


def test_options_can_be_typed_again() -> None:
    asked = BuildOptions(workspace_mib=64, timing_cache="/tmp/times", version_compatible=True)
    assert asked.arguments == ("--workspace-mib", "64", "--timing-cache", "/tmp/times", "--version-compatible")


def test_options_that_no_chosen_backend_takes_are_refused() -> None:
    asked = BuildOptions(workspace_mib=1)
    with pytest.raises(UsageError, match="--workspace-mib has no use for onnxruntime; it is for backend tensorrt or tensorrt_rtx"):
        require_takes_options(["onnxruntime"], asked)
    with pytest.raises(UsageError, match="--timing-cache has no use for tensorrt_rtx; it is for backend tensorrt; leave it out"):
        require_takes_options(["tensorrt_rtx"], BuildOptions(timing_cache="times"))
    require_takes_options(["onnxruntime", "tensorrt"], asked)
    require_takes_options(["onnxruntime"], BuildOptions())


def test_a_backend_is_asked_what_it_has_a_use_for() -> None:
    asked = BuildOptions(workspace_mib=1, timing_cache="times")
    assert taken_options(backend_of("tensorrt"), asked) == asked
    assert taken_options(backend_of("tensorrt_rtx"), asked) == BuildOptions(workspace_mib=1)
    assert taken_options(backend_of("onnxruntime"), asked) == BuildOptions()


def test_the_batch_that_stands_in_is_the_optimum() -> None:
    assert str(BatchProfile(minimum=1, optimum=8, maximum=64).fixed) == "8/8/8"
