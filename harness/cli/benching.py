"""`enginegate bench`: two engines, measured and judged now."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.commands import add_command, add_gpu
from harness.cli.latency import alpha, delta, ratio
from harness.cli.speaking import only_json_on_stdout, print_to_reader
from harness.records.verdict import exit_code

if TYPE_CHECKING:
    from harness.store.blobs import BlobStore


def add_bench(commands: Any) -> None:
    command = add_command(commands, "bench", bench, "time two engines in turns, in fresh processes, and judge whether the second is slower")
    command.add_argument(
        "engines", nargs="+", metavar="ENGINE", help="engine file of build --out, or sha256:HEX of a blob; one: beside itself"
    )
    command.add_argument("--python", action="append", default=[], type=Path, metavar="ENV", help="its interpreter; twice: one an engine")
    command.add_argument(
        "--tensorrt-home",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="its TensorRT (libs/, python/); twice: one an engine",
    )
    command.add_argument("--processes", type=_count, default=8, metavar="K", help="fresh pairs of processes (default %(default)s)")
    command.add_argument("--quartets", type=_count, default=10, metavar="M", help="groups of four blocks in each (default %(default)s)")
    command.add_argument("--alpha", type=alpha, default=0.001, help="chance of FAIL when nothing changed (default 0.001)")
    command.add_argument("--delta", type=delta, default=0.01, help="slow-down that PASS excludes (default 0.01, one percent)")
    command.add_argument("--against", type=ratio, default=1.0, metavar="RATIO", help="count a slow-down from this ratio (default 1)")
    command.add_argument("--batch", type=_count, metavar="N", help="rows a launch (default: the first engine's optimum)")
    command.add_argument("--cold", action="store_true", help="empty the caches before each launch")
    command.add_argument("--same-process", action="store_true", help="both engines in each process: half the starts")
    command.add_argument(
        "--threads",
        type=_count,
        metavar="N",
        default=1,
        help="threads of a backend that computes on the host (default %(default)s, as the gate times)",
    )
    add_gpu(command)
    command.add_argument("--rest-ms", type=float, default=0.0, metavar="MS", help="pause before each block (default %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="of the order of blocks and of the inputs (default %(default)s)")
    command.add_argument("--timeout", type=float, default=300.0, metavar="S", help="seconds a worker may be silent (default %(default)s)")
    command.add_argument("--save", type=Path, metavar="SAMPLES.json", help="leave the samples here, for judge-latency")
    command.add_argument("--blobs", metavar="DIR", help="blob store of sha256:HEX (default: as for gate)")
    command.add_argument("--gate-file", type=Path, metavar="FILE", help="where [blobs] folder is (default: as for gate)")
    command.epilog = "Exit code: 0 PASS, 1 FAIL, 2 something named is not there or does not compare, 3 INCONCLUSIVE, 4 INVALID."


def bench(options: argparse.Namespace) -> int:
    """Measure and judge."""
    from harness.errors import UsageError
    from harness.pipeline.benching import Bench
    from harness.pipeline.benching import bench as measured_and_judged
    from harness.records.timing import Cache, TimingProtocol

    if len(options.engines) > 2:
        raise UsageError(f"{len(options.engines)} engines were named; expected one or two")
    asked = Bench(
        engines=tuple(options.engines),
        protocol=TimingProtocol(
            quartets=options.quartets, cache=Cache.COLD if options.cold else Cache.HOT, rest_ms=options.rest_ms, seed=options.seed
        ),
        processes=options.processes,
        pythons=tuple(options.python),
        homes=tuple(home.expanduser() for home in options.tensorrt_home),
        rows=options.batch,
        alpha=options.alpha,
        delta=options.delta,
        against=options.against,
        same_process=options.same_process,
        threads=options.threads,
        answer_s=options.timeout,
        save=options.save,
        blobs=_blobs(options),
        command=_command(options),
    )
    with only_json_on_stdout() if options.json else contextlib.nullcontext():
        benched = measured_and_judged(asked)
    print_to_reader(benched.document if options.json else benched.text)
    return exit_code([benched.record.judgement.status])


def _blobs(options: argparse.Namespace) -> BlobStore | None:
    """The store, as a gate in this folder with these options would name it; nobody asks where no engine is named by its digest."""
    from harness.pipeline.comparing import policy_of
    from harness.store.blobs import blob_store

    if not any(name.startswith("sha256:") for name in options.engines):
        return None
    return blob_store(options.blobs, policy_of(options.gate_file).blobs)


# Options that are repeated as they are, in the order of the help.
_REPEATED = (
    "python",
    "tensorrt_home",
    "processes",
    "quartets",
    "alpha",
    "delta",
    "against",
    "batch",
    "cold",
    "same_process",
    "threads",
    "rest_ms",
    "seed",
    "blobs",
    "gate_file",
)


def _command(options: argparse.Namespace) -> str:
    """What to type to measure the same again; every default is written out, since a later version may have others."""
    words = ["enginegate", "bench", *options.engines]
    for name in _REPEATED:
        value, option = getattr(options, name), f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif isinstance(value, list):
            words += [word for each in value for word in (option, str(each))]
        elif value is not None and value is not False:
            words += [option, str(value)]
    return shlex.join(words)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number, 1 or more")
    return int(text)
