"""What vendor libraries print goes to a file, not to the terminal of whoever runs a gate."""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from harness.need import need


@contextmanager
def quiet_to(log: Path | None) -> Iterator[None]:
    """Append everything written to standard output and error to `log`; None discards it.

    Covers Python's streams, file descriptors 1 and 2 (native libraries write there), warnings, and logging handlers that
    write to the terminal. The whole process is concerned, other threads too. Exceptions pass through, and everything is as
    it was afterwards, except that a handler which a library installed meanwhile now follows the current stream.
    """
    target = Path(os.devnull) if log is None else log
    with target.open("a", encoding="utf-8", errors="backslashreplace") as stream, _descriptors_to(stream), _python_to(stream):
        yield


def import_quietly(module: str, *, to: str) -> ModuleType:
    """Import `module` without the warnings it raises while it loads, which its own users cannot mend.

    Raises:
        MissingLibrary: it is not installed, or does not load.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        need(module.partition(".")[0], extra=None, to=to)
        return importlib.import_module(module)


@contextmanager
def _descriptors_to(stream: TextIO) -> Iterator[None]:
    _flush_everything()
    saved = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2)]
    try:
        for descriptor, _ in saved:
            os.dup2(stream.fileno(), descriptor)
        yield
    finally:
        _flush_everything()
        for descriptor, copy in saved:
            os.dup2(copy, descriptor)
            os.close(copy)


@contextmanager
def _python_to(stream: TextIO) -> Iterator[None]:
    outer = (sys.stdout, sys.stderr)
    root_handlers, root_level = logging.root.handlers[:], logging.root.level
    swapped = _repoint_handlers(outer, stream)
    # open_clip logs to the root logger, whose handlers may be the host's own and write nowhere near the terminal.
    logging.root.addHandler(logging.StreamHandler(stream))
    sys.stdout = sys.stderr = stream
    try:
        with _warnings_to(stream):
            yield
    finally:
        stream.flush()
        sys.stdout, sys.stderr = outer
        logging.root.handlers[:] = root_handlers
        logging.root.setLevel(root_level)
        for handler, before in swapped:
            handler.setStream(before)
        _repoint_handlers((stream,), _CurrentStandardError())


@contextmanager
def _warnings_to(stream: TextIO) -> Iterator[None]:
    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        stream.write(warnings.formatwarning(message, category, filename, lineno))

    with warnings.catch_warnings():
        # A host that turns warnings into errors means its own code; a vendor's deprecation must not stop an export.
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield


class _CurrentStandardError:
    """A stream that is whatever `sys.stderr` is when it is written to."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _repoint_handlers(streams: tuple[object, ...], target: Any) -> list[tuple[logging.StreamHandler[Any], Any]]:
    """Make every handler that writes to one of `streams` write to `target`; returns what each wrote to."""
    named = (logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger))
    handlers = {handler for logger in (logging.root, *named) for handler in logger.handlers}
    terminals = [handler for handler in handlers if isinstance(handler, logging.StreamHandler) and handler.stream in streams]
    before = [(handler, handler.stream) for handler in terminals]
    for handler in terminals:
        handler.setStream(target)
    return before


def _flush_everything() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(ValueError, AttributeError):  # a closed stream, or none at all under pythonw
            stream.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)  # the C library's own buffers, which would otherwise reach the restored terminal
