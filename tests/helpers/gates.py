"""Runs the command in a folder of its own, and reads what it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

CONFIGS = Path(__file__).parent / "configs"
REPOSITORY = Path(__file__).parents[2]

GATE_TOML = """\
schema = "enginegate/gate/1"

[defaults]
encoders = ["small-clip/image"]
recipes = ["fp16", "linear"]
backends = ["onnxruntime", "tensorrt_rtx"]
targets = ["SM89"]

[evaluation]
rows = 24
reason = "enough for a test of the harness"

[[bound]]
metric = "fp8_flop_share"
floor = 0.8
reason = "on an encoder this small, the patch embedding has a seventh of the arithmetic"

[[margin]]
metric = "latency_ratio"
relative = 1e6
processes = 3
quartets = 1
reason = "engines of a millisecond on a shared machine: these tests are not about time"

[[margin]]
metric = "latency_ms"
relative = 1e6
processes = 3
quartets = 1
reason = "likewise"

[[margin]]
metric = "weights_ratio"
relative = 0.2
reason = "on an encoder this small, constants and padding weigh as much as a block"
"""


@dataclass
class Result:
    code: int
    stdout: str
    stderr: str
    folder: Path
    document: dict = field(default_factory=dict)

    @property
    def verdicts(self) -> list[dict]:
        return self.document["verdicts"]

    def of(self, metric: str, recipe: str = "linear", backend: str | None = "any") -> dict:
        """The one verdict about a metric and recipe."""
        found = [row for row in self.verdicts if row["metric"] == metric and row["recipe"] == recipe and backend in ("any", row["backend"])]
        assert len(found) == 1, found
        return found[0]

    @property
    def red(self) -> dict[str, str]:
        """Metrics of verdicts that are not PASS, with their status."""
        return {row["metric"]: row["status"] for row in self.verdicts if row["status"] != "PASS"}


class Gate:
    """The command, in one folder, with one cache. Each call is a fresh process."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.cache = cache
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gate.toml").write_text(GATE_TOML)

    @property
    def environment(self) -> dict[str, str]:
        own = ("CI", "GITHUB_STEP_SUMMARY", "PYTEST_ADDOPTS")
        # A worker of these tests would make pytest-benchmark time nothing in the processes that they start.
        kept = {name: value for name, value in os.environ.items() if name not in own and not name.startswith("PYTEST_XDIST")}
        return {
            **kept,
            "ENGINEGATE_MODEL_CONFIGS": str(CONFIGS),
            "ENGINEGATE_CACHE_DIR": str(self.cache),
            "PYTHONPATH": str(REPOSITORY),
            "COLUMNS": "160",
        }

    def __call__(self, *arguments: str, **environment: str) -> Result:
        return self.command("gate", *arguments, **environment)

    def command(self, *arguments: str, **environment: str) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "harness", *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr, self.folder, _document(done.stdout, self.folder))

    def python(self, script: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300, check=True
        )
        return done.stdout


def _document(stdout: str, folder: Path) -> dict:
    lines = stdout.strip().splitlines()
    if not lines or not lines[-1].startswith("run: "):
        return {}
    return json.loads((folder / lines[-1].removeprefix("run: ") / "run.json").read_text())
