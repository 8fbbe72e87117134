"""The real bindings call our allocator as its code expects: every request comes down to it, and nothing has to be a capsule."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from harness.backends import _tensorrt_library as library

HOUSE = Path(__file__).parents[2]

# The base class's methods call the virtual function, as TensorRT does, and that one finds ours.
ASK = """
import json
import warnings
from harness.backends import _tensorrt_library as library
from harness.backends._allocations import AllocationCounter
from harness.backends._gpu_allocator import new_allocator, why_no_allocator

class Blocks:
    def take(self, nbytes):
        return 4096 * nbytes
    def give_back(self, address):
        return True

trt = library.load()
assert why_no_allocator(trt) is None, why_no_allocator(trt)
counter = AllocationCounter()
ours, base = new_allocator(trt, counter, Blocks()), trt.IGpuAllocator
warnings.simplefilter("ignore")  # the old names are deprecated, and releases call them all the same
first = base.allocate(ours, 100, 256, 0)  # a capsule of the address that we gave
second = base.allocate_async(ours, 30, 256, 1, 7)
assert base.reallocate(ours, first, 256, 200) is None
assert base.allocate_async(ours, 0, 256, 0, 0) is None
assert base.deallocate(ours, first)
assert base.deallocate_async(ours, second, 7)
assert base.deallocate(ours, None)
(load,) = counter.reading().phases
print(json.dumps([load.runtime_bytes, load.held_bytes, load.requests, *counter.reading().troubles]))
"""


def test_every_request_of_the_real_bindings_is_counted(home: Path, release: str) -> None:
    env = {**os.environ, library.HOME: str(home), "LD_LIBRARY_PATH": str(home / "libs"), "PYTHONPATH": str(HOUSE)}
    ran = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, errors="replace", env=env, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [130, 0, 2]
