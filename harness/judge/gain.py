"""Lays the times of two engines side by side: by kind of work, by block, and by the ONNX nodes that are one piece in both."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from harness.judge.layer_costs import NOWHERE, LayerCost, layer_costs, place_order
from harness.judge.structure import MOVES, PRODUCTS, QDQ
from harness.records.engine_nodes import EngineNode
from harness.records.explanation import Difference, Explanation, Side, Spent, Work
from harness.records.profile import EngineProfile

# Whose operations the graph knows.
_COUNTED = frozenset({Work.FP8_GEMM, Work.FP16_GEMM, Work.ATTENTION})
_GEMMS = frozenset({Work.FP8_GEMM, Work.FP16_GEMM})
_WORDS_IN_NAME = 4
_NO_PART = "layers that name no node"
_UNTOLD = 0.005  # of the slower engine's time: what is less is not worth a word

Key = TypeVar("Key", bound=Hashable)


def explain(a: EngineProfile, b: EngineProfile) -> Explanation:
    """Where the time of both goes and where it differs. Nothing is dropped: every list adds up to the sum of the layers."""
    costs = layer_costs(a), layer_costs(b)
    pieces = tuple(tuple(_pieces(one)) for one in costs)
    by_work = _differences(pieces, lambda piece: piece.cost.work, sorted(Work, key=list(Work).index))
    by_place = _differences(pieces, lambda piece: piece.place, sorted(_places(pieces), key=place_order))
    pairs = [(place, work) for place in sorted(_places(pieces), key=place_order) for work in Work]
    sides = tuple(_side(profile, one) for profile, one in zip((a, b), costs, strict=True))
    return Explanation(
        a=sides[0],
        b=sides[1],
        in_turns=a.run == b.run,
        by_work=by_work,
        by_place=by_place,
        by_place_and_work=_differences(pieces, lambda piece: (piece.place, piece.cost.work), pairs, name=lambda key: f"{key[0]}: {key[1]}"),
        parts=_parts((a, b), costs),
        sentence=_sentence(sides, by_work),
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """A layer's share in one place."""

    cost: LayerCost
    place: str
    share: float


def _pieces(costs: Iterable[LayerCost]) -> Iterator[_Piece]:
    for cost in costs:
        yield from (_Piece(cost, place, share) for place, share in cost.places.items())


def _places(pieces: Iterable[Sequence[_Piece]]) -> set[str]:
    return {piece.place for one in pieces for piece in one}


def _differences(
    pieces: Sequence[Sequence[_Piece]], key: Callable[[_Piece], Key], order: Iterable[Key], *, name: Callable[[Key], str] = str
) -> tuple[Difference, ...]:
    a, b = (_grouped(one, key) for one in pieces)
    return tuple(
        Difference(name=name(each), a=_spent(a.get(each, ())), b=_spent(b.get(each, ()))) for each in order if each in a or each in b
    )


def _grouped(pieces: Iterable[_Piece], key: Callable[[_Piece], Key]) -> Mapping[Key, list[_Piece]]:
    found: defaultdict[Key, list[_Piece]] = defaultdict(list)
    for piece in pieces:
        found[key(piece)].append(piece)
    return found


def _spent(pieces: Sequence[_Piece]) -> Spent:
    ms = sum(piece.cost.ms * piece.share for piece in pieces)
    counted = [piece for piece in pieces if piece.cost.work in _COUNTED and piece.cost.flops]
    counted_ms = sum(piece.cost.ms * piece.share for piece in counted)
    flops = sum(piece.cost.flops * piece.share for piece in counted)
    sizes = [None if piece.cost.nbytes is None else piece.cost.nbytes * piece.share for piece in pieces if piece.cost.ms > 0]
    nbytes = None if None in sizes else sum(size for size in sizes if size is not None)
    return Spent(
        ms=ms,
        layers=len(pieces),
        tflops=flops / counted_ms / 1e9 if counted_ms else None,
        gbps=nbytes / ms / 1e6 if nbytes and ms else None,
    )


# -- parts -------------------------------------------------------------------------------------------------------------------------


def _parts(profiles: Sequence[EngineProfile], costs: Sequence[Sequence[LayerCost]]) -> tuple[Difference, ...]:
    """Nodes that one layer carries in either engine are one piece; pieces of blocks that are alike are told together, `*` for the block.

    A layer that carries no node, since it only prepares or finishes what another one computes, goes with the first node that it names.
    """
    pieces = _Sets(node.node for profile in profiles for node in profile.nodes)
    for one in costs:
        for cost in one:
            pieces.unite(cost.nodes)
    rows: defaultdict[str, tuple[list[_Piece], list[_Piece]]] = defaultdict(lambda: ([], []))
    members: defaultdict[str, set[str | None]] = defaultdict(set)
    names = _names_of_parts(profiles, pieces)
    for side, one in enumerate(costs):
        for cost in one:
            anchor = _anchor(cost)
            piece = pieces.of(anchor) if anchor is not None else None
            name = _NO_PART if piece is None else names[piece]
            rows[name][side].append(_Piece(cost, NOWHERE, 1.0))
            members[name].add(piece)
    found = [Difference(name=name, a=_spent(a), b=_spent(b), count=len(members[name])) for name, (a, b) in rows.items()]
    return tuple(sorted(found, key=lambda one: -abs(one.more_ms)))


