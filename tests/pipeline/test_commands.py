"""Commands that messages show: copied into the run's folder, they mean what the run meant."""

from __future__ import annotations

import shlex
from dataclasses import replace

from harness.cli import _parser
from harness.pipeline.commands import AS_USUAL, Places, accept_command, bench_command, build_command
from harness.records.spec import BuildOptions
from tests.helpers.left_engines import fake_engine

PLACES = Places(baselines_dir="my baselines", blobs="it's here", gate_file="strict gate.toml")


def parsed(command):
    """What the command makes of it."""
    return _parser().parse_args(shlex.split(command)[1:])


def test_the_command_that_approves_has_the_places_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = parsed(accept_command(tmp_path / "a run" / "pending" / "x.pending.json", PLACES))
    assert str(options.pending) == "a run/pending/x.pending.json"
    assert (str(options.baselines_dir), options.blobs, str(options.gate_file)) == ("my baselines", "it's here", "strict gate.toml")


def test_the_command_that_times_again_has_the_places_of_engines():
    options = parsed(bench_command("sha256:" + "5" * 64, fake_engine(), PLACES.arguments_of_engines))
    assert options.engines == ["sha256:" + "5" * 64, "engines/tiny-image-fp16.onnx"]
    assert (options.blobs, str(options.gate_file)) == ("it's here", "strict gate.toml")


def test_a_run_that_was_told_nothing_has_commands_without_places():
    assert (AS_USUAL.arguments, AS_USUAL.arguments_of_engines) == ((), ())
    assert "--blobs" not in accept_command(fake_engine().path, AS_USUAL)


def test_the_command_that_builds_leaves_a_timing_cache_out():
    engine = replace(fake_engine().spec, options=BuildOptions(timing_cache="/tmp/times", optimization_level=5))
    options = parsed(build_command(engine))
    assert (options.timing_cache, options.optimization_level) == (None, 5)
