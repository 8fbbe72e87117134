"""An engine's layers as text: block by block, a line a layer, with the ONNX nodes that it carries."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile

from harness.records.engine_nodes import EngineLayers, EngineNode, OperandTypes, RealisedType
from harness.report.words import many, plain

_WIDTH = 140
_WIDTHS = (6, 15, 24, 38)  # realised, kind, types, kernel; the nodes take what is left
_HEADINGS = ("type", "kind", "reads -> writes", "kernel", "ONNX nodes, fused with each other")
_WORDS: tuple[RealisedType, ...] = (RealisedType.FP8, RealisedType.MIXED, RealisedType.HALF, RealisedType.UNSEEN)
# Nodes that are counted rather than named, unless every node is asked for: they do not compute, and there are many.
_COUNTED = frozenset({"Cast", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
# Nodes that no layer should lose: they are named even where the rest is counted.
_NEVER_LOST = frozenset({"Conv", "DequantizeLinear", "Gemm", "MatMul", "QuantizeLinear", "Softmax"})
_SHOWN = 4
_TAIL = 8
_UNBROKEN = "\u00a0"  # keeps a count beside what it counts


@dataclass(frozen=True, slots=True)
class _Line:
    """One layer's share of a group; the kernel's name is no part of what makes two blocks alike."""

    realised: str
    kind: str
    types: str
    nodes: str


@dataclass(frozen=True, slots=True)
class _Group:
    title: str
    prefix: str
    lines: tuple[_Line, ...]
    layers: tuple[int, ...]
    kernels: tuple[str, ...]


def layers_text(record: EngineLayers, *, every: bool = False) -> str:
    """The table, at most 140 columns wide, without a last newline.

    Args:
        record: the engine.
        every: name every node and show every block, also those that equal one before.
    """
    groups = list(_groups(record, every))
    body = [line for group in groups if group.lines for line in ("", *_printed(group))]
    head = (*_title(record), _tally(record.nodes), "", _columns(_HEADINGS))
    return "\n".join([*head, *body, *_rest(record, every)])


def _title(record: EngineLayers) -> Iterator[str]:
    yield from _wrapped(plain(" ".join(filter(None, (record.encoder, record.engine, record.file)))))
    blocks = "" if record.blocks is None else f", {many(record.blocks, 'block')}"
    yield f"{record.source}: {many(len(record.rows), 'layer')}{blocks}"


def _tally(nodes: Sequence[EngineNode]) -> str:
    counts = Counter(node.realised for node in nodes)
    return f"{many(len(nodes), 'ONNX node')}: " + ", ".join(f"{counts[word]} {word}" for word in _WORDS)


def _groups(record: EngineLayers, every: bool) -> Iterator[_Group]:
    seen = [node for node in record.nodes if node.layer is not None]
    blocks = sorted({node.block for node in seen if node.block is not None})
    if not blocks:
        yield _group(record, "all layers, in engine order", seen, every)
        return
    first = min((node.layer or 0 for node in seen if node.block is not None), default=0)
    outside = [node for node in seen if node.block is None]
    yield _group(record, "before the blocks", [node for node in outside if (node.layer or 0) < first], every)
    by_block = {block: _group(record, f"block {block}", [node for node in seen if node.block == block], every) for block in blocks}
    yield from by_block.values() if every else _folded(by_block)
    yield _group(record, "after the blocks", [node for node in outside if (node.layer or 0) >= first], every)


def _folded(by_block: Mapping[int, _Group]) -> Iterator[_Group]:
    """Blocks with the same lines once, under the first of them."""
    alike: dict[tuple[_Line, ...], list[int]] = {}
    for block, group in by_block.items():
        alike.setdefault(group.lines, []).append(block)
    for first, *others in alike.values():
        group = by_block[first]
        yield replace(group, title=f"{group.title}, and {_ranges(others)} alike") if others else group


def _group(record: EngineLayers, title: str, nodes: Sequence[EngineNode], every: bool) -> _Group:
    prefix = _prefix([node.node for node in nodes])
    lines: list[_Line] = []
    layers: list[int] = []
    for layer, members in groupby(sorted(nodes, key=lambda node: node.layer or 0), key=lambda node: node.layer or 0):
        carried = list(members)
        for word in _WORDS:
            same = [node for node in carried if node.realised == word]
            if same:
                lines.append(_Line(word, carried[0].kind or "", _types(carried[0].operands), _named(same, prefix, every)))
                layers.append(layer)
    return _Group(title, prefix, tuple(lines), tuple(layers), tuple(_kernel(record, layer) for layer in layers))


def _named(nodes: Sequence[EngineNode], prefix: str, every: bool) -> str:
    names = [node.node.removeprefix(prefix) for node in nodes if every or node.op_type not in _COUNTED]
    if nodes[0].block is None:  # so the folder that they share is not in the group's title
        folder = _prefix(names)
        names = [name.removeprefix(folder) for name in names]
    else:
        folder = ""
    if not every and all(node.op_type is None for node in nodes) and len(names) > _SHOWN:
        names = [*names[:_SHOWN], f"and{_UNBROKEN}{len(names) - _SHOWN}{_UNBROKEN}more"]
    counted = Counter(node.op_type or "" for node in nodes if not every and node.op_type in _COUNTED)
    words = [*map(_unbroken, names), *(f"{count}{_UNBROKEN}{op_type}" for op_type, count in counted.items())]
    return f"{_unbroken(folder)}: {', '.join(words)}" if folder and len(names) > 1 else folder + ", ".join(words)


def _unbroken(name: str) -> str:
    return plain(name).replace(" ", _UNBROKEN)


def _types(operands: OperandTypes | None) -> str:
    """`FP8 x FP8 -> Half` for a product with weights, `3 Half -> FP8` for other layers."""
    if operands is None:
        return ""
    reads = _counted(operands.inputs) + (f" x {operands.weights}" if operands.weights else "")
    return plain(f"{reads} -> {_counted(operands.outputs)}")


def _counted(words: Iterable[str]) -> str:
    counts = Counter(words)
    return ", ".join(word if count == 1 else f"{count} {word}" for word, count in counts.items()) or "nothing"


def _kernel(record: EngineLayers, layer: int) -> str:
    """The name of a library's kernel where the source tells it; of a generated one (its tactic ends in a hash), the layer's."""
    row = record.rows[layer]
    is_told = row.tactic and "STUB" not in row.tactic and "_0x" not in row.tactic
    return plain(row.tactic if is_told else row.name)


def _printed(group: _Group) -> Iterator[str]:
    yield from _wrapped(group.title + (f": {plain(group.prefix)}" if group.prefix else ""))
    room = _WIDTH - len(_columns(("", "", "", "", "|"))) + 1
    before = None
    for line, layer, kernel in zip(group.lines, group.layers, group.kernels, strict=True):
        first, *more = textwrap.wrap(line.nodes, room, break_on_hyphens=False) or [""]
        is_same = layer == before
        before = layer
        yield _columns((line.realised, *(("", "", "") if is_same else (line.kind, line.types, kernel)), first))
        yield from (_columns(("", "", "", "", nodes)) for nodes in more)


def _columns(cells: Sequence[str]) -> str:
    *fixed, last = cells
    return "  " + "  ".join((*(_cut(cell, width).ljust(width) for cell, width in zip(fixed, _WIDTHS, strict=True)), last)).rstrip().replace(
        _UNBROKEN, " "
    )


def _cut(text: str, width: int) -> str:
    """The text without a part of its second half where it is too long: kernels differ at their start, and in the number at their end."""
    return text if len(text) <= width else f"{text[: width - _TAIL - 2]}..{text[-_TAIL:]}"


def _rest(record: EngineLayers, every: bool) -> Iterator[str]:
    """Nodes that no layer names, and layers that carry no node."""
    unseen = [node for node in record.nodes if node.realised == "unseen"]
    named = [plain(node.node) for node in unseen if every or node.op_type in _NEVER_LOST]
    counted = Counter(node.op_type or "" for node in unseen if not (every or node.op_type in _NEVER_LOST))
    words = ", ".join((*named, *(f"{count} {op_type}" for op_type, count in counted.most_common())))
    if words:
        yield ""
        yield from _wrapped(f"named by no layer: {words}")
    empty = Counter(row.kind for row in record.rows if not row.onnx_nodes)
    if empty:
        yield from ("", *_wrapped("layers that name no ONNX node: " + ", ".join(f"{count} {plain(kind)}" for kind, count in empty.items())))


def _prefix(names: Sequence[str]) -> str:
    """The folder that all names share, with its slash; nothing where they share none."""
    folders = [name.split("/")[:-1] for name in names]
    shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    return "".join(f"{parts[0]}/" for parts in shared)


def _ranges(numbers: Iterable[int]) -> str:
    """`2 to 5, 7` from 2, 3, 4, 5, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False) or [""]
