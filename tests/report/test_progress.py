"""Signs of life."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest

from harness.report.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError("no space left")


def clock(*seconds: float) -> Callable[[], float]:
    return iter(seconds).__next__


def test_a_log_gets_a_line_at_the_start_and_one_at_the_end():
    log = io.StringIO()

    with Progress(log, clock=clock(0, 12.4)).task("building ViT-B-32/image linear"):
        assert log.getvalue() == "building ViT-B-32/image linear ...\n"

    assert log.getvalue().splitlines()[1:] == ["building ViT-B-32/image linear ... 12 s"]


def test_work_that_fails_is_said_to_have_failed():
    log = io.StringIO()

    with pytest.raises(RuntimeError), Progress(log, clock=clock(0, 3)).task("building"):
        raise RuntimeError

    assert log.getvalue().splitlines() == ["building ...", "building ... failed after 3 s"]


def test_how_far_it_is_is_said_in_a_log_every_half_a_minute():
    log = io.StringIO()

    with Progress(log, clock=clock(0, 10, 31, 45, 62, 70)).task("building") as say:
        for percent in (10, 40, 50, 90):
            say(f"Building Engine {percent} %")

    assert log.getvalue().splitlines() == [
        "building ...",
        "building: Building Engine 40 %, 31 s",
        "building: Building Engine 90 %, 62 s",
        "building ... 70 s",
    ]


def test_how_far_it_is_is_said_on_the_moving_line_of_a_terminal():
    terminal = Terminal()

    with Progress(terminal).task("building") as say:
        say("Tactic [Selection] 25 %")
        time.sleep(0.3)

    assert "building: Tactic [Selection] 25 %, 0 s" in terminal.getvalue()


def test_a_note_is_one_line_whatever_it_holds():
    log = io.StringIO()

    Progress(log, is_terminal=False).note("waiting\nfor [red]\x1b[2J")

    assert log.getvalue() == "waiting for [red] [2J\n"


def test_a_terminal_gets_a_moving_line_notes_above_it_and_a_line_that_stays():
    terminal = Terminal()
    progress = Progress(terminal, clock=clock(0, 1, 2, 5))

    with progress.task("exporting [linear]"), progress.task("calibrating"):
        progress.note("found 3 [faults] :smile:")

    text = terminal.getvalue()
    assert "exporting [linear]" in text
    assert "found 3 [faults] :smile:\n" in text
    assert "calibrating ... 1 s\n" in text
    assert text.rstrip().endswith("exporting [linear] ... 5 s")
    assert "exporting [linear] ... 5 s\n" in text


def test_the_streams_of_the_process_are_left_alone(capsys: pytest.CaptureFixture[str]):
    with Progress(Terminal()).task("building"):
        print("said by a library")  # noqa: T201

    assert capsys.readouterr().out == "said by a library\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_stream_that_is_closed_or_full_fails_nothing(is_terminal: bool):
    closed = io.StringIO()
    closed.close()

    for stream in (closed, Broken()):
        progress = Progress(stream, is_terminal=is_terminal)
        with progress.task("building"):
            progress.note("still building")


def test_a_stream_that_closes_meanwhile_fails_nothing():
    terminal = Terminal()
    progress = Progress(terminal)

    with progress.task("building"):
        terminal.close()
        time.sleep(0.2)  # rich draws twelve times a second, from a thread of its own

    progress.note("afterwards")


def test_a_letter_the_stream_cannot_spell_is_escaped():
    spelled = io.BytesIO()
    stream = io.TextIOWrapper(spelled, encoding="ascii")

    Progress(stream).note("é")

    assert spelled.getvalue() == b"\\xe9\n"


@pytest.mark.parametrize("stream", [object(), io.StringIO()])
def test_what_is_no_terminal_is_a_log(stream: object):
    if isinstance(stream, io.StringIO):
        stream.close()

    assert Progress(stream)._is_terminal is False  # type: ignore[arg-type]
