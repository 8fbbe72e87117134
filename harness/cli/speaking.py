"""What the command says: results on stdout, or one JSON document, and everything else on stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


def tell(code: str, message: str, exit_code: int, *, as_json: bool, quietly: bool = False) -> int:
    """Say what went wrong, and answer with its exit code."""
    if as_json:
        print_to_reader(document({"error": {"code": code, "message": message}}))
    if not quietly:
        print(f"enginegate: {message}", file=sys.stderr)
    return exit_code


def print_to_reader(text: str) -> None:
    """Print a result; whoever reads it may stop when he has seen enough, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        speak_no_more()


def speak_no_more() -> None:
    """Send stdout nowhere, since nobody reads it; or the interpreter would complain when it flushes at its end."""
    stdout = sys.__stdout__ or sys.stdout  # pytest may have put a stream of its own in place
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
    with contextlib.suppress(BrokenPipeError):
        stdout.flush()


def document(content: dict[str, Any]) -> str:
    """A JSON document of the command's own."""
    from harness.store.codec import to_json

    return to_json(content).decode().rstrip()


def progress_on_stderr(text: str) -> contextlib.AbstractContextManager[Callable[[str], None]]:
    """A sign of life while something is made."""
    from harness.report.progress import Progress

    return Progress(sys.stderr, is_terminal=sys.stderr.isatty()).task(text)


@contextlib.contextmanager
def only_json_on_stdout() -> Iterator[None]:
    """Send everything else to stderr, also what libraries write past Python."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
