"""gate.toml, read strictly."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from datetime import date
from pathlib import Path

import pytest

from harness.errors import BadGateFile
from harness.records.gate_lines import Bound, Margin, Waiver
from harness.records.policy import CheckLimits, Defaults, EvaluationRows, GatePolicy, NodeKind, RecipePolicy
from harness.records.spec import EncoderSpec, EngineSpec, Recipe
from harness.records.verdict import Direction, Severity
from harness.store.gatefile import default_gate_file, read_gate_file

DEFAULTS = """
[defaults]
encoders = ["ViT-B-32/image", "ViT-B-32/text"]
recipes = ["fp16", "linear"]
backends = ["tensorrt_rtx"]
targets = ["sm89"]
"""
EVALUATION = """
[evaluation]
rows = 64
reason = "64 pictures take a second"
"""
POLICY = """
[policy.linear]
severity = "gate"
block_gemms_fp8 = true
fused_attention = false
unfused_qdq = 2
reason = "it promises every block GEMM"
"""
BOUND = """
[[bound]]
metric = "cosine_p01"
floor = 0.98
reason = "seen 0.991"
"""
MARGIN = """
[[margin]]
metric = "plan_bytes"
relative = 0.001
reason = "three builds agree"
"""
WAIVER = """
[[waiver]]
metric = "latency_ratio"
ceiling = 1.05
encoders = ["ViT-B-32/*"]
reason = "a kernel of the next release"
owner = "Ada"
expires = 2027-01-31
"""
SCHEMA = 'schema = "enginegate/gate/1"\n'
WHOLE = SCHEMA + DEFAULTS + EVALUATION + POLICY + BOUND + MARGIN
BASE = GatePolicy(
    defaults=Defaults(encoders=("RN50/image",), recipes=("fp16",), backends=("fake",), targets=()),
    bounds=(Bound(metric="weights_ratio", limit=0.6, direction=Direction.CEILING, reason="seen 0.5"),),
    policies={
        name: RecipePolicy(severity=Severity.REPORT, block_gemms_fp8=False, fused_attention=False, unfused_qdq=9, reason="base")
        for name in ("linear", "modelopt")
    },
    margins=(Margin(metric="centred_snr_db", absolute=3.0, reason="base"),),
    evaluation_rows=EvaluationRows(seeded=16, trained=16),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gate.toml"


@pytest.mark.parametrize(("line", "promised"), [("", False), ("attention_fp8 = true\n", True), ("attention_fp8 = false\n", False)])
def test_a_file_from_before_fp8_attention_promises_none(path: Path, line: str, promised: bool):
    path.write_text(WHOLE.replace("fused_attention = false\n", f"fused_attention = false\n{line}"))

    assert read_gate_file(path).policies["linear"].attention_fp8 is promised


def test_a_whole_file_is_read(path: Path):
    path.write_text(WHOLE)

    policy = read_gate_file(path)

    assert policy.defaults == Defaults(
        encoders=("ViT-B-32/image", "ViT-B-32/text"), recipes=("fp16", "linear"), backends=("tensorrt_rtx",), targets=("SM89",)
    )
    assert policy.bounds == (Bound(metric="cosine_p01", limit=0.98, direction=Direction.FLOOR, reason="seen 0.991"),)
    assert policy.margins == (Margin(metric="plan_bytes", relative=0.001, reason="three builds agree"),)
    assert policy.policies["linear"].block_gemms_fp8 is True
    assert policy.policies["linear"].unfused_qdq == 2
    assert policy.evaluation_rows.seeded == 64


def test_a_bound_may_be_narrowed_to_some_engines(path: Path):
    path.write_text(WHOLE.replace("floor = 0.98", 'floor = 12\nencoders = ["*/text"]\nrecipes = ["lin*"]\nbackends = ["fake"]'))

    assert read_gate_file(path).bounds == (
        Bound(
            metric="cosine_p01",
            limit=12.0,
            direction=Direction.FLOOR,
            encoders=("*/text",),
            recipes=("lin*",),
            backends=("fake",),
            reason="seen 0.991",
        ),
    )


def test_a_file_that_says_nothing_leaves_the_base_as_it_is(path: Path):
    path.write_text(SCHEMA)

    assert read_gate_file(path, BASE) == BASE


def test_a_file_refines_the_base(path: Path):
    path.write_text(SCHEMA + '[defaults]\nrecipes = ["linear"]\n' + EVALUATION + POLICY + BOUND + MARGIN)

    policy = read_gate_file(path, BASE)

    assert policy.defaults == Defaults(encoders=("RN50/image",), recipes=("linear",), backends=("fake",), targets=())
    assert [bound.metric for bound in policy.bounds] == ["weights_ratio", "cosine_p01"]
    assert [margin.metric for margin in policy.margins] == ["centred_snr_db", "plan_bytes"]
    assert policy.policies["linear"].reason == "it promises every block GEMM"
    assert policy.policies["modelopt"].reason == "base"
    assert policy.evaluation_rows.seeded == 64


def test_a_file_with_the_line_ends_of_windows_is_read(path: Path):
    path.write_bytes(WHOLE.replace("\n", "\r\n").encode())

    assert read_gate_file(path).evaluation_rows.seeded == 64


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gate/1", "gate/2", r"gate\.toml: schema is 'enginegate/gate/2'; expected 'enginegate/gate/1'; upgrade"),
        (SCHEMA, "", r"gate\.toml: has no schema; expected a text in quotes; add schema = "),
        (SCHEMA, SCHEMA + "bounds = 1\n", r"has the unknown key 'bounds'; .*did you mean 'bound'\?"),
        (SCHEMA, SCHEMA + 'zzz = ""\n', r"has the unknown key 'zzz'; expected one of schema, defaults, [^;]*$"),
        ("recipes =", "recepies =", r"gate\.toml: \[defaults\]: has the unknown key 'recepies'; .* did you mean 'recipes'"),
        ("encoders =", "# ", r"\[defaults\]: has no encoders; expected a list of texts"),
        ('["tensorrt_rtx"]', "[]", r"\[defaults\]: backends is empty"),
        ('["tensorrt_rtx"]', '["a", 3]', r"\[defaults\]: backends holds 3; expected a list of texts"),
        ('["tensorrt_rtx"]', '"tensorrt_rtx"', r"\[defaults\]: backends is 'tensorrt_rtx'; expected a list"),
        ('"fp16", ', '"fp61", ', r"\[defaults\]: recipes names 'fp61'; expected one of fp16, .* did you mean 'fp16'"),
        ("/image", "/picture", r"\[defaults\]: encoders: encoder 'ViT-B-32/picture' names no tower"),
        ("sm89", "ada", r"\[defaults\]: targets: target 'ada' is no compute capability"),
        ("rows = 64", "rows = 0", r"\[evaluation\]: rows is 0; expected a whole number of at least 1"),
        ("rows = 64", "rows = 6.4", r"\[evaluation\]: rows is 6\.4; expected a whole number"),
        ("rows = 64", "rows = true", r"\[evaluation\]: rows is True; expected a whole number"),
        ("rows = 64", "lines = 64", r"\[evaluation\]: has the unknown key 'lines'"),
        ('"64 pictures take a second"', '" "', r"\[evaluation\]: reason is empty"),
        (EVALUATION, "", r"\[evaluation\]: has no rows"),
        ("[policy.linear]", "[policy.liner]", r"\[policy\]: has the unknown key 'liner'; .* did you mean 'linear'"),
        (POLICY, "[policy]\nlinear = 3\n", r"\[policy\]: linear is 3; expected a table"),
        ('"gate"', '"gates"', r"\[policy\.linear\]: severity names 'gates'; expected one of gate, report; did you mean 'gate'"),
        ("gemms_fp8", "gems_fp8", r"\[policy\.linear\]: has the unknown key 'block_gems_fp8'; .* did you mean 'block_gemms_fp8'"),
        ("block_gemms_fp8 = true", "block_gemms_fp8 = 1", r"\[policy\.linear\]: block_gemms_fp8 is 1; expected true or false"),
        ("unfused_qdq = 2", "unfused_qdq = -1", r"\[policy\.linear\]: unfused_qdq is -1; expected a whole number of at least 0"),
        ('reason = "it promises every block GEMM"', "", r"\[policy\.linear\]: has no reason"),
        ("floor = 0.98", "floor = nan", r"gate\.toml:20: bound 1 \(cosine_p01\): floor is nan; expected a finite number"),
        ("floor = 0.98", "floor = -inf", r"bound 1 \(cosine_p01\): floor is -inf"),
        ("floor = 0.98", "floor = true", r"bound 1 \(cosine_p01\): floor is True; expected a number"),
        ("floor = 0.98", 'floor = "high"', r"bound 1 \(cosine_p01\): floor is 'high'; expected a number"),
        ("floor = 0.98", "flor = 0.98", r"bound 1 \(cosine_p01\): has the unknown key 'flor'; .* did you mean 'floor'"),
        ("floor = 0.98", "floor = 1\nceiling = 2", r"bound 1 \(cosine_p01\): has floor and ceiling; expected exactly one"),
        ("floor = 0.98", "", r"bound 1 \(cosine_p01\): has no number; expected exactly one of floor, ceiling, equal"),
        ("floor = 0.98", "floor = 1\nencoders = []", r"bound 1 \(cosine_p01\): encoders is empty, so that no engine is meant"),
        (
            "relative = 0.001",
            "relative = -0.1",
            r"gate\.toml:25: margin 1 \(plan_bytes\): the margin of plan_bytes is -0\.1; expected at least 0",
        ),
        ("relative = 0.001", "relative = nan", r"margin 1 \(plan_bytes\): relative is nan; expected a finite number"),
        ("relative = 0.001", "relative = 1\nabsolute = 1", r"margin 1 \(plan_bytes\): has relative and absolute; expected exactly one"),
        ("relative = 0.001", "floor = 0.001", r"margin 1 \(plan_bytes\): has the unknown key 'floor'"),
        ('reason = "three builds agree"', "", r"margin 1 \(plan_bytes\): has no reason"),
        ("floor = 0.98", 'floor = 1\nrecipes = ["linaer"]', r"recipes holds 'linaer', which matches none of .* did you mean 'linear'"),
        ('reason = "seen 0.991"', "", r"bound 1 \(cosine_p01\): has no reason"),
        ('"seen 0.991"', '""', r"bound 1 \(cosine_p01\): reason is empty"),
        ('metric = "cosine_p01"', "", r"bound 1 \(no metric\): has no metric"),
        ('metric = "cosine_p01"', 'metric = "cosine_p1"', r"metric 'cosine_p1' is unknown here; .* did you mean 'cosine_p01'"),
        (DEFAULTS, DEFAULTS + "x = ", r"gate\.toml:8: is no TOML"),
        ('"seen 0.991"', '"""seen', r"gate\.toml:2\d: is no TOML"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(path: Path, old: str, new: str, message: str):
    assert old in WHOLE
    path.write_text(WHOLE.replace(old, new, 1))

    with pytest.raises(BadGateFile, match=message):
        read_gate_file(path)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ('bound = [{metric = "finite", reason = "x"}]', r"gate\.toml: bound 1 \(finite\): has no number"),
        ("bound = [3]", r"gate\.toml: bound 1 is 3; expected a \[\[bound\]\] table"),
        ("bound = 3", r"gate\.toml: bound is 3; expected \[\[bound\]\] tables"),
    ],
)
def test_bounds_written_otherwise_are_numbered(path: Path, bounds: str, message: str):
    path.write_text(f"{SCHEMA}{bounds}\n{DEFAULTS}")

    with pytest.raises(BadGateFile, match=message):
        read_gate_file(path)


