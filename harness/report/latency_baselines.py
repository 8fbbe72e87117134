"""Latency baselines and what was decided about them, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.records.latency_baseline import LatencyKey, TimedEngine
from harness.records.latency_decisions import BaselineDecision, BaselineDiff, BaselineList, BaselineTrim, ChainLink, Moved
from harness.records.verdict import Status
from harness.report.latency import latency_text


def list_text(found: BaselineList) -> str:
    """A line for the latest record of each chain, and one for each file that asks for approval."""
    lines = [_chain_line(chain) for chain in found.chains] or ["no latency baseline"]
    lines += [f"pending: {path}: {_engine(timed.key)}, {_pace(timed)}" for path, timed in found.pending.items()]
    return "\n".join(lines)


def chain_text(found: BaselineList) -> str:
    """Every record of each chain, with what it was shown to be no slower than."""
    return "\n".join(line for chain in found.chains for line in _chain_lines(chain))


def diff_text(diff: BaselineDiff) -> str:
    """The figures of the approved record beside those of the pending one."""
    lines = [_engine(diff.key)]
    if diff.is_first:
        lines.append("nothing is approved under this key yet")
        lines += [f"  there is one for {'; '.join(differences)}" for differences in diff.differences]
    width = max(len(moved.name) for moved in diff.moved)
    for moved in diff.moved:
        shown = _figure(moved.pending) if diff.is_first else f"{_figure(moved.approved)} -> {_figure(moved.pending)}{_change(moved)}"
        lines.append(f"  {moved.name:<{width}}  {shown}")
    if not diff.is_first:
        lines.append("times of two sessions prove nothing: accept times both engines side by side")
    return "\n".join(lines)


def decision_text(decision: BaselineDecision) -> str:
    """What was decided and what it rests on."""
    verb = {"accept": "accepted", "reject": "rejected"}[decision.verb]
    if decision.status is Status.PASS:
        lines = [f"{verb}: {_engine(decision.key)}: {decision.reason}"]
    else:
        lines = [f"not {verb}: {_engine(decision.key)}: {decision.reason}"]
    for name, judged in decision.beside.items():
        lines += [f"beside the {'engine approved last' if name == 'previous' else 'anchor'}:", *_indented(latency_text(judged))]
    lines += [f"{_not_shown(name)}: {why}" for name, why in decision.lost.items()]
    if decision.verb == "accept" and not decision.beside and not decision.lost:
        lines.append(f"the first of its key: nothing was timed beside it; what stands for it is its session on {decision.key.machine}")
    if decision.file is not None:
        lines.append(f"{decision.file}{'; review and commit it' if decision.verb == 'accept' else ''}")
    return "\n".join(lines)


def trim_text(trim: BaselineTrim) -> str:
    """What nothing asks for."""
    verb = "removed" if trim.is_removed else "would be removed"
    return "\n".join(f"{verb}: {_engine(key)} in {key.path}" for key in trim.removed) or "nothing to remove"


def _chain_line(chain: Sequence[ChainLink]) -> str:
    latest = chain[-1]
    timed, approval = latest.record.timed, latest.record.approval
    count = f"{len(chain)} record{'' if len(chain) == 1 else 's'}"
    return (
        f"{_engine(timed.key)}, {_pace(timed)}; {count}, the last by {approval.who} on {approval.when[:10]}: {approval.reason}; "
        f"engine {timed.engine.sha256[:16]} {latest.blob}"
    )


def _chain_lines(chain: Sequence[ChainLink]) -> Iterator[str]:
    key = chain[0].record.timed.key
    yield _engine(key)
    yield f"  on {key.machine}{f', driver {key.driver}' if key.driver else ''}; weights {key.weights}, batch {key.batch}"
    yield f"  {key.rows} rows a launch, {key.threads} thread, protocol {key.protocol}"
    yield f"  {key.path}"
    for number, link in enumerate(chain, start=1):
        yield from _link_lines(number, link)


def _link_lines(number: int, link: ChainLink) -> Iterator[str]:
    timed, approval = link.record.timed, link.record.approval
    roles = [word for word, holds in (("latest", link.is_latest), ("anchor", link.is_anchor)) if holds]
    release = [f"release {approval.release}"] if approval.release else []
    yield f"  {number}. {link.digest[:16]}  {', '.join((*roles, *release)) or 'superseded'}"
    yield f"     {approval.when} {approval.who}: {approval.reason}"
    yield f"     {_pace(timed)}; engine {timed.engine.sha256[:16]} {link.blob}; {timed.engine.build}"
    yield f"     follows {approval.previous[:16] if approval.previous else 'nothing'}"
    for name, judged in approval.beside.items():
        interval = f"{judged.ratio:.4f} [{judged.low:.4f}, {judged.high:.4f}]"
        yield f"     {judged.status} beside the {name}: ratio {interval} of {judged.processes} processes"
    for name, why in approval.lost.items():
        yield f"     {_not_shown(name)}: {why}"


def _not_shown(name: str) -> str:
    return f"not timed beside {'the engine approved before' if name == 'previous' else 'the anchor'}, which was lost"


def _engine(key: LatencyKey) -> str:
    return f"{key.arch}/{key.tower} {key.recipe} {key.backend} {key.backend_version}"


def _pace(timed: TimedEngine) -> str:
    itself = timed.itself
    sees = "" if itself.detectable is None else f", that session saw {itself.detectable:+.1%}"
    return f"p50 {timed.p50_ms:.4g} ms of {itself.processes} processes beside itself ({itself.status}{sees})"


def _figure(figure: float | str | None) -> str:
    return "-" if figure is None else figure[:16] if isinstance(figure, str) and len(figure) == 64 else f"{figure}"


def _change(moved: Moved) -> str:
    """By how much, where both are numbers and not the same."""
    if isinstance(moved.approved, str) or isinstance(moved.pending, str) or not moved.approved or moved.pending is None:
        return ""
    if moved.approved == moved.pending:
        return ""
    return f"  ({moved.pending / moved.approved - 1:+.2%})"


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]
