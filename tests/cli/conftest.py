"""Gates of a small encoder, with real libraries throughout. What is expensive is made once and copied."""

import shutil
import subprocess
import sys

import pytest

from harness.store.run_directory import read_run
from tests.helpers.defects import PLANTS
from tests.helpers.gates import Gate


@pytest.fixture(scope="session")
def warm_cache(tmp_path_factory):
    """A cache in which the small encoder's engines are built."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def approved(tmp_path_factory, warm_cache):
    """A folder whose baselines were made by the first run; not to be changed."""
    gate = Gate(tmp_path_factory.mktemp("approved"), warm_cache)
    first = gate("--baselines=create")
    assert first.code == 0, first.stdout + first.stderr
    return gate, first


@pytest.fixture
def gate(tmp_path, approved, warm_cache):
    """A folder with approved baselines, which a test may change."""
    shutil.copytree(approved[0].folder / "baselines", tmp_path / "project" / "baselines")
    return Gate(tmp_path / "project", warm_cache)


@pytest.fixture(scope="session")
def planted(approved, tmp_path_factory, warm_cache):
    """Runs of graphs with one regression each: verdicts by regression and metric, what was printed, and where they lie."""
    gate = Gate(tmp_path_factory.mktemp("planted"), warm_cache)
    shutil.copytree(approved[0].folder / "baselines", gate.folder / "baselines")
    for plant in PLANTS:
        for kind in ("inputs", "reference"):
            shutil.copytree(warm_cache / kind, gate.folder / f"{plant}-cache" / kind)
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.defects", "-m", "graph or accuracy", "--recipes", "linear"],
        cwd=gate.folder,
        env=gate.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    runs = {plant: read_run(gate.folder / plant) for plant in PLANTS}
    return {plant: {row.metric: row for row in run.verdicts} for plant, run in runs.items()}, done.stdout, gate
