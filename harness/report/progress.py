"""A sign of life during long work: a moving line on a terminal, plain lines in a log."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, cast

from harness.report.words import plain

if TYPE_CHECKING:
    from rich.live import Live
    from rich.spinner import Spinner


SAY_EVERY_S = 30.0  # in a log


class Progress:
    """Says what is going on.

    It never fails a run: a stream that is closed or full is left alone, and a letter that it cannot spell is escaped.

    Args:
        stream: where to, as a rule the real standard error, since pytest captures the other.
        is_terminal: whether a person watches; None asks the stream.
        clock: seconds, ascending.
    """

    def __init__(self, stream: IO[str], is_terminal: bool | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = _Forgiving(stream)
        self._is_terminal = _watched(stream) if is_terminal is None else is_terminal
        self._clock = clock
        self._running: list[str] = []
        self._live: Live | None = None

    def note(self, text: str) -> None:
        """Say one thing, on a line of its own."""
        self._say(plain(text))

    @contextmanager
    def task(self, text: str) -> Generator[Callable[[str], None]]:
        """Say what is being done while it is done, and afterwards how long it took or that it failed. Tasks may nest.

        Yields:
            what says how far it is: on the moving line each time, in a log every half a minute.
        """
        doing = plain(text)
        started = self._clock()
        self._begin(doing)
        ended = "failed after "
        try:
            yield self._so_far(doing, started)
            ended = ""
        finally:
            self._end()
            self._say(f"{doing} ... {ended}{self._clock() - started:.0f} s")

    def _so_far(self, doing: str, started: float) -> Callable[[str], None]:
        said_at = started

        def say(words: str) -> None:
            nonlocal said_at
            now = self._clock()
            if self._live is not None:
                self._live.update(_spinner(f"{doing}: {plain(words)}, {now - started:.0f} s"))
            elif now - said_at >= SAY_EVERY_S:
                said_at = now
                self._say(f"{doing}: {plain(words)}, {now - started:.0f} s")

        return say

    def _begin(self, doing: str) -> None:
        self._running.append(doing)
        if not self._is_terminal:
            self._say(f"{doing} ...")
        elif self._live is None:
            self._live = _started(self._stream, doing)
        else:
            self._live.update(_spinner(doing))

    def _end(self) -> None:
        self._running.pop()
        if self._live and self._running:
            self._live.update(_spinner(self._running[-1]))
        elif self._live:
            self._live.stop()
            self._live = None

    def _say(self, line: str) -> None:
        if self._live:
            self._live.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
        else:
            self._stream.write(f"{line}\n")
            self._stream.flush()


class _Forgiving(io.TextIOBase):
    """A stream whose failures nobody hears of, also those met by rich's own thread."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        with suppress(OSError, ValueError):  # ValueError: it is closed
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(text.encode("ascii", errors="backslashreplace").decode("ascii"))
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def _watched(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # not a real stream, or a closed one
        return False


def _started(stream: io.TextIOBase, doing: str) -> Live:
    from rich.console import Console
    from rich.live import Live

    # Redirecting would replace sys.stdout and sys.stderr, which pytest's capture replaces as well.
    console = Console(file=cast("IO[str]", stream), force_terminal=True)
    live = Live(_spinner(doing), console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    live.start()
    return live


def _spinner(doing: str) -> Spinner:
    from rich.spinner import Spinner
    from rich.text import Text

    return Spinner("line", Text(doing))  # as Text, square brackets mean themselves
