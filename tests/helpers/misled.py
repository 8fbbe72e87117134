"""A worker that takes itself to be on a GPU which is not there, as one is whose driver goes away once it was looked at."""

from __future__ import annotations

from typing import Any

from harness.workers.worker import Worker


def _begin_misled(channel, house, stderr):
    """Runs in the worker; execnet sends its source."""
    import os
    import sys

    descriptor = os.open(stderr, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 2)
    sys.path.insert(0, os.path.dirname(house))
    from tests.helpers.misled import serve_misled

    channel.send(["ready"])
    serve_misled(channel)


def serve_misled(channel: Any) -> None:
    """Serve, with an H100 in place of what a driver would say."""
    from harness.backends import tensorrt
    from harness.backends._cuda import Found
    from harness.records.machine import Gpu
    from harness.workers.serving import serve

    found = Found(gpu=Gpu(name="NVIDIA H100", sm="SM90", uuid="GPU-1"), cuda_major=13)
    tensorrt.find_gpu = lambda: found
    serve(channel)


class MisledWorker(Worker):
    """Builds and runs as if there were a GPU."""

    _begin = staticmethod(_begin_misled)
