from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings

import pytest

from harness.errors import MissingLibrary
from harness.prepare.vendor_log import import_quietly, quiet_to


def test_every_way_of_printing_ends_in_the_log_and_not_on_the_terminal(tmp_path, capfd):
    log = tmp_path / "vendor.log"
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger("vendor").addHandler(handler)
    with quiet_to(log):
        print("from print")  # noqa: T201
        os.write(1, b"from descriptor 1\n")
        os.write(2, b"from descriptor 2\n")
        subprocess.run(["echo", "from a child"], check=True)
        warnings.warn("from a warning", stacklevel=1)
        logging.getLogger("vendor").error("from a handler")
        logging.error("from the root logger")
    logging.getLogger("vendor").removeHandler(handler)
    for source in ("print", "descriptor 1", "descriptor 2", "a child", "a warning", "a handler", "the root logger"):
        assert f"from {source}\n" in log.read_text()
    assert capfd.readouterr() == ("", "")


def test_it_works_where_only_pythons_streams_are_captured(tmp_path, capsys):
    with quiet_to(tmp_path / "vendor.log"):
        print("inside")  # noqa: T201
    print("outside")  # noqa: T201
    assert capsys.readouterr().out == "outside\n"


def test_streams_handlers_and_filters_are_as_before(tmp_path):
    def state():
        return sys.stdout, sys.stderr, os.fstat(1), os.fstat(2), logging.root.handlers[:], logging.root.level, warnings.filters[:]

    before = state()
    with quiet_to(tmp_path / "vendor.log"):
        logging.basicConfig(level=logging.DEBUG)
        logging.warning("installs a root handler where there is none")
    assert state() == before


def test_an_exception_passes_through_and_everything_is_restored(tmp_path):
    before = (sys.stdout, sys.stderr)
    with pytest.raises(ZeroDivisionError), quiet_to(tmp_path / "vendor.log"):
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == before


def test_a_handler_that_a_library_installs_meanwhile_follows_the_stream_of_its_time(tmp_path, capsys):
    logger = logging.getLogger("late vendor")
    with quiet_to(tmp_path / "vendor.log"):
        logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.error("afterwards")
    logger.handlers.clear()
    assert capsys.readouterr().err == "afterwards\n"


def test_a_second_use_appends(tmp_path):
    log = tmp_path / "vendor.log"
    for word in ("one", "two"):
        with quiet_to(log):
            print(word)  # noqa: T201
    assert log.read_text() == "one\ntwo\n"


def test_without_a_log_the_output_is_discarded(capfd):
    with quiet_to(None):
        os.write(1, b"nowhere\n")
    assert capfd.readouterr().out == ""


def test_a_library_that_is_not_there_is_named():
    with pytest.raises(MissingLibrary, match="needed to test"):
        import_quietly("no_such_library.part", to="test")
