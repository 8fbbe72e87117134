"""The commands `build` and `doctor`, from outside."""

import hashlib
import json

import pytest

from harness.backends.registry import get_backend
from harness.cli import main
from harness.contracts import Action
from harness.errors import UsageError
from harness.records.spec import EncoderSpec, EngineSpec, Recipe

_SMALL = EngineSpec(encoder=EncoderSpec.parse("small-clip/image"), recipe=Recipe.FP16, backend="tensorrt_rtx", target="SM89")
_WHY_NO_RTX = get_backend("tensorrt_rtx").why_not(Action.BUILD, _SMALL)
needs_rtx = pytest.mark.skipif(_WHY_NO_RTX is not None, reason=f"tensorrt_rtx: {_WHY_NO_RTX}")


def test_a_built_engine_lies_beside_its_record_and_nothing_else(gate):
    result = gate.command("build", "small-clip/image", "--recipe", "linear", "--backend", "onnxruntime", "--out", "engines")

    assert result.code == 0, result.stderr
    assert result.stdout.strip() == "engines/small-clip-image-linear.onnx"
    assert {path.name for path in (gate.folder / "engines").iterdir()} == {
        "small-clip-image-linear.onnx",
        "small-clip-image-linear.json",
    }
    record = json.loads((gate.folder / "engines/small-clip-image-linear.json").read_text())
    assert record["schema"] == "enginegate/engine/1"
    assert record["sha256"] == hashlib.sha256((gate.folder / "engines/small-clip-image-linear.onnx").read_bytes()).hexdigest()


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What each command would make, of which nothing is made."""
    found = []

    def asks(spec, **_):
        found.append(spec)
        raise UsageError("nothing is made")

    monkeypatch.setattr("harness.pipeline.leaving.build_engine", asks)
    monkeypatch.setattr("harness.pipeline.explaining.explain_engine", asks)
    monkeypatch.setattr("harness.pipeline.preparing.prepare_folder", lambda asked, _: asks(asked.encoders[0]))
    monkeypatch.chdir(tmp_path)
    return found


_COMMANDS = [
    ["build", "{encoder}", "--recipe", "fp16", "--backend", "onnxruntime"],
    ["layers", "{encoder}"],
    ["prepare", "--encoders", "{encoder}", "--out", "prepared"],
]
_GATE_FILE = 'schema = "enginegate/gate/1"\n[defaults]\nweights = ["emoji-clip=seeded:7"]\n'


@pytest.mark.parametrize("command", _COMMANDS, ids=[command[0] for command in _COMMANDS])
@pytest.mark.parametrize(
    ("encoder", "gate_file", "given", "weights"),
    [
        ("emoji-clip/text", None, [], "noto"),
        ("emoji-clip/text", _GATE_FILE, [], "seeded:7"),
        ("emoji-clip/text", _GATE_FILE, ["--weights", "seeded:3"], "seeded:3"),
        ("ViT-B-32/text", _GATE_FILE, [], "seeded:0"),
    ],
    ids=["packaged", "of this folder", "asked for", "of no line"],
)
def test_an_encoder_has_the_weights_that_a_gate_would_give_it(asked, tmp_path, command, encoder, gate_file, given, weights):
    if gate_file:
        (tmp_path / "gate.toml").write_text(gate_file)
    main([word.format(encoder=encoder) for word in command] + given)
    (made,) = asked
    assert getattr(made, "encoder", made).weights == weights


@needs_rtx
def test_a_compiled_engine_carries_its_target_in_its_name(gate):
    result = gate.command(
        "build", "small-clip/image", "--recipe", "fp16", "--backend", "tensorrt_rtx", "--target", "sm89", "--out", "engines", "--json"
    )

    record = json.loads(result.stdout)
    assert (gate.folder / "engines/small-clip-image-fp16-SM89.engine").stat().st_size == record["engine"]["plan_bytes"]
    assert record["engine"]["weights_bytes"] > 0
    assert record["engine"]["weights"] == "seeded:0"


def test_without_a_folder_the_engines_place_in_the_cache_is_printed(gate):
    result = gate.command("build", "small-clip/image", "--recipe", "fp16", "--backend", "onnxruntime")

    assert result.stdout.strip().startswith(str(gate.cache))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ViT-B32/image", "--recipe", "fp16", "--backend", "onnxruntime"], 2, "ViT-B-32"),
        (["small-clip/image", "--recipe", "fp17", "--backend", "onnxruntime"], 2, "fp16"),
        (["small-clip/image", "--recipe", "fp16", "--backend", "onnxruntime", "--weights", "absent.pt"], 2, "does not exist"),
        (["small-clip/image", "--recipe", "fp16", "--backend", "tensorrt_rtx"], 2, "--target"),
        (["small-clip/image", "--recipe", "modelopt", "--backend", "onnxruntime"], 4, "trt"),
        (["small-clip/image", "--recipe", "fp16", "--backend", "pytorch"], 4, "builds no engine"),
        (["small-clip/image", "--recipe", "fp16", "--backend", "onnxruntime", "--workspace-mib", "64"], 2, "--workspace-mib has no use"),
        (["small-clip/image", "--recipe", "fp16", "--backend", "tensorrt", "--optimization-level", "9"], 2, "0 (quickest build) to 5"),
        (["small-clip/image", "--recipe", "fp16", "--backend", "tensorrt", "--gpu", "GPU-dead"], 2, "--gpu GPU-dead is none"),
    ],
)
def test_what_cannot_be_built_is_said_in_words_with_its_exit_code(gate, arguments, code, words):
    result = gate.command("build", *arguments)

    assert (result.code, result.stdout) == (code, "")
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_an_error_is_json_too_where_json_was_asked_for(gate):
    result = gate.command("build", "ViT-B32/image", "--recipe", "fp16", "--backend", "onnxruntime", "--json")

    assert json.loads(result.stdout)["error"]["code"] == "unknown_name"


def test_the_doctor_says_what_can_be_done_and_why_not_the_rest(gate):
    result = gate.command("doctor")

    assert result.code == 0
    assert "onnxruntime" in result.stdout
    assert "PyTorch runs the checkpoint itself" in result.stdout
    assert max(map(len, result.stdout.splitlines()[3:])) <= 140  # the lines before hold names of this machine


def test_the_doctor_speaks_json(gate):
    document = json.loads(gate.command("doctor", "--json").stdout)

    assert document["schema"] == "enginegate/doctor/1"
    assert {answer["backend"] for answer in document["backends"]} == {"fake", "onnxruntime", "pytorch", "tensorrt", "tensorrt_rtx"}


def test_an_unknown_command_is_usage(gate):
    assert gate.command("gat").code == 2
