"""`enginegate baseline`: people look at latency baselines, and decide about engines that ask for approval."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.commands import add_command
from harness.cli.speaking import only_json_on_stdout, print_to_reader, progress_on_stderr
from harness.records.verdict import exit_code

if TYPE_CHECKING:
    from harness.pipeline.desk import Desk

_EPILOG = "Exit code: 0 done, 1 the engine is slower, 2 something named is not there or does not compare, 3 INCONCLUSIVE, 4 broken."


def add_baseline(commands: Any) -> None:
    words = "look at stored engines and their times; accept or reject engines that a run left pending"
    parser = commands.add_parser("baseline", help=words, description=f"{words[0].upper()}{words[1:]}.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_looks(verbs)
    _add_decisions(verbs)


def _add_looks(verbs: Any) -> None:
    command = _add(verbs, "list", list_, "the latest record of every engine, and pending files")
    command.add_argument(
        "pending", nargs="*", type=Path, metavar="DIR", help="where pending files are looked for (default runs, if present)"
    )
    command = _add(verbs, "show", show, "every record of one encoder, with its chain of approvals")
    command.add_argument("encoder", metavar="ARCH/TOWER")
    command.add_argument("recipe", nargs="?", metavar="RECIPE", help="default: all")
    command = _add(verbs, "diff", diff, "what a pending record would change")
    command.add_argument("pending", type=Path, metavar="PENDING.json", help="file that a gate left in RUN_DIR/pending")


def _add_decisions(verbs: Any) -> None:
    command = _add(verbs, "accept", accept, "approve a pending engine, once it is shown not to be slower; refused in CI")
    _add_decision(command)
    command.add_argument(
        "--release",
        type=_sentence,
        metavar="NAME",
        help="it is what release NAME ships: from now on slow-downs add up from here",
    )
    command.add_argument(
        "--without-lost-engine",
        type=_sentence,
        metavar="WHY",
        help="the store has lost an engine that this one would be timed beside: approve without it, and keep WHY in the chain",
    )
    command.epilog = _EPILOG
    command = _add(verbs, "reject", reject, "say no to a pending engine, and why; refused in CI")
    _add_decision(command)
    command = _add(verbs, "trim", trim, "remove records that none of these runs asked for; refused in CI")
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="all runs that stand for what is gated on their machines")
    command.add_argument("--dry-run", action="store_true", help="say what would be removed")


def _add(verbs: Any, name: str, run: Any, words: str) -> argparse.ArgumentParser:
    command = add_command(verbs, name, run, words)
    command.add_argument("--baselines-dir", type=Path, metavar="DIR", help="default: ./baselines, else the packaged ones")
    command.add_argument(
        "--blobs", metavar="DIR", help="where the engines lie (default: ENGINEGATE_BLOBS, else [blobs] folder in gate.toml)"
    )
    command.add_argument("--gate-file", type=Path, metavar="FILE", help="where Delta is (default ./gate.toml, else the packaged one)")
    return command


def _add_decision(command: argparse.ArgumentParser) -> None:
    command.add_argument("pending", type=Path, metavar="PENDING.json", help="file that a gate left in RUN_DIR/pending")
    command.add_argument("--reason", required=True, type=_sentence, help="one sentence, for whoever reads the chain")
    command.add_argument("--by", type=_sentence, default=_user(), metavar="NAME", help="who decides (default: the user's name)")


def list_(options: argparse.Namespace) -> int:
    """List."""
    from harness.pipeline.desk import listed
    from harness.report.latency_baselines import list_text

    folders = options.pending or [folder for folder in [Path("runs")] if folder.is_dir()]
    return _told(options, listed(_desk(options), folders), list_text)


def show(options: argparse.Namespace) -> int:
    """Show the chains of one encoder."""
    from harness.pipeline.desk import shown
    from harness.report.latency_baselines import chain_text

    return _told(options, shown(_desk(options), options.encoder, options.recipe), chain_text)


def diff(options: argparse.Namespace) -> int:
    """Show what would change."""
    from harness.pipeline.desk import compared
    from harness.report.latency_baselines import diff_text

    return _told(options, compared(_desk(options), options.pending), diff_text)


def accept(options: argparse.Namespace) -> int:
    """Time the engine beside its predecessors, and approve it."""
    from harness.pipeline.deciding import accepted
    from harness.report.latency_baselines import decision_text

    with only_json_on_stdout() if options.json else contextlib.nullcontext():
        decision = accepted(
            _desk(options, writing=True),
            options.pending,
            who=options.by,
            reason=options.reason,
            release=options.release,
            why_without_lost=options.without_lost_engine,
            working=progress_on_stderr,
        )
    _told(options, decision, decision_text)
    return exit_code([decision.status])


def reject(options: argparse.Namespace) -> int:
    """Say no."""
    from harness.pipeline.deciding import rejected
    from harness.report.latency_baselines import decision_text

    return _told(options, rejected(options.pending, who=options.by, reason=options.reason), decision_text)


def trim(options: argparse.Namespace) -> int:
    """Remove what nothing asks for."""
    from harness.pipeline.trimming import trimmed
    from harness.report.latency_baselines import trim_text

    return _told(options, trimmed(_desk(options, writing=True), options.runs, dry_run=options.dry_run), trim_text)


def _desk(options: argparse.Namespace, *, writing: bool = False) -> Desk:
    from harness.pipeline.desk import Desk

    return Desk.at(Path(), baselines_dir=options.baselines_dir, blobs=options.blobs, gate_file=options.gate_file, writing=writing)


def _told(options: argparse.Namespace, answer: Any, text: Any) -> int:
    from harness.store.codec import to_json

    print_to_reader(to_json(answer).decode().rstrip() if options.json else text(answer))
    return 0


def _sentence(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; expected words")
    return text.strip()


def _user() -> str:
    try:
        return os.environ.get("GIT_AUTHOR_NAME") or getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return "unknown"
