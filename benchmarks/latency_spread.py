"""Prints how far the latency ratio of two ONNX Runtime engines moves between fresh processes, alone and beside busy neighbours.

The margin of `latency_ratio` in gate.toml rests on what this prints. Each process loads both engines, launches them in turn, and
gives one ratio, as one run of the gate does; `--busy N` keeps N other processes computing meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator

ENCODERS = ("ViT-B-32/image", "ViT-B-32/text")
ROUNDS = 15  # as in suites/benchmark/test_latency.py
_BUSY = "x = 1.0\nwhile True:\n    x = x * 1.0000001 % 7\n"


def main() -> None:
    options = _options()
    if options.once:
        print(json.dumps(_ratios()))
        return
    with _neighbours(options.busy):
        runs = [_fresh_process() for _ in range(options.processes)]
    for encoder in ENCODERS:
        ratios = sorted(run[encoder] for run in runs)
        middle = statistics.median(ratios)
        print(
            f"{encoder}: {len(ratios)} processes beside {options.busy} busy ones: ratio median {middle:.3f}, "
            f"{ratios[0]:.3f} to {ratios[-1]:.3f} ({ratios[0] / middle - 1:+.0%} to {ratios[-1] / middle - 1:+.0%}); "
            f"all: {' '.join(f'{ratio:.3f}' for ratio in ratios)}"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=12)
    parser.add_argument("--busy", type=int, default=0, help="how many other processes compute meanwhile")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _ratios() -> dict[str, float]:
    from harness.judge.latency.rounds import ratio_of
    from harness.pipeline.making import Maker
    from harness.pipeline.seeing import Pipeline
    from harness.records.policy import EvaluationRows
    from harness.records.spec import EncoderSpec, EngineSpec, Recipe
    from harness.store.cache import ArtifactCache, default_cache_dir

    def silent(_text: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    pipeline = Pipeline(
        Maker(ArtifactCache(default_cache_dir()), silent), evaluation_rows=EvaluationRows(seeded=64, trained=64), progress=silent
    )
    found: dict[str, float] = {}
    for name in ENCODERS:
        encoder = EncoderSpec.parse(name)
        arms = [EngineSpec(encoder=encoder, recipe=recipe, backend="onnxruntime") for recipe in (Recipe.LINEAR, Recipe.FP16)]
        pair = pipeline.latency(*arms, rounds=ROUNDS)
        found[name] = ratio_of(pair.candidate.ms, pair.reference.ms)
    return found


def _fresh_process() -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, "--once"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


@contextlib.contextmanager
def _neighbours(count: int) -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()


if __name__ == "__main__":
    main()
