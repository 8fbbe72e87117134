"""`gate --eval-data`, from outside, with trained weights: the emoji, written to disk and read through the door for data of the caller."""

import json

import numpy as np
import pytest

from harness.prepare.inputs import EmojiSet, Split
from harness.records.verdict import Status
from tests.helpers.gates import Gate
from tests.helpers.pictures import class_folders, draw, png_that_claims, table

ROWS = 48

# Bounds that 48 pictures can carry: no miss among 48 shows a rate above 0.93.
GATE_TOML = f"""\
schema = "enginegate/gate/1"

[defaults]
encoders = ["emoji-clip/image", "emoji-clip/text"]
recipes = ["fp16", "linear"]
backends = ["onnxruntime"]
targets = ["SM89"]

[evaluation]
rows = {ROWS}
trained_rows = {ROWS}
reason = "as many as are written to disk"
""" + "".join(
    f'\n[[bound]]\nmetric = "{metric}"\n{side} = {bound}\nreason = "far from the clean engine: the door is tested here"\n'
    for metric, side, bound in (
        ("fp8_error_db", "floor", 1.0),
        ("logit_drift_p99", "ceiling", 1.0),
        ("recall_at_1_drop", "ceiling", 50.0),
        ("recall_at_5_drop", "ceiling", 50.0),
        ("snr_loss_db", "ceiling", 6.0),
        ("top10_overlap", "floor", 0.5),
        ("zero_shot_agreement", "floor", 0.7),
        ("zero_shot_top1_drop", "ceiling", 50.0),
    )
)
GATE_TOML += '\n[[margin]]\nmetric = "snr_to_fake_quant_db"\nabsolute = 6.0\nreason = "likewise"\n'
TASK_METRICS = {
    "logit_drift_p99",
    "recall_at_1_drop",
    "recall_at_5_drop",
    "top10_overlap",
    "zero_shot_agreement",
    "zero_shot_top1_drop",
}


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    """The first evaluation emoji as `folder`, and as `csv/pairs.csv` in the order they have in the built-in data."""
    root, data = tmp_path_factory.mktemp("emoji"), EmojiSet(split=Split.EVALUATION, rows=ROWS)
    (root / "csv" / "drawings").mkdir(parents=True)
    lines = ["image,caption"]
    for name, caption, picture in zip(data.picture_ids, data.captions, data.pictures(), strict=True):
        picture.save(root / "csv" / "drawings" / f"{name}.png")
        lines.append(f'drawings/{name}.png,"{caption}"')
        folder = root / "folder" / caption.replace(" ", "_")
        folder.mkdir(parents=True)
        picture.save(folder / "drawing.png")
    (root / "csv" / "pairs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


class Door:
    def __init__(self, gate):
        self.gate = gate

    def __call__(self, *arguments, **environment):
        return self.gate("-m", "accuracy", *arguments, **environment)


@pytest.fixture(scope="module")
def door(tmp_path_factory, warm_cache):
    """The accuracy suite for emoji-clip, in a folder with bounds of its own."""
    gate = Gate(tmp_path_factory.mktemp("door"), warm_cache)
    (gate.folder / "gate.toml").write_text(GATE_TOML)
    return Door(gate)


@pytest.fixture(scope="module")
def from_inside(door):
    return door()


@pytest.fixture(scope="module")
def from_csv(door, emoji):
    return door("--eval-data", str(emoji / "csv" / "pairs.csv"))


@pytest.fixture(scope="module")
def from_folder(door, emoji):
    return door("--eval-data", str(emoji / "folder"))


def figures(result, metrics=None):
    keep = ("encoder", "recipe", "metric", "observed", "bound", "interval", "budget", "n", "status")
    return [tuple(map(str, map(row.get, keep))) for row in result.verdicts if metrics is None or row["metric"] in metrics]


class TestVerdicts:
    def test_both_towers_get_every_task_verdict(self, from_csv):
        judged = {(row["encoder"], row["recipe"]) for row in from_csv.verdicts}
        assert judged == {(f"emoji-clip/{tower}", recipe) for tower in ("image", "text") for recipe in ("fp16", "linear")}
        for encoder, recipe in judged:
            rows = [row for row in from_csv.verdicts if (row["encoder"], row["recipe"]) == (encoder, recipe)]
            assert {row["metric"] for row in rows} >= TASK_METRICS
            assert {row["n"] for row in rows if row["metric"] == "zero_shot_agreement"} == {ROWS}

    def test_clean_engines_pass_what_so_few_rows_can_carry(self, from_csv):
        by_status = {status: {row["metric"] for row in from_csv.verdicts if row["status"] == status} for status in Status}

        assert from_csv.code == 3, from_csv.stdout
        assert by_status[Status.FAIL] | by_status[Status.INVALID] == set()
        assert by_status[Status.INCONCLUSIVE] == {"logit_drift_p99"}  # of 48 rows, one in a hundred may be unseen
        assert by_status[Status.PASS] >= TASK_METRICS - {"logit_drift_p99"}

    def test_the_emoji_as_a_file_give_the_figures_that_they_give_from_inside(self, from_inside, from_csv):
        assert figures(from_csv) == figures(from_inside)

    def test_a_class_folder_is_one_class_with_its_prompt(self, from_folder, emoji):
        run = from_folder.stdout.strip().splitlines()[-1].removeprefix("run: ")
        with np.load(f"{run}/samples/emoji-clip-text-fp16-onnxruntime-embeddings.npz", allow_pickle=False) as arrays:
            captions = arrays["ids"].tolist()
        assert captions == [f"a photo of a {folder.name.replace('_', ' ')}" for folder in sorted((emoji / "folder").iterdir())]

    def test_a_picture_tower_sees_the_same_pictures_in_either_layout(self, from_csv, from_folder):
        for metric in ("cosine_min", "finite"):
            pictures = [
                [row["observed"] for row in result.verdicts if row["metric"] == metric and row["encoder"] == "emoji-clip/image"]
                for result in (from_csv, from_folder)
            ]
            assert pictures[0] == pytest.approx(pictures[1], abs=1e-4)

    def test_two_workers_see_what_one_process_sees(self, door, emoji, from_csv):
        together = door("--eval-data", str(emoji / "csv" / "pairs.csv"), "-n", "2")

        assert sorted(figures(together)) == sorted(figures(from_csv))

    def test_labels_that_are_wrong_lose_the_pictures_but_not_the_agreement(self, door, emoji, from_csv):
        """Were labels not read, a shifted column would change nothing."""
        header, *lines = (emoji / "csv" / "pairs.csv").read_text(encoding="utf-8").splitlines()
        images, captions = zip(*(line.split(",", 1) for line in lines), strict=True)
        shifted = emoji / "csv" / "shifted.csv"
        rows = zip(images, captions[1:] + captions[:1], strict=True)
        shifted.write_text("\n".join([header, *map(",".join, rows)]), encoding="utf-8")

        wrong = door("--eval-data", str(shifted), "--encoders", "emoji-clip/image", "--recipes", "linear")

        right = [row for row in from_csv.verdicts if (row["encoder"], row["recipe"]) == ("emoji-clip/image", "linear")]
        agreement = next(row["observed"] for row in right if row["metric"] == "zero_shot_agreement")
        assert wrong.of("zero_shot_agreement")["observed"] == agreement
        assert wrong.of("zero_shot_top1_drop")["reason"] != next(row["reason"] for row in right if row["metric"] == "zero_shot_top1_drop")


@pytest.fixture
def data(tmp_path):
    """A folder for evaluation data that no gate can use."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def not_there(data):
    return data / "gone", "gone does not exist; expected a folder whose folders are classes"


def unreadable(data):
    class_folders(data, {"cat": ["1.png"], "fox": ["1.png"]})
    (data / "cat" / "1.png").write_bytes(b"no picture")
    return data, "1 of 2 pictures cannot be used, first 'cat/1.png', which of 10 bytes is damaged or no picture"


def huge(data):
    class_folders(data, {"cat": ["1.png"], "fox": ["1.png"]})
    (data / "cat" / "1.png").write_bytes(png_that_claims(12_000, 12_000))
    return data, "'cat/1.png', which has 12000 x 12000 = 144,000,000 pixels; expected at most 89,478,485"


def label_without_picture(data):
    return table(data, [("a.png", "a fox"), ("gone.png", "a cat")]), "'gone.png' (line 3), which is not there"


def headless(data):
    return table(data, [("b.png", "a cat")], header=("a.png", "a fox")), "begins with the columns 'a.png,a fox'"


class TestRefusals:
    @pytest.mark.parametrize("defect", [not_there, unreadable, huge, label_without_picture, headless])
    def test_data_that_cannot_be_used_are_refused_in_one_line_before_anything_is_made(self, door, data, tmp_path, defect):
        path, words = defect(data)

        result = door("--eval-data", str(path), "--run-dir", str(tmp_path / "run"), "-W", "error")

        assert (result.code, result.stdout) == (2, "")
        assert words in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "run").exists()

    def test_seeded_weights_are_refused(self, door, emoji):
        result = door("--eval-data", str(emoji / "folder"), "--encoders", "emoji-clip/image", "--weights", "seeded:0")

        assert (result.code, result.stdout) == (2, "")
        assert "--eval-data judges what weights have learnt, and emoji-clip/image has seeded:0, which learnt nothing" in result.stderr

    def test_json_says_why(self, door, data):
        result = door("--json", "--eval-data", str(data))

        error = json.loads(result.stdout)["error"]
        assert (result.code, error["code"]) == (2, "unusable_inputs")
        assert "holds no folders" in error["message"]

    def test_a_picture_that_only_decoding_shows_to_be_truncated_invalidates_its_gates(self, door, data):
        class_folders(data, {"cat": ["1.png", "2.png"], "fox": ["1.png"]})
        draw(data / "cat" / "1.png", size=(64, 64))
        content = (data / "cat" / "1.png").read_bytes()
        (data / "cat" / "1.png").write_bytes(content[:-40])

        result = door("--eval-data", str(data), "--encoders", "emoji-clip/image", "--recipes", "fp16", "-W", "error")

        assert result.code == 2
        assert set(result.red.values()) == {"INVALID"}
        assert len(result.red) == len(result.verdicts)
        assert "picture 'cat/1.png' of " in result.stdout
        assert "Traceback" not in result.stdout + result.stderr

    def test_captions_that_are_equal_once_cut_invalidate_their_gates(self, door, data):
        long = "fox " * 40  # the context has 32 tokens
        path = table(data, [("a.png", f"{long} asleep"), ("b.png", f"{long} awake")])

        result = door("--eval-data", str(path), "--encoders", "emoji-clip/text", "--recipes", "fp16")

        assert result.code == 2
        assert set(result.red.values()) == {"INVALID"}
        assert "are the same once cut after 32 tokens" in " ".join(result.stdout.split())


def test_captions_that_were_cut_are_told_in_every_run(door, data):
    path = table(data, [("a.png", "fox " * 40), ("b.png", "a cat")])

    for _ in range(2):
        result = door("--eval-data", str(path), "--encoders", "emoji-clip/text", "--recipes", "fp16", "-k", "sound")

        assert result.code == 0, result.stdout
        assert (
            "pairs.csv, for emoji-clip: 1 of 2 captions did not fit the context of 32 tokens and were cut, first 'fox fox" in result.stdout
        )


def test_what_is_judged_is_said_first(door, emoji):
    result = door("--eval-data", str(emoji / "folder"), "--list")

    assert f"folder with {ROWS} pictures, {ROWS} captions" in result.stdout


def test_a_warm_run_decodes_no_picture_and_loads_no_torch(door, emoji, from_folder):
    script = (
        "import sys; from harness.cli import main;"
        f"code = main(['gate', '-q', '-m', 'accuracy', '-k', 'sound', '--eval-data', {str(emoji / 'folder')!r}]);"
        "print(code, sorted({'torch', 'open_clip', 'modelopt'} & sys.modules.keys()))"
    )

    assert door.gate.python(script).strip().splitlines()[-1] == "0 []"
