"""Holds one worker process: starts it, asks it one thing at a time, and names what goes wrong with it."""

from __future__ import annotations

import atexit
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import execnet

import harness
from harness import errors
from harness.contracts import Say
from harness.errors import (
    ContextLost,
    EnginegateError,
    MissingLibrary,
    UnknownEnvironment,
    WorkerBabbled,
    WorkerDied,
    WorkerFailed,
    WorkerHung,
)

START_S = 60.0
# A worker that was told to go has nothing left to do; one that was killed is only collected.
_LEAVE_S = 5.0
_LAST_LINES = 12
_OLDEST_PYTHON = (3, 11)
_SAY_VERSION = "import sys; print(*sys.version_info[:2])"


def _begin_serving(channel, house, stderr):
    """Runs in the worker, which has nothing of ours yet; execnet sends its source. All it needs, it must import."""
    import importlib.util
    import os
    import sys

    # What the worker and its vendor's libraries say last is wanted when it dies.
    descriptor = os.open(stderr, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        if "harness" not in sys.modules:
            # The package alone, and not the folder it is in: that may hold another environment's libraries.
            spec = importlib.util.spec_from_file_location("harness", os.path.join(house, "__init__.py"), submodule_search_locations=[house])
            module = importlib.util.module_from_spec(spec)  # pyright: ignore[reportArgumentType]
            sys.modules["harness"] = module
            spec.loader.exec_module(module)  # pyright: ignore[reportOptionalMemberAccess]
        from harness.workers.serving import serve
    except ModuleNotFoundError as error:
        channel.send(["missing", error.name])
        return
    channel.send(["ready"])
    serve(channel)


class Worker:
    """One fresh process. Leaving the context ends it, whatever it does.

    Args:
        name: whom errors speak of, such as `baseline`.
        python: interpreter of another environment; None is this one.
        start_s: seconds until it must have answered its first question.
        library_path: folder of shared libraries that its loader must know from the start.
        gpu: UUID of the only GPU that CUDA shows to it; None leaves it those that this process sees.
        environ: variables that it has beside those of this process.

    Raises:
        UnknownEnvironment: `python` is not there, is no Python, or is too old.
        MissingLibrary: its environment lacks numpy.
        WorkerFailed: it died, hung or babbled while it started.
    """

    _begin = staticmethod(_begin_serving)

    def __init__(
        self,
        name: str,
        *,
        python: Path | None = None,
        start_s: float = START_S,
        library_path: Path | None = None,
        gpu: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._number = 0
        self._lost: str | None = None
        if python is not None:
            require_python(python)
        self._stderr = _temporary_file()
        started = time.perf_counter()
        # A group of its own, since execnet ends whole groups.
        self._group = execnet.Group()
        try:
            self._start(_gateway_spec(python, library_path, gpu, environ or {}), python, start_s)
            self.about: dict[str, Any] = self.ask("hello", timeout_s=start_s)
        except BaseException:
            self.close()
            raise
        self.start_ms = (time.perf_counter() - started) * 1e3

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def ask(self, verb: str, *, timeout_s: float, say: Say | None = None, **arguments: Any) -> Any:
        """Have the worker do something, and wait for its answer.

        Args:
            verb: a method of `serving.Desk`.
            timeout_s: seconds until it counts as hung, however much it says meanwhile.
            say: called with what it says before it answers.

        Raises:
            WorkerDied, WorkerHung, WorkerBabbled: and the process is gone.
            ContextLost: it can use its GPU no more, and the process is gone; so does every later call.
            EnginegateError: what the worker raised, as the same class; the process lives on.
        """
        if self._lost is not None:
            raise ContextLost(f"the {self.name} worker lost its CUDA context and is gone; start another one; it had said: {self._lost}")
        self._number += 1
        try:
            self._channel.send([self._number, verb, arguments])
        except OSError as error:
            raise self._died(verb) from error
        ends = time.monotonic() + timeout_s
        while True:
            answer = self._receive(verb, max(0.0, ends - time.monotonic()), of_s=timeout_s)
            match answer:
                case [self._number, "so far", str(words)]:
                    if say is not None:
                        say(words)
                case _:
                    return self._read_answer(verb, answer)

    def kill(self) -> None:
        """End the process now."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """Let the process go, by force if it does not."""
        with contextlib.suppress(OSError):
            self._group.terminate(timeout=_LEAVE_S)
        # The group is empty now. execnet offers no other way to be forgotten, and a long study would keep every worker it ever had.
        atexit.unregister(self._group._cleanup_atexit)
        self._stderr.unlink(missing_ok=True)

    def _start(self, spec: str, python: Path | None, start_s: float) -> None:
        self._gateway = _gateway(self._group, self.name, spec)
        self._channel = self._gateway.remote_exec(self._begin, house=str(Path(harness.__file__).parent), stderr=str(self._stderr))
        answer = self._receive("start", start_s)
        if isinstance(answer, list) and answer[:1] == ["missing"]:
            raise MissingLibrary(
                f"the {self.name} worker cannot start: {python or sys.executable} lacks {answer[1]}; "
                f"it needs numpy and its backend's library; install {answer[1]} there"
            )
        if answer != ["ready"]:
            raise self._babbled("start", answer)

    def _receive(self, verb: str, timeout_s: float, *, of_s: float | None = None) -> Any:
        try:
            return self._channel.receive(timeout_s)
        except self._channel.TimeoutError as error:
            self.kill()
            raise WorkerHung(
                f"the {self.name} worker did not answer '{verb}' within {of_s or timeout_s:g} s and was killed; "
                f"give it more time, or look at its engine{self._last_words()}"
            ) from error
        except EOFError as error:
            raise self._died(verb) from error
        except self._channel.RemoteError as error:
            self.kill()
            raise WorkerFailed(f"the {self.name} worker failed at '{verb}': {_last_lines(str(error))}{self._last_words()}") from error

    def _read_answer(self, verb: str, answer: Any) -> Any:
        match answer:
            case [self._number, "ok", value]:
                return value
            case [self._number, "error", str(kind), str(words)]:
                raise self._as_raised(kind, words)
        raise self._babbled(verb, answer)

    def _as_raised(self, kind: str, words: str) -> EnginegateError:
        found = getattr(errors, kind, WorkerFailed)
        message = words if words.startswith(self.name) else f"{self.name}: {words}"
        if issubclass(found, ContextLost):
            self._lost = message
            self.kill()  # or whatever it is asked next would be told of a machine that lacks something
        return found(message + self._last_words() if found is WorkerFailed else message)

    def _died(self, verb: str) -> WorkerFailed:
        status = self._exit_status()
        if status is None:
            self.kill()
            return self._babbled(verb, "bytes that are no message")
        return WorkerDied(f"the {self.name} worker {_how(status)} at '{verb}'; expected an answer{self._last_words()}")

    def _babbled(self, verb: str, answer: Any) -> WorkerBabbled:
        self.kill()
        return WorkerBabbled(f"the {self.name} worker answered '{verb}' with {str(answer)[:200]!r}; expected an answer{self._last_words()}")

    def _exit_status(self) -> int | None:
        """How the process ended; None when it has not."""
        process = self._process
        try:
            return process.wait(_LEAVE_S) if process is not None else 0
        except subprocess.TimeoutExpired:
            return None

    @property
    def _process(self) -> subprocess.Popen[bytes] | None:
        # execnet says neither how a process ended nor kills just one; the process behind its pipe does both.
        gateway = getattr(self, "_gateway", None)
        return None if gateway is None else gateway._io.popen

    def _last_words(self) -> str:
        try:
            lines = _last_lines(self._stderr.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            return ""
        return f"; its last words:\n{lines}" if lines else ""


def require_python(python: Path, *, timeout_s: float = START_S) -> tuple[int, int]:
    """Version of the interpreter at `python`.

    Raises:
        UnknownEnvironment: it is not there, is no Python, is too old, or prints while it starts.
    """
    return _python_version(os.path.abspath(python), timeout_s)  # not resolved: the link is what makes a virtual environment


@lru_cache
def _python_version(python: str, timeout_s: float) -> tuple[int, int]:
    expected = "expected the path of a Python 3.11 or newer, such as ENV/bin/python"
    try:
        ran = subprocess.run([python, "-c", _SAY_VERSION], stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise UnknownEnvironment(f"{python} did not start within {timeout_s:g} s; {expected}") from error
    except OSError as error:
        raise UnknownEnvironment(f"{python} cannot be started ({error.strerror}); {expected}") from error
    words = ran.stdout.decode("utf-8", errors="replace").split()
    if ran.returncode != 0 or len(words) != 2 or not all(word.isdecimal() for word in words):
        said = ran.stdout.decode("utf-8", errors="replace").strip() or _last_lines(ran.stderr.decode("utf-8", errors="replace"))
        raise UnknownEnvironment(f"{python} is no Python, or prints while it starts: it said {said[:200]!r}; {expected}")
    version = int(words[0]), int(words[1])
    if version < _OLDEST_PYTHON:
        raise UnknownEnvironment(f"{python} is Python {version[0]}.{version[1]}; {expected}")
    return version


def _gateway_spec(python: Path | None, library_path: Path | None, gpu: str | None, environ: Mapping[str, str]) -> str:
    spec = "popen//execmodel=main_thread_only"
    if library_path is not None:
        # A loader reads this when its process starts, and never again.
        folders = os.pathsep.join(filter(None, [str(library_path), os.environ.get("LD_LIBRARY_PATH")]))
        setting = shlex.quote(f"LD_LIBRARY_PATH={folders}")
        spec += f"//python=env {setting} {shlex.quote(os.path.abspath(python or sys.executable))}"
    elif python is not None:
        spec += f"//python={shlex.quote(os.path.abspath(python))}"
    # Set before any of our code runs there, and so before CUDA starts and reads it.
    shown = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    return "//".join((spec, *(f"env:{name}={value}" for name, value in {**environ, **shown}.items())))


def _gateway(group: execnet.Group, name: str, spec: str) -> execnet.Gateway:
    try:
        return group.makegateway(spec)
    # execnet asserts that the first byte is its own, and meets closed pipes where nothing starts.
    except (AssertionError, EOFError, OSError) as error:
        raise WorkerDied(f"the {name} worker did not start ({type(error).__name__}: {error})") from error


def _temporary_file() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="enginegate-worker-", suffix=".log")
    os.close(descriptor)
    return Path(name)


def _how(status: int) -> str:
    if status >= 0:
        return f"ended by itself with exit status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:])