def _anchor(cost: LayerCost) -> str | None:
    named = cost.row.onnx_nodes if cost.row is not None else ()
    return next(iter((*cost.nodes, *named)), None)


class _Sets:
    """Names that belong together, found by any of them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._above = {name: name for name in names}

    def of(self, name: str) -> str:
        while self._above[name] != name:
            self._above[name] = name = self._above[self._above[name]]
        return name

    def unite(self, names: Sequence[str]) -> None:
        for name in names[1:]:
            self._above[self.of(name)] = self.of(names[0])

    def all(self) -> Mapping[str, list[str]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for name in self._above:
            found[self.of(name)].append(name)
        return found


def _names_of_parts(profiles: Sequence[EngineProfile], pieces: _Sets) -> Mapping[str, str]:
    """Each piece by what it computes: its products first, and without nodes that only move or retype."""
    nodes = {node.node: node for profile in reversed(profiles) for node in profile.nodes}
    names: dict[str, str] = {}
    for piece, members in pieces.all().items():
        telling = [name for name in members if nodes[name].op_type not in MOVES | QDQ | {"Constant"}] or members
        telling.sort(key=lambda name: nodes[name].op_type not in PRODUCTS)
        names[piece] = _joined(list(dict.fromkeys(_without_number(nodes[name]) for name in telling)))
    return names


def _without_number(node: EngineNode) -> str:
    """`*/mlp/c_fc/MatMul` from `resblocks.7/mlp/c_fc/MatMul`: from the first number on that is the block's own.

    Of nodes that the graph does not know, such as a runtime's own `MatMul_12` for one without a name, no number tells anything.
    """
    if node.block is not None:
        return re.sub(rf"^.*?(?<!\d){node.block}(?!\d)", "*", node.node, count=1)
    return node.node if node.op_type is not None else re.sub(r"\d+", "#", node.node)


def _joined(names: Sequence[str]) -> str:
    folders = [name.split("/")[:-1] for name in names]
    depth = 0
    while all(len(parts) > depth for parts in folders) and len({parts[depth] for parts in folders}) == 1:
        depth += 1
    folder = "".join(f"{part}/" for part in folders[0][:depth])
    short = [name.removeprefix(folder) for name in names]
    rest = f" and {len(short) - _WORDS_IN_NAME} more" if len(short) > _WORDS_IN_NAME else ""
    return f"{folder}{', '.join(short[:_WORDS_IN_NAME])}{rest}"


# -- in words ----------------------------------------------------------------------------------------------------------------------


def _side(profile: EngineProfile, costs: Sequence[LayerCost]) -> Side:
    times = profile.times
    return Side(
        engine=profile.engine,
        backend_version=profile.backend_version,
        device=profile.device,
        rows=times.rows,
        layers=len(costs),
        launches=times.launches,
        layers_ms=sum(cost.ms for cost in costs),
        launch_ms=median(times.launch_ms),
        launched=times.launched,
        clock=times.clock,
        shared_ms=sum(cost.ms for cost in costs if len(cost.places) > 1),
        unplaced_ms=sum(cost.ms for cost in costs if NOWHERE in cost.places),
        unmatched=tuple(cost.name for cost in costs if cost.row is None),
        sm_clock_mhz=(min(times.sm_clock_mhz), max(times.sm_clock_mhz)) if times.sm_clock_mhz else None,
        guard=profile.guard,
        ceilings=profile.ceilings,
        notes=profile.notes,
    )


def _sentence(sides: Sequence[Side], by_work: Sequence[Difference]) -> str:
    a, b = sides
    words = f"B takes {b.launch_ms:.4g} ms a launch and A {a.launch_ms:.4g}: B is {a.launch_ms / b.launch_ms:.3f} times as fast"
    gemms = sum(one.more_ms for one in by_work if one.name in _GEMMS)
    more = [("GEMM", gemms), *((one.name, one.more_ms) for one in by_work if one.name not in _GEMMS)]
    least = _UNTOLD * max(a.layers_ms, b.layers_ms)
    telling = sorted((one for one in more if abs(one[1]) > least), key=lambda one: one[1])
    told = [f"{abs(ms):.3g} ms {'less' if ms < 0 else 'more'} in {name}" for name, ms in telling]
    return f"{words}. By layers: {', '.join(told) or 'no kind of work differs'}."
