"""`enginegate prepare` and `enginegate gpu-report`: export here, build and time where the GPU is."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from harness.cli.commands import add_command, add_gpu
from harness.cli.speaking import only_json_on_stdout, print_to_reader, progress_on_stderr

# What is asked of a GPU first: the encoders that figures are published for, the larger one first.
_ENCODERS = ("ViT-L-14/image", "ViT-B-32/image", "ViT-L-14/text", "ViT-B-32/text")
_RECIPES = ("fp16", "linear", "attention", "modelopt")
# A whole number of the largest usual batches, and more than the 299 rows that a first percentile takes.
_ROWS = 384
_BATCHES = "1,8,32,128"
_STUDIED, _CHANGES = "ViT-B-32/image", "0.5,1,2"


def add_prepare(commands: Any) -> None:
    command = add_command(commands, "prepare", prepare, "export encoders for a machine that builds engines and cannot export")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for ARCH-TOWER-RECIPE.onnx, rows and manifest")
    command.add_argument("--encoders", action="append", metavar="ARCH/TOWER", help=f"repeat for more (default {' '.join(_ENCODERS)})")
    command.add_argument("--recipes", action="append", metavar="RECIPE", help=f"repeat for more (default {' '.join(_RECIPES)})")
    command.add_argument("--weights", action="append", metavar="[ARCH=]WEIGHTS", help="as for gate, whose gate.toml says the default")
    command.add_argument("--rows", type=_count, default=_ROWS, metavar="N", help="evaluation inputs of each encoder (default %(default)s)")
    command.add_argument("--skeleton", action="store_true", help="leave large weights out: a few MB an encoder, for times and bytes only")
    command.add_argument("--cache-dir", type=Path, metavar="DIR", help="where exported encoders are kept")


def prepare(options: argparse.Namespace) -> int:
    """Export, and say what was left where."""
    from harness.pipeline.comparing import policy_of
    from harness.pipeline.names import encoders_named, recipe_of
    from harness.pipeline.preparing import Preparing, prepare_folder
    from harness.store.codec import to_json

    with only_json_on_stdout() if options.json else contextlib.nullcontext():
        asked = Preparing(
            encoders=encoders_named(options.encoders or _ENCODERS, options.weights or (), policy_of(None).defaults.weights),
            recipes=tuple(map(recipe_of, options.recipes or _RECIPES)),
            out=options.out,
            rows=options.rows,
            skeleton=options.skeleton,
            cache_dir=options.cache_dir,
        )
        manifest = prepare_folder(asked, progress_on_stderr)
    files = [graph.file for graph in manifest.graphs] + [rows.file for rows in manifest.rows]
    text = "\n".join([*(f"{one.file}  {one.nbytes:,} bytes" for one in files), f"prepared: {options.out}"])
    print_to_reader(to_json(manifest).decode().rstrip() if options.json else text)
    return 0


def add_gpu_report(commands: Any) -> None:
    command = add_command(commands, "gpu-report", gpu_report, "build, look at and time every engine of a prepared folder")
    command.add_argument("prepared", type=Path, metavar="PREPARED_DIR", help="folder of prepare --out")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the report; one that is there is gone on with")
    command.add_argument("--batches", type=_counts, default=_counts(_BATCHES), metavar="N,N", help=f"an engine each (default {_BATCHES})")
    command.add_argument("--backend", default="tensorrt", help="tensorrt (default) or onnxruntime")
    add_gpu(command)
    command.add_argument("--budget-minutes", type=_minutes, metavar="N", help="begin nothing that would end later (default: no limit)")
    command.add_argument("--processes", type=_count, default=5, metavar="K", help="fresh processes of a timing (default %(default)s)")
    command.add_argument("--quartets", type=_count, default=5, metavar="M", help="groups of four blocks in each (default %(default)s)")
    command.add_argument("--builders", type=_count, default=1, metavar="N", help="engines built at one time (default %(default)s)")
    command.add_argument("--baselines", type=Path, metavar="DIR", help="store figures that this folder lacks; refused in CI")
    command.add_argument("--engines", type=Path, metavar="DIR", help="leave every engine file here, as build --out does")
    command.add_argument("--cache-dir", type=Path, metavar="DIR", help="where built engines are kept")
    command.add_argument(
        "--study",
        nargs="?",
        const=_STUDIED,
        metavar="ARCH/TOWER",
        help=f"in place of all that, study noise and slow-downs of known size with its FP16 engine (default {_STUDIED})",
    )
    command.add_argument("--study-processes", type=_count, default=30, metavar="K", help="fresh ones (default %(default)s)")
    command.add_argument("--study-quartets", type=_count, default=12, metavar="M", help="in each, a change (default %(default)s)")
    command.add_argument("--changes", type=_percents, default=_percents(_CHANGES), metavar="P,P", help=f"percent (default {_CHANGES})")
    command.add_argument("--trace-seconds", type=_minutes, default=10.0, metavar="S", help="launches in a row (default %(default)s)")
    command.epilog = "Exit code: 0 all is done; 3 something is left, and the same command goes on; 4 something of a line broke."


def gpu_report(options: argparse.Namespace) -> int:
    """Report, and say where."""
    from harness.pipeline.gpu_reporting import Reporting
    from harness.pipeline.gpu_reporting import gpu_report as reported
    from harness.pipeline.names import backend_of

    asked = Reporting(
        prepared=options.prepared,
        out=options.out,
        batches=options.batches,
        backend=backend_of(options.backend).name,
        budget_minutes=options.budget_minutes,
        processes=options.processes,
        quartets=options.quartets,
        builders=options.builders,
        cache_dir=options.cache_dir,
        baselines=options.baselines,
        engines=options.engines,
        command=("enginegate", *sys.argv[1:]),
        study=_studying(options),
    )
    with only_json_on_stdout() if options.json else contextlib.nullcontext():
        report = reported(asked, progress_on_stderr)
    print_to_reader(report.document if options.json else report.text)
    return report.exit_code


def _studying(options: argparse.Namespace) -> Any:
    from harness.pipeline.gpu_reporting import Studying

    if options.study is None:
        return None
    return Studying(
        encoder=options.study,
        changes=options.changes,
        processes=options.study_processes,
        quartets=options.study_quartets,
        trace_s=options.trace_seconds,
    )


def add_noise(commands: Any) -> None:
    command = add_command(commands, "noise", noise, "say what the samples of a noise study show")
    command.add_argument("folder", type=Path, metavar="DIR", help="folder study of a gpu-report, with samples-CHANGE.json.gz")


def noise(options: argparse.Namespace) -> int:
    """Read, count, and print Markdown."""
    from harness.pipeline.studying import read_study
    from harness.report.noise import noise_lines
    from harness.store.codec import to_json

    found = read_study(options.folder)
    print_to_reader(to_json(found).decode().rstrip() if options.json else "\n".join(noise_lines(found)).rstrip())
    return 0


def _percents(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(dict.fromkeys(float(part) / 100 for part in text.split(",")))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share <= 1 for share in shares):
        raise argparse.ArgumentTypeError(f"{text!r}; expected percents above 0 and up to 100, such as {_CHANGES}")
    return shares


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number, 1 or more")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_count(part.strip()) for part in text.split(",")))


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number, more than 0")
    return minutes
