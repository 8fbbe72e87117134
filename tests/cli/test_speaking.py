"""What every command says to a reader who stops before the end, as `head` does."""

import subprocess
import sys

import pytest


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def buffering(request) -> str:
    """Python's own variable: output that waits in a buffer meets the closed pipe at another place."""
    return request.param


def first_line(gate, arguments: str, buffering: str) -> tuple[int, str, str]:
    """Exit code of the command, the one line that its reader took, and what it said on stderr."""
    command = f"{sys.executable} -m harness {arguments} | head -1; exit ${{PIPESTATUS[0]}}"
    environment = {**gate.environment, "PYTHONUNBUFFERED": buffering}
    done = subprocess.run(
        ["bash", "-c", command], cwd=gate.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("arguments", ["doctor", "doctor --json", "gate --list", "gate --help"])
def test_a_reader_who_has_seen_enough_does_no_harm(gate, arguments, buffering):
    code, line, complaint = first_line(gate, arguments, buffering)

    assert (code, complaint) == (0, "")
    assert line.count("\n") == 1


def test_a_run_that_nobody_reads_to_its_end_decides_nothing_and_says_so_in_one_line(gate, buffering):
    code, _, complaint = first_line(gate, "gate -m graph", buffering)

    assert code == 4
    assert complaint.count("\n") == 1
    assert "stopped before the run had ended" in complaint
