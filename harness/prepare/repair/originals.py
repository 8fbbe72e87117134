"""The weights before quantization, for repairs that need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.errors import BuildFailed

if TYPE_CHECKING:
    from onnx import NodeProto

Originals = Mapping[str, NDArray[np.generic]]  # the encoder's float16 weights by parameter name


def original_of(node: NodeProto, originals: Originals, *, shape: tuple[int, ...]) -> tuple[str, NDArray[np.generic]]:
    """Parameter name and values of the weight that a product or Gather computes with.

    Raises:
        BuildFailed: there is none of that name and shape.
    """
    # The exporter names a node after the module that made it: /tower/conv1/Conv is the module tower.conv1.
    name = node.name.strip("/").rpartition("/")[0].replace("/", ".") + ".weight"
    if name in originals and originals[name].shape == shape:
        return name, originals[name]
    found = f"shape {list(originals[name].shape)}" if name in originals else "nothing"
    raise BuildFailed(
        f"the weight of {node.name!r} has to be put back, and its original {name!r} is not to be had: found {found}, "
        f"expected shape {list(shape)}; the exporter names its nodes differently than Model Optimizer 0.47 does"
    )
