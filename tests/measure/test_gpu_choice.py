"""A GPU is named by UUID or place, and settled before CUDA starts."""

from __future__ import annotations

import pynvml
import pytest

from harness.errors import UnknownName, UsageError
from harness.measure.gpu_choice import VISIBLE, chosen_gpus, gpu_of_worker, gpus_here, require_enough, use_gpu

A, B, C = "GPU-aaaa1111-0000", "GPU-bbbb2222-0000", "GPU-bbbb3333-0000"


class Nvml:
    """Three boards, or none."""

    NVMLError = pynvml.NVMLError

    def __init__(self, uuids=(A, B, C), starts=True):
        self._uuids, self._starts = uuids, starts

    def nvmlInit(self):
        if not self._starts:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    def nvmlShutdown(self):
        pass

    def nvmlDeviceGetCount(self):
        return len(self._uuids)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetUUID(self, handle):
        return self._uuids[handle]


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, (A, B, C)),
        ("1", (B,)),
        ("2,0", (C, A)),
        (f"{B},{A}", (B, A)),
        ("GPU-aaaa", (A,)),
        ("GPU-bbbb", ()),  # two begin so
        ("1,9,0", (B,)),  # CUDA stops at the first that it does not know
        ("", ()),
        ("MIG-1234", ("MIG-1234",)),
    ],
)
def test_what_a_scheduler_made_visible_is_what_is_here(visible, found):
    environ = {} if visible is None else {VISIBLE: visible}
    assert gpus_here(environ, Nvml()) == found


def test_without_a_driver_there_is_none():
    assert gpus_here({}, Nvml(starts=False)) == ()


@pytest.mark.parametrize(("names", "found"), [([], (A, B, C)), (["1"], (B,)), ([C, "0", C], (C, A)), (["gpu-AAAA"], (A,))])
def test_gpus_are_named_by_place_uuid_or_the_beginning_of_one(names, found):
    assert chosen_gpus(names, (A, B, C)) == found


@pytest.mark.parametrize("name", ["3", "GPU-bbbb", "GPU-cccc", "first"])
def test_one_that_is_not_here_is_refused_with_those_that_are(name):
    with pytest.raises(UnknownName, match=f"--gpu {name} is none.*0: {A}, 1: {B}"):
        chosen_gpus([name], (A, B, C))


def test_the_chosen_one_alone_is_shown_to_cuda_in_the_order_of_slots():
    environ = {VISIBLE: "0,1,2"}
    use_gpu(B, environ)
    assert environ == {VISIBLE: B, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_processes_share_no_gpu():
    assert [gpu_of_worker((A, B), worker) for worker in (0, 1)] == [A, B]
    with pytest.raises(UsageError, match="run with -n 2"):
        gpu_of_worker((A, B), 2)
    with pytest.raises(UsageError, match="3 processes want a GPU each and 2 are here"):
        require_enough((A, B), 3)
