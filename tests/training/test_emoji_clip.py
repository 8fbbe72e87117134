"""The training script, a few steps of it."""

import json
import subprocess
import sys

import pytest
from safetensors.numpy import load_file

from tests.helpers.gates import REPOSITORY

SCRIPT = REPOSITORY / "training" / "emoji_clip" / "train.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    def trained(seed: int):
        out = tmp_path_factory.mktemp("trained")
        done = subprocess.run(
            [sys.executable, str(SCRIPT), "--out", str(out), "--steps", "2", "--batch", "8", "--seed", str(seed), "--scored", "16"],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return load_file(out / "emoji-clip.safetensors"), json.loads((out / "training.json").read_text())

    return trained


def test_one_seed_gives_the_same_small_weights_and_another_seed_others(trained):
    (first, facts), (again, _), (other, _) = trained(1), trained(1), trained(2)

    assert {str(tensor.dtype) for tensor in first.values()} == {"float16"}
    assert sum(tensor.nbytes for tensor in first.values()) < 20e6  # what fits the repository
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)
    assert facts["seed"] == 1
    assert facts["schedule"]["steps"] == 2
    assert set(facts["scores"]) == {"noto", "twemoji"}