def test_a_later_bound_is_named_by_its_own_line(path: Path):
    path.write_text(SCHEMA + BOUND + BOUND.replace("0.98", "nan"))

    with pytest.raises(BadGateFile, match=r"gate\.toml:8: bound 2"):
        read_gate_file(path, BASE)


def test_a_file_that_is_absent_is_named(path: Path):
    with pytest.raises(BadGateFile, match=r"gate\.toml: cannot be read \(No such file or directory\).*--gate-file"):
        read_gate_file(path)


def test_a_file_that_is_no_utf_8_is_refused(path: Path):
    path.write_bytes(SCHEMA.encode() + b"# \xff")

    with pytest.raises(BadGateFile, match="is no UTF-8"):
        read_gate_file(path)


def test_the_file_of_the_folder_comes_before_the_packaged_one(path: Path, tmp_path: Path):
    assert default_gate_file(tmp_path).name == "gate.toml"
    assert default_gate_file(tmp_path) != path

    path.touch()

    assert default_gate_file(tmp_path) == path


def test_the_gate_file_that_ships_is_read(tmp_path: Path):
    assert read_gate_file(default_gate_file(tmp_path)).bounds


def test_a_policy_says_what_stays_in_fp16_and_why(tmp_path: Path):
    path = tmp_path / "gate.toml"
    path.write_text(WHOLE + '[policy.linear.kept_fp16]\nattention = "its kernel is fused"\n')

    promise = read_gate_file(path).policy("linear")

    assert promise.why_kept(NodeKind.ATTENTION) == "its kernel is fused"
    assert promise.why_kept(NodeKind.CONVOLUTION) is None
    assert not promise.attention_fp8
    assert not promise.embedding_fp8


