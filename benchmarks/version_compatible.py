"""Builds plans that are meant for later releases too, and runs them there; prints a JSON line for each try.

    export ENGINEGATE_TENSORRT_HOME=TRT106
    python benchmarks/version_compatible.py --prepared PREPARED --later TRT1015 --later TRT112 --out results.jsonl

PREPARED is what `enginegate prepare --out PREPARED --encoders emoji-clip/text --recipes fp16 --recipes linear` leaves; each TRT names a
folder with TensorRT's libraries in libs/ and its Python module in python/, and a later release needs no more than what its module links to.
Every try is a process of its own under a time limit, and a line is written as soon as it is known:

- `build`: with the builder's flag VERSION_COMPATIBLE, with its lean runtime inside the plan and without;
- `run`: the embeddings of seeded captions, by the release that built the plan and by each later one, and whether both are the same bytes;
- `load plain`: what a later release says of a plan that was not built for it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from gpu_error_paths import HOME, HOUSE, TAIL, Results, rows_for, spec_of

from harness.backends.tensorrt import ALLOW_HOST_CODE, TensorRtBackend
from harness.errors import EnginegateError
from harness.records.artifacts import EngineArtifact
from harness.records.spec import BuildOptions

RECIPES = ("fp16", "linear")
KINDS = ("with lean runtime", "without lean runtime", "plain")
LIMIT_S = 150.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, required=True, metavar="DIR")
    parser.add_argument("--later", type=Path, action="append", default=[], metavar="DIR", help="a later release; repeat for more")
    parser.add_argument("--out", type=Path, default=Path("version-compatible.jsonl"), metavar="FILE")
    parser.add_argument("--work", type=Path, metavar="DIR", help="plans and embeddings (default: a folder that is removed)")
    parser.add_argument("--jobs", type=int, default=3, help="builds side by side")
    parser.add_argument("--recipes", action="append", choices=RECIPES, help="repeat for more (default: all)")
    parser.add_argument("--try", dest="attempt", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attempt:
        print(json.dumps(_outcome(json.loads(options.attempt)), default=str), flush=True)
        return
    with tempfile.TemporaryDirectory(prefix="version-compatible-") as folder:
        work = (options.work or Path(folder)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        _all(options, work, Results(options.out))


def _all(options: argparse.Namespace, work: Path, results: Results) -> None:
    wanted = [(recipe, kind) for kind in KINDS for recipe in options.recipes or RECIPES]
    with ThreadPoolExecutor(options.jobs) as pool:
        lines = list(pool.map(lambda one: _try("build", one[0], one[1], options, work, results), wanted))
    built = [one for one, line in zip(wanted, lines, strict=True) if "plan_bytes" in line]
    for recipe, kind in built:
        _try("run", recipe, kind, options, work, results)
        for home in options.later:
            verb = "load plain" if kind == "plain" else "run"
            _try(verb, recipe, kind, options, work, results, home=home)


def _try(
    verb: str, recipe: str, kind: str, options: argparse.Namespace, work: Path, results: Results, *, home: Path | None = None
) -> dict[str, Any]:
    """In a child, with the libraries of one release."""
    folder = work / f"{recipe}-{kind.replace(' ', '-')}"
    folder.mkdir(exist_ok=True)
    asked: dict[str, Any] = {
        "verb": verb,
        "recipe": recipe,
        "kind": kind,
        "folder": str(folder),
        "prepared": str(options.prepared.absolute()),
    }
    asked["is_later"] = home is not None
    env = {**os.environ, ALLOW_HOST_CODE: "1"}
    if home is not None:
        env[HOME] = str(home.absolute())
    libs = str(Path(env[HOME]).absolute() / "libs") if HOME in env else ""
    env["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [libs, os.environ.get("LD_LIBRARY_PATH")]))
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HOUSE), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(Path(__file__).resolve()), "--prepared", asked["prepared"], "--try", json.dumps(asked)]
    started = time.monotonic()
    line: dict[str, Any] = {"verb": verb, "recipe": recipe, "plan": kind, "release": home.name if home else "that built it"}
    try:
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=LIMIT_S, env=env, check=False)
        try:
            line |= json.loads(ran.stdout.strip().splitlines()[-1])
        except (IndexError, json.JSONDecodeError):
            line |= {"exit_status": ran.returncode, "stderr": ran.stderr.strip().splitlines()[-TAIL:]}
    except subprocess.TimeoutExpired:
        line["hung_after_s"] = LIMIT_S
    line["seconds"] = round(time.monotonic() - started, 1)
    results.keep(line)
    return line


# -- in a child --------------------------------------------------------------------------------------------------------------------


def _outcome(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        here = {"tensorrt": TensorRtBackend().version}
        return {**here, **{"build": _build, "run": _run, "load plain": _load_plain}[asked["verb"]](asked)}
    except EnginegateError as error:
        return {"event": {"code": error.code, "exit_code": error.exit_code, "message": str(error)[:2000]}}
    except Exception as error:  # noqa: BLE001 (a fault of ours, which is told like any other)
        return {"traceback": f"{type(error).__name__}: {error}"[:2000]}


def _build(asked: dict[str, Any]) -> dict[str, Any]:
    from harness.backends import _tensorrt_library as library
    from harness.backends._cuda import find_gpu
    from harness.backends._nvinfer import build_plan

    folder, trt = Path(asked["folder"]), library.load()
    without_runtime = trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME if asked["kind"] == "without lean runtime" else None

    def configure(config: Any) -> None:
        if without_runtime is not None:
            config.set_flag(without_runtime)

    source = Path(asked["prepared"]) / f"emoji-clip-text-{asked['recipe']}.onnx"
    spec = _spec(asked)
    plan = build_plan(trt, source, spec.batch, folder / "build.log", configure, options=spec.options)
    (folder / "engine.engine").write_bytes(plan.content)
    gpu = find_gpu().gpu
    facts = {
        "version": library.version(),
        "device": None if gpu is None else str(gpu),
        "plan_bytes": (folder / "engine.engine").stat().st_size,
    }
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    return {**facts, "options": asdict(spec.options)}


def _run(asked: dict[str, Any]) -> dict[str, Any]:
    folder = Path(asked["folder"])
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    engine = EngineArtifact(
        spec=_spec(asked),
        source=None,
        backend_version=facts["version"],
        path=folder / "engine.engine",
        sha256=None,
        plan_bytes=facts["plan_bytes"],
        build_seconds=0.0,
        device=facts["device"],
    )
    with TensorRtBackend().open(engine) as session:
        feed = session.upload(rows_for(session, 32))
        graph = session.capture(feed)
        session.launch(feed)
        (rows,) = session.download(feed).values()
        session.time_launches(feed, 200, cold=False)
        ms = float(np.median(session.time_launches(feed, 200, cold=False)))
    kept = folder / "rows.npy"
    found = {"finite": bool(np.isfinite(rows).all()), "graph": graph or "captured", "ms": round(ms, 4)}
    if not asked["is_later"]:
        np.save(kept, rows)
        return found
    wanted = np.load(kept).astype(np.float64)
    apart = np.abs(rows.astype(np.float64) - wanted)
    return {**found, "same_bytes": rows.tobytes() == np.load(kept).tobytes(), "furthest_apart": float(apart.max())}


def _load_plain(asked: dict[str, Any]) -> dict[str, Any]:
    """Without our own comparison of releases, so that the vendor speaks."""
    from harness.backends import _tensorrt_library as library
    from harness.backends.tensorrt import _deserialized

    path = Path(asked["folder"]) / "engine.engine"
    _deserialized(library.load(), path, path.read_bytes(), BuildOptions())
    return {"loads": True}


def _spec(asked: dict[str, Any]) -> Any:
    return spec_of(asked["recipe"], options=BuildOptions(version_compatible=asked["kind"] != "plain"))


if __name__ == "__main__":
    main()
