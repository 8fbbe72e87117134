"""`enginegate build` and `enginegate layers`: one engine, and what became of each node in it."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from pathlib import Path
from typing import Any

from harness.cli.commands import add_command, add_gpu
from harness.cli.speaking import only_json_on_stdout, print_to_reader, progress_on_stderr
from harness.errors import UnknownName, UsageError
from harness.records.spec import BatchProfile, BuildOptions, EncoderSpec, EngineSpec, normalized_target

_USUAL_WEIGHTS = "as for gate: those in gate.toml, else seeded:0"


def add_build(commands: Any) -> None:
    command = add_command(commands, "build", build, "build one engine")
    command.add_argument("encoder", nargs="?", metavar="ENCODER", help="ARCH/TOWER, such as ViT-B-32/image")
    command.add_argument("--recipe", help="fp16, modelopt, linear, attention or compact")
    command.add_argument("--onnx", type=Path, metavar="FILE", help="exported elsewhere; ARCH-TOWER-RECIPE.onnx needs no encoder and recipe")
    command.add_argument("--backend", required=True, help="onnxruntime, tensorrt or tensorrt_rtx")
    command.add_argument("--target", help="GPU to compile for, such as SM89")
    command.add_argument("--weights", help=f"seeded:N, a checkpoint file, or an open_clip pretrained tag (default {_USUAL_WEIGHTS})")
    command.add_argument("--batch", default=str(BatchProfile()), metavar="MIN/OPT/MAX", help="batch profile (default %(default)s)")
    add_gpu(command)
    command.add_argument("--workspace-mib", type=int, metavar="N", help="most scratch memory of a kernel (default: the builder's choice)")
    command.add_argument("--optimization-level", type=int, metavar="0-5", help="how long the builder searches (default: its choice)")
    command.add_argument("--timing-cache", metavar="FILE", help="kernel times, read before a build by tensorrt and written after it")
    command.add_argument("--version-compatible", action="store_true", help="a plan for later releases too; it carries code for the host")
    command.add_argument("--cache-dir", type=Path, metavar="DIR", help="where built artifacts are kept")
    command.add_argument("--out", type=Path, metavar="DIR", help="leave the engine file and its record here")
    command.epilog = "What a builder may be asked is for the backends tensorrt and tensorrt_rtx; docs/tensorrt.md says more."


def build(options: argparse.Namespace) -> int:
    """Build one engine, and say where it is."""
    from harness.pipeline.leaving import build_engine
    from harness.pipeline.names import backend_of, recipe_of, require_takes_options

    encoder, recipe = _asked(options)
    asked = BuildOptions(
        workspace_mib=options.workspace_mib,
        optimization_level=options.optimization_level,
        timing_cache=_absolute(options.timing_cache),
        version_compatible=options.version_compatible,
    )
    require_takes_options([options.backend], asked)
    engine = EngineSpec(
        encoder=_encoder(encoder, options.weights) if options.onnx is None else EncoderSpec.parse(encoder),
        recipe=recipe_of(recipe),
        backend=backend_of(options.backend).name,
        target=normalized_target(options.target) if options.target else None,
        batch=BatchProfile.parse(options.batch),
        options=asked,
    )
    with only_json_on_stdout() if options.json else contextlib.nullcontext():
        made = build_engine(engine, cache_dir=options.cache_dir, out=options.out, progress=progress_on_stderr, onnx=options.onnx)
    print_to_reader(made.document if options.json else str(made.path))
    return 0


def _encoder(name: str, weights: str | None) -> EncoderSpec:
    """The encoder with the weights that were asked for, else with those that a gate in this folder would give it."""
    from harness.pipeline.comparing import policy_of
    from harness.pipeline.names import encoders_named

    return encoders_named([name], filter(None, [weights]), policy_of(None).defaults.weights)[0]


def _absolute(path: str | None) -> str | None:
    """A path that another process may use, whatever folder it is in."""
    return str(Path(path).expanduser().absolute()) if path else None


def _asked(options: argparse.Namespace) -> tuple[str, str]:
    """Encoder and recipe; where they are not named, those in the name of the ONNX file."""
    match = re.fullmatch(r"(.+)-(image|text)-(\w+)", options.onnx.stem) if options.onnx is not None else None
    encoder = options.encoder or (f"{match[1]}/{match[2]}" if match else None)
    recipe = options.recipe or (match[3] if match else None)
    if encoder is None or recipe is None:
        raise UsageError("no encoder or no recipe is named; expected ARCH/TOWER and --recipe, or --onnx with ARCH-TOWER-RECIPE.onnx")
    return encoder, recipe


def add_layers(commands: Any) -> None:
    command = add_command(commands, "layers", layers, "which layer of an engine carries each ONNX node, and in which types")
    command.add_argument(
        "subject", metavar="ENCODER|PLAN-LOG|INSPECTOR.json", help="ARCH/TOWER, or what a build or the engine inspector left"
    )
    command.add_argument("--onnx", type=Path, metavar="FILE", help="the graph that the engine of a file was built from")
    command.add_argument("--all", action="store_true", help="name every node and show every block")
    for name, default in (*_EXPLAINED_BY_DEFAULT.items(), ("weights", _USUAL_WEIGHTS)):
        metavar = "MIN/OPT/MAX" if name == "batch" else None
        command.add_argument(f"--{name}", metavar=metavar, help=f"of an encoder's engine, as for build (default {default})")
    command.add_argument("--cache-dir", type=Path, metavar="DIR", help="where built artifacts are kept")
    command.epilog = (
        "A node is `fp8` where its layer reads nothing wider (a QuantizeLinear: where it writes FP8), `half` where it reads no FP8, "
        "`mixed` where it reads both, and `unseen` where no layer names it. Kinds and kernels are the compiler's own words."
    )


def layers(options: argparse.Namespace) -> int:
    """Say which layer of an engine carries each ONNX node, in which types, and what is fused with it."""
    from harness.pipeline.explaining import explain_engine, explain_file

    is_file = Path(options.subject).is_file()
    _refuse_options(options, is_file=is_file)
    with only_json_on_stdout() if options.json else contextlib.nullcontext():
        if is_file:
            explained = explain_file(Path(options.subject), onnx=options.onnx)
        else:
            explained = explain_engine(_engine_to_explain(options), cache_dir=options.cache_dir, progress=progress_on_stderr)
    for note in explained.notes:
        print(f"enginegate: {note}", file=sys.stderr)
    print_to_reader(explained.document if options.json else explained.text(every=options.all))
    return 0


# What `layers` builds where nothing else is asked for.
_EXPLAINED_BY_DEFAULT = {
    "recipe": "linear",
    "backend": "tensorrt_rtx",
    "target": "SM89",
    "batch": str(BatchProfile()),
}


def _refuse_options(options: argparse.Namespace, *, is_file: bool) -> None:
    """Raise for an option that would be ignored."""
    unused = [*_EXPLAINED_BY_DEFAULT, "weights", "cache_dir"] if is_file else ["onnx"]
    given = next((name for name in unused if getattr(options, name) is not None), None)
    if given is not None:
        subject = "is a file, and its engine is built" if is_file else "is no file; an encoder's graph is exported here"
        raise UsageError(f"--{given.replace('_', '-')} has no use: {options.subject} {subject}; leave the option out")


def _engine_to_explain(options: argparse.Namespace) -> EngineSpec:
    from harness.contracts import Capability
    from harness.pipeline.names import backend_of, recipe_of

    asked = {name: getattr(options, name) or default for name, default in _EXPLAINED_BY_DEFAULT.items()}
    try:
        encoder = _encoder(options.subject, options.weights)
    except UnknownName as error:
        raise UnknownName(f"{options.subject} is no file, neither a build log nor an inspector's JSON; and {error}") from error
    backend = backend_of(asked["backend"])
    has_target = options.target or Capability.COMPILES_FOR_GPU in backend.capabilities
    return EngineSpec(
        encoder=encoder,
        recipe=recipe_of(asked["recipe"]),
        backend=backend.name,
        target=normalized_target(asked["target"]) if has_target else None,
        batch=BatchProfile.parse(asked["batch"]),
    )