def test_a_policy_can_promise_tables_in_fp8(tmp_path: Path):
    path = tmp_path / "gate.toml"
    path.write_text(WHOLE.replace("[policy.linear]", "[policy.linear]\nembedding_fp8 = true"))

    assert read_gate_file(path).policy("linear").embedding_fp8


@pytest.mark.parametrize(
    ("line", "message"),
    [('atention = "x"', "unknown key 'atention'.* did you mean 'attention'"), ('attention = ""', "attention is empty")],
)
def test_what_cannot_be_kept_is_refused(tmp_path: Path, line: str, message: str):
    path = tmp_path / "gate.toml"
    path.write_text(f"{WHOLE}[policy.linear.kept_fp16]\n{line}\n")

    with pytest.raises(BadGateFile, match=message):
        read_gate_file(path)


CHECKS = """
[checks]
coverage = { limit = 0.9, reason = "a compiler of ours folds more" }

[kept_fp32]
Softmax = "our plugin computes it so"
"""


def test_limits_of_checks_are_read_over_the_base_and_reach_every_recipe(tmp_path: Path):
    (tmp_path / "gate.toml").write_text(WHOLE + CHECKS)

    policy = read_gate_file(tmp_path / "gate.toml", BASE)

    for recipe in ("linear", "modelopt"):
        assert policy.policy(recipe).limits == CheckLimits(coverage=0.9)
        assert policy.policy(recipe).why_fp32("Softmax") == "our plugin computes it so"
        assert policy.policy(recipe).why_fp32("LayerNormalization") is None


