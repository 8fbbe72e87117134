"""How a command is declared."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], words: str) -> argparse.ArgumentParser:
    """A command that `run` carries out; all of them can answer in JSON."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
    command.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    command.set_defaults(run=run)
    return command


def add_gpu(command: argparse.ArgumentParser) -> None:
    """An option of every command that uses a GPU; `use_named_gpu` heeds it before anything of CUDA is loaded."""
    command.add_argument(
        "--gpu", metavar="UUID|N", help="GPU to use, by UUID or place in nvidia-smi -L (default: the first that CUDA shows)"
    )


def use_named_gpu(options: argparse.Namespace) -> None:
    """Let CUDA show the named GPU alone, here and in every worker.

    Raises:
        UnknownName: there is none of that name.
    """
    if getattr(options, "gpu", None):
        from harness.measure.gpu_choice import chosen_gpus, gpus_here, use_gpu

        use_gpu(chosen_gpus([options.gpu], gpus_here())[0])
