"""Runs a target: counts outcomes, keeps what is new, minimises what is wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.fuzz.engine_target import EngineTarget
from tests.fuzz.kept import Kept, load, smaller
from tests.fuzz.message_target import MessageTarget
from tests.fuzz.parse_target import ParseTarget
from tests.fuzz.record_target import RecordTarget
from tests.fuzz.stream_target import StreamTarget
from tests.fuzz.target import Target
from tests.fuzz.wire_target import WireTarget

#: By name, in the order of running.
TARGETS: dict[str, Callable[[int], Target]] = {
    "parse": ParseTarget,
    "message": MessageTarget,
    "stream": StreamTarget,
    "record": RecordTarget,
    "engine": EngineTarget,
    "wire": WireTarget,
}
#: CPU seconds that one input may take at most, everything around it included. A frame of 64 KiB takes
#: some 20 ms where this was written; a parser that goes in circles takes for ever.
SLOWEST_S = 2.0
#: A stateful target is checked now and then only: the input at fault may be so many inputs back.
_HISTORY = 256
_MAX_FINDINGS = 20
#: Larger inputs are told by their outcome, and not kept.
_MAX_KEPT = 3000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong. ``given`` is minimised when it alone brings it about, which ``alone`` says."""

    given: Kept
    error: str
    alone: bool


@dataclass(slots=True)
class Summary:
    """What a run has seen."""

    count: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    #: The smallest input of each outcome that is not in the corpus yet.
    fresh: dict[str, Kept] = field(default_factory=dict)


def run(
    target: Target,
    count: int,
    *,
    seconds: float = 1e9,
    progress: Callable[[Summary], None] | None = None,
) -> Summary:
    """Run ``count`` inputs, or as many as take ``seconds``; ends early after many findings."""
    summary = Summary()
    known = {kept.outcome for kept in load(target.name)}
    history: list[Kept] = []
    begin_s = told_s = time.monotonic()
    while summary.count < count and len(summary.findings) < _MAX_FINDINGS:
        given = target.make()
        history = [*history[-_HISTORY:], given] if summary.count % _HISTORY == 0 else history
        history.append(given)
        start_s = time.thread_time()
        error, outcome = _attempt(target.run, given)
        took_s = time.thread_time() - start_s
        summary.count += 1
        summary.slowest_s = max(summary.slowest_s, took_s)
        if took_s > SLOWEST_S:
            error = f"it took {took_s:.1f} s"
        if error:
            summary.findings.append(_finding(target, given, history, error))
            history = []
        else:
            summary.outcomes[outcome] += 1
            best = summary.fresh.get(outcome)
            if outcome not in known and (best is None or len(given.data) < len(best.data)):
                summary.fresh[outcome] = replace(given, outcome=outcome)
        if summary.count % 512 == 0:
            now_s = time.monotonic()
            summary.seconds = now_s - begin_s
            if progress is not None and now_s - told_s > 5:
                told_s = now_s
                progress(summary)
            if summary.seconds > seconds:
                break
    summary.seconds = time.monotonic() - begin_s
    return summary


def _attempt(call: Callable[[Kept], str], given: Kept) -> tuple[str, str]:
    """(what went wrong, outcome)."""
    try:
        return "", call(given)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what this program looks for
        return f"{type(error).__name__}: {error}"[:400], ""


def _finding(target: Target, given: Kept, history: list[Kept], error: str) -> Finding:
    """Minimise: the last input, or else the first of those before that alone brings an error."""
    for one in [given, *history[::-1]]:
        found, _ = _attempt(target.replay, one)
        if found:
            kind = found.partition(":")[0]

            def same(data: bytes, one: Kept = one, kind: str = kind) -> bool:
                return _attempt(target.replay, replace(one, data=data))[0].startswith(kind)

            least = replace(one, data=smaller(one.data, same))
            error, _ = _attempt(target.replay, least)
            name = "finding " + error.partition("\n")[0][:60]
            return Finding(replace(least, outcome=name), error, alone=True)
    name = "finding in a sequence " + error.partition("\n")[0][:60]
    return Finding(replace(given, outcome=name), error, alone=False)


def keep(target: Target, fresh: dict[str, Kept]) -> int:
    """Put new outcomes into the corpus, as small as they get; returns how many."""
    count = 0
    for outcome, kept in sorted(fresh.items()):

        def same(data: bytes, outcome: str = outcome, kept: Kept = kept) -> bool:
            return _attempt(target.replay, replace(kept, data=data)) == ("", outcome)

        if len(kept.data) <= _MAX_KEPT and same(kept.data):
            # A host of its own for each try makes minimising these too slow.
            is_slow = target.name in ("engine", "wire")
            (kept if is_slow else replace(kept, data=smaller(kept.data, same))).save()
            count += 1
    return count