def test_the_packaged_file_states_every_limit_as_the_code_has_it():
    path = Path(__file__).parents[2] / "gate.toml"

    assert read_gate_file(path).checks == CheckLimits()
    assert set(tomllib.loads(path.read_text())["checks"]) == {field.name for field in fields(CheckLimits)}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('covrage = { limit = 0.9, reason = "x" }', "unknown key 'covrage'.*did you mean 'coverage'"),
        ("coverage = { limit = 0.9 }", r"\[checks.coverage\]: has no reason"),
        ('coverage = { limit = "0.9", reason = "x" }', "limit is '0.9'; expected a number"),
        ('coverage = { limit = -1, reason = "x" }', "limit is -1; expected at least 0"),
        ('coverage = { limit = 0.9, because = "x", reason = "x" }', "unknown key 'because'"),
        ("coverage = 0.9", "coverage is 0.9; expected a table"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused(line: str, words: str, tmp_path: Path):
    (tmp_path / "gate.toml").write_text(f"{WHOLE}\n[checks]\n{line}\n")

    with pytest.raises(BadGateFile, match=words):
        read_gate_file(tmp_path / "gate.toml")


def test_a_recipe_cannot_state_what_holds_for_all(tmp_path: Path):
    (tmp_path / "gate.toml").write_text(WHOLE.replace("unfused_qdq = 2", "unfused_qdq = 2\nlimits = 3"))

    with pytest.raises(BadGateFile, match="unknown key 'limits'"):
        read_gate_file(tmp_path / "gate.toml")


def test_a_policy_says_before_what_quantization_may_stand_alone(tmp_path: Path):
    path = tmp_path / "gate.toml"
    path.write_text(WHOLE + '[policy.linear.quantized_alone]\nconvolution = "it writes half precision"\n')

    promise = read_gate_file(path).policy("linear")

    assert promise.why_alone(NodeKind.CONVOLUTION) == "it writes half precision"
    assert promise.why_alone(None) is None


def test_only_convolutions_may_have_their_quantization_stand_alone(tmp_path: Path):
    path = tmp_path / "gate.toml"
    path.write_text(WHOLE + '[policy.linear.quantized_alone]\nprojection = "it is slow"\n')

    with pytest.raises(BadGateFile, match="unknown key 'projection'"):
        read_gate_file(path)


def read(path: Path, text: str) -> GatePolicy:
    path.write_text(text)
    return read_gate_file(path)


def test_a_waiver_says_what_until_when_and_who(path: Path):
    policy = read(path, WHOLE + WAIVER)

    assert policy.waivers == (
        Waiver(
            metric="latency_ratio",
            ceiling=1.05,
            encoders=("ViT-B-32/*",),
            reason="a kernel of the next release",
            owner="Ada",
            expires=date(2027, 1, 31),
        ),
    )


@pytest.mark.parametrize(
    ("line", "instead", "words"),
    [
        ("expires = 2027-01-31", "", "has no expires; expected a day without quotes"),
        ("expires = 2027-01-31", 'expires = "2027-01-31"', "expected a day without quotes"),
        ("expires = 2027-01-31", "expires = 2027-01-31T12:00:00", "expected a day without a time"),
        ('owner = "Ada"', "", "has no owner"),
        ('owner = "Ada"', 'owner = " "', "owner is empty"),
        ("ceiling = 1.05", "", "has no ceiling"),
        ("ceiling = 1.05", "ceiling = nan", "expected a finite number"),
        ("ceiling = 1.05", "floor = 1.05", "unknown key 'floor'"),
        ('"latency_ratio"', '"cosine_min"', "metric 'cosine_min' is unknown here"),
        ('reason = "a kernel of the next release"', "", "has no reason"),
    ],
)
def test_a_waiver_that_cannot_be_meant_is_refused_by_its_line(path: Path, line: str, instead: str, words: str):
    with pytest.raises(BadGateFile, match=re.escape(words)) as refused:
        read(path, WHOLE + WAIVER.replace(line, instead))

    assert "waiver 1" in str(refused.value)


LATENCY = """
[[margin]]
metric = "latency_ratio"
machine_classes = ["cpu-*"]
relative = 0.25
session_spread = 0.05
processes = 5
quartets = 4
reason = "measured"
"""


def test_a_latency_margin_says_where_and_how_it_is_timed(path: Path):
    line = read(path, WHOLE + LATENCY).margins[-1]

    assert (line.size, line.machine_classes, line.session_spread) == (0.25, ("cpu-*",), 0.05)
    assert (line.processes, line.quartets) == (5, 4)


def test_a_margin_of_bytes_may_hold_for_the_same_graph_too(path: Path):
    engine = EngineSpec(encoder=EncoderSpec.parse("ViT-B-32/image"), recipe=Recipe.LINEAR, backend="tensorrt")
    line = '[[margin]]\nmetric = "plan_bytes"\nbackends = ["tensorrt"]\nrelative = 0.002\nsame_graph = true\nreason = "times kernels"\n'

    policy = read(path, WHOLE + line)

    assert policy.same_graph_margin("plan_bytes", engine) == policy.margin("plan_bytes", engine) == 0.002
    assert read(path, WHOLE + line.replace("true", "false")).same_graph_margin("plan_bytes", engine) == 0
    with pytest.raises(BadGateFile, match="has the unknown key"):
        read(path, WHOLE + line.replace("plan_bytes", "weights_ratio"))


def test_latency_may_be_left_out_for_a_reason(path: Path):
    line = read(path, WHOLE + '[[margin]]\nmetric = "latency_ratio"\ngated = false\nreason = "nobody waits for it"\n').margins[-1]

    assert (line.gated, line.reason) == (False, "nobody waits for it")


@pytest.mark.parametrize(
    ("line", "instead", "words"),
    [
        ("relative = 0.25", "", "has no number; expected exactly one of relative, absolute, gated"),
        ("relative = 0.25", "gated = true", "expected relative = ..., or gated = false"),
        ("relative = 0.25", "relative = 0.05", "less than relative"),
        ("processes = 5", "processes = 2", "at least 3"),
        ("processes = 5", "processes = 0", "processes is 0; expected a whole number of at least 1"),
        ("quartets = 4", "quartets = 1.5", "expected a whole number"),
        ('machine_classes = ["cpu-*"]', "machine_classes = []", "machine_classes is empty"),
        ('metric = "latency_ratio"', 'metric = "plan_bytes"', "has the unknown key"),
    ],
)
def test_a_latency_margin_that_cannot_be_meant_is_refused(path: Path, line: str, instead: str, words: str):
    with pytest.raises(BadGateFile, match=re.escape(words)):
        read(path, WHOLE + LATENCY.replace(line, instead))


def test_the_blob_store_is_named_from_the_gate_files_own_folder(tmp_path):
    whole = SCHEMA + DEFAULTS + EVALUATION + POLICY
    assert read(tmp_path / "gate.toml", whole).blobs is None
    assert read(tmp_path / "gate.toml", whole + '[blobs]\nfolder = "engines"\n').blobs == tmp_path / "engines"
    assert read(tmp_path / "gate.toml", whole + f"[blobs]\nfolder = '{tmp_path / 'share'}'\n").blobs == tmp_path / "share"


@pytest.mark.parametrize("line", ['folder = ""', "folder = 3", 'folder = "x"\nbucket = "y"'])
def test_a_blob_store_that_says_nothing_usable_is_refused(tmp_path, line):
    with pytest.raises(BadGateFile, match=r"\[blobs\]"):
        read(tmp_path / "gate.toml", SCHEMA + DEFAULTS + EVALUATION + POLICY + f"[blobs]\n{line}\n")
