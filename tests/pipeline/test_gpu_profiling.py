"""The stage of a report that says where the time goes: both engines in turns, kept for `explain`, and told in the line."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.errors import WorkerDied
from harness.pipeline import gpu_profiling
from harness.pipeline.gpu_profiling import with_gain
from harness.records.gpu_report import LINE_SCHEMA, ReportLine, Stage
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, Recipe
from harness.report.gpu_gain import gains
from harness.store.codec import from_plain, read_json, to_json
from harness.store.gpu_report import ReportFolder
from harness.store.profiles import read_profile
from tests.helpers.gates import REPOSITORY
from tests.helpers.left_engines import fake_engine

PROFILES = REPOSITORY / "docs/data/h200-trt-10.6/explain"
FP16, LINEAR = (
    EngineSpec(
        encoder=EncoderSpec.parse("ViT-L-14/image"),
        recipe=recipe,
        backend="onnxruntime",
        batch=BatchProfile(minimum=128, optimum=128, maximum=128),
    )
    for recipe in (Recipe.FP16, Recipe.LINEAR)
)
LINE = ReportLine(encoder="ViT-L-14/image", weights="seeded:0", recipe=Recipe.LINEAR, batch=128, is_refilled=False)
PIPELINE = SimpleNamespace(maker=SimpleNamespace(engine=lambda spec: replace(fake_engine(), spec=spec)), graph=lambda encoder, recipe: None)


@pytest.fixture
def profiled(monkeypatch):
    """What was asked to be profiled; real profiles come of it."""
    asked = []

    def profile_engines(subjects, how):
        asked.append([subject.engine.spec for subject in subjects])
        return tuple(read_profile(PROFILES / f"ViT-L-14-image-linear-{side}.profile.json.gz") for side in "ab"[: len(subjects)])

    monkeypatch.setattr(gpu_profiling, "profile_engines", profile_engines)
    return asked


@pytest.fixture
def folder(tmp_path):
    return ReportFolder(tmp_path / "report")


def test_both_engines_are_profiled_together_and_kept(profiled, folder):
    line = with_gain(LINE, LINEAR, FP16, PIPELINE, folder)
    assert profiled == [[FP16, LINEAR]]
    assert Stage.PROFILE in line.done
    assert line.gain.b.engine == "ViT-L-14/image-linear-tensorrt"
    kept = [folder.path / f"profiles/ViT-L-14-image-linear-b128-{side}.profile.json.gz" for side in "ab"]
    assert [read_profile(path).recipe for path in kept] == ["fp16", "linear"]


def test_a_line_with_it_reads_back_equal(profiled, folder):
    line = with_gain(LINE, LINEAR, FP16, PIPELINE, folder)
    plain = read_json(to_json(line), origin="a test")
    assert plain["schema"] == LINE_SCHEMA
    assert from_plain(ReportLine, plain, origin="a test") == line


def test_the_report_has_both_tables_of_each_engine(profiled, folder):
    line = with_gain(LINE, LINEAR, FP16, PIPELINE, folder)
    text = "\n".join(gains([LINE, line]))
    assert text.count("### ViT-L-14/image `linear`, batch 128") == 1
    assert "| FP16 GEMM | 31.616 | 0.460 | -31.156 |" in text
    assert "| all layers | 43.881 | 34.431 | -9.450 |" in text
    assert "mlp/c\\_fc/MatMul, c\\_fc/Add, gelu/Gelu (x24) | 12.356 | 10.128 |" in text
    assert list(gains([LINE])) == []


def test_without_a_twin_there_is_nothing_to_do(profiled, folder):
    line = with_gain(LINE, LINEAR, None, PIPELINE, folder)
    assert (line.gain, line.events, line.done, profiled) == (None, (), (Stage.PROFILE,), [])


def test_a_backend_without_layer_times_has_nothing_to_do(profiled, folder):
    fakes = [replace(spec, backend="fake") for spec in (LINEAR, FP16)]
    assert with_gain(LINE, *fakes, PIPELINE, folder).done == (Stage.PROFILE,)
    assert profiled == []


def test_what_breaks_is_an_event_of_the_line(folder, monkeypatch):
    def dies(subjects, how):
        raise WorkerDied("it died")

    monkeypatch.setattr(gpu_profiling, "profile_engines", dies)
    line = with_gain(LINE, LINEAR, FP16, PIPELINE, folder)
    (event,) = line.events
    assert (event.stage, event.code, line.gain) == (Stage.PROFILE, "worker_died", None)


def test_an_engine_of_fp16_is_profiled_beside_the_others_alone():
    assert Stage.PROFILE in LINE.stages
    assert Stage.PROFILE not in replace(LINE, recipe=Recipe.FP16).stages
