"""Refuses ONNX graphs in which a node waits for its own result: no walk through one would end."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from harness.errors import UnusableGraph


def require_acyclic(graph: Any, path: Path) -> None:
    """Raise when some node can never be computed, in whatever order.

    What no node makes counts as given: that a graph is torn is another check's finding.

    Raises:
        UnusableGraph: names the first node that waits for itself or for one that does.
    """
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    waits = [{makers[name] for name in node.input if name in makers} for node in graph.node]
    readers: defaultdict[int, list[int]] = defaultdict(list)
    for index, others in enumerate(waits):
        for other in others:
            readers[other].append(index)
    ready = [index for index, others in enumerate(waits) if not others]
    left = [len(others) for others in waits]
    for index in ready:  # it grows as it is read
        for reader in readers[index]:
            left[reader] -= 1
            if not left[reader]:
                ready.append(reader)
    stuck = next((node for node, count in zip(graph.node, left, strict=True) if count), None)
    if stuck is not None:
        raise UnusableGraph(
            f"{path}: node {stuck.name!r} ({stuck.op_type}) waits for its own result ({sum(map(bool, left))} such nodes); "
            "expected a graph without cycles; export it again"
        )
