"""How flows under load are judged: cut, going on, coming back. The bounds stand here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mininet_topos.load import FlowSeen
from mininet_topos.promises import Seen

#: Seconds from the beginning of a publish to the last message of a flow that is no longer allowed. The agent looks
#: at its store every 5 ms; the rest is for a machine that is busy.
CUT_S: Final = 0.5

#: Seconds. TCP's shortest retransmission timeout on Linux (TCP_RTO_MIN, 200 ms; RFC 6298 section 2.4
#: asks for 1 s): a pause below it, without a retransmission, is one that TCP did not notice.
RTO_MIN_S: Final = 0.2

#: Seconds from the beginning of a publish to the first datagram of a flow that is allowed again.
PASSES_S: Final = 0.5

NO_PAUSE: Final = f"no reset, no retransmission, no pause of {RTO_MIN_S * 1000:.0f} ms"
NO_LOSS: Final = "no datagram is lost"


def of(flows: Sequence[FlowSeen], *words: str, protocol: str = "") -> list[FlowSeen]:
    """Those whose name has all the words, and of one protocol if given."""
    return [
        one
        for one in flows
        if all(word in one.spec.name.split() for word in words)
        and protocol in {"", one.spec.protocol}
    ]


def cut_seen(
    flows: Sequence[FlowSeen],
    begun_s: float,
    *,
    bound_s: float = CUT_S,
    since: str = "the publish began",
) -> Seen:
    """Whether all flows stood still soon enough after a moment, without a word to either end.

    ``begun_s`` is that moment, which ``since`` names. TCP must not have been reset: a drop is a drop.
    """
    if not flows:
        return _nothing()
    last_ms = 1000 * max((one.last_s or begun_s) - begun_s for one in flows)
    broken = [one for one in flows if not one.is_alive]
    last = f"last byte {last_ms:.0f} ms" if last_ms > 0 else "no byte"
    text = f"{_flows(flows)}{last} after {since}{_names(broken)}"
    return Seen(last_ms <= 1000 * bound_s and not broken, text)


def goes_on_seen(flows: Sequence[FlowSeen], *, longest_s: float = RTO_MIN_S) -> Seen:
    """Whether all TCP connections went on as if nothing had been, with no pause of ``longest_s``."""
    if not flows:
        return _nothing()
    gap_s = max(one.longest_gap_s for one in flows)
    sent_again = sum(one.retransmissions + one.far_retransmissions for one in flows)
    broken = [one for one in flows if not one.is_alive or not one.echoed]
    text = (
        f"{_flows(flows)}longest pause {gap_s * 1000:.0f} ms, "
        f"{_count(sent_again, 'retransmission')}{_names(broken)}"
    )
    return Seen(not broken and not sent_again and gap_s < longest_s, text)


def no_loss_seen(flows: Sequence[FlowSeen]) -> Seen:
    """Whether every datagram came back."""
    if not flows:
        return _nothing()
    lost = sum(one.lost for one in flows)
    silent = [one for one in flows if not one.echoed]
    sent = sum(one.sent for one in flows)
    gap_ms = 1000 * max(one.longest_gap_s for one in flows)
    text = f"{_flows(flows)}{lost} of {sent} lost, longest pause {gap_ms:.0f} ms"
    return Seen(not lost and not silent, f"{text}{_names(silent)}")


def lives_seen(flows: Sequence[FlowSeen]) -> Seen:
    """Whether all flows have had an echo since the mark, and none was reset."""
    if not flows:
        return _nothing()
    dead = [one for one in flows if not one.echoed or not one.is_alive]
    return Seen(not dead, f"{len(flows) - len(dead)} of {len(flows)} flows{_names(dead)}")


def back_seen(flows: Sequence[FlowSeen], since_s: float, bound_s: float) -> Seen:
    """Whether all flows had an echo within ``bound_s`` of a moment."""
    if not flows:
        return _nothing()
    silent = [one for one in flows if one.first_s is None or not one.is_alive]
    times_s = [one.first_s - since_s for one in flows if one.first_s is not None]
    late_s = max(0.0, *times_s) if times_s else 0.0
    text = f"{len(flows) - len(silent)} of {len(flows)} flows, the last after {ms(late_s)}"
    return Seen(not silent and late_s <= bound_s, f"{text}{_names(silent)}")


def first_retry_seen(flows: Sequence[FlowSeen]) -> Seen:
    """Whether all TCP connections went on with at most one retransmission at either end."""
    if not flows:
        return _nothing()
    near = max(one.retransmissions for one in flows)
    far = max(one.far_retransmissions for one in flows)
    dead = [one for one in flows if not one.echoed or not one.is_alive]
    text = f"{len(flows) - len(dead)} of {len(flows)} flows, at most {near} by who began it, {far} by the other"
    return Seen(not dead and max(near, far) <= 1, f"{text}{_names(dead)}")


def within_seen(what: str, seconds: float | None, bound_s: float) -> Seen:
    """Whether something came about in time; ``seconds`` None: it did not."""
    if seconds is None:
        return Seen(ok=False, text=f"{what}: never")
    return Seen(seconds <= bound_s, f"{what} after {ms(seconds)}")


def ms(seconds: float) -> str:
    """As text, in the unit that suits it."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _names(flows: Sequence[FlowSeen]) -> str:
    if not flows:
        return ""
    named = ", ".join(f"{one.spec.name} ({one.error or 'silent'})" for one in flows[:3])
    return f"; not: {named}{', ...' if len(flows) > 3 else ''}"


def _flows(flows: Sequence[FlowSeen]) -> str:
    """How many there are, where there are several."""
    return f"{len(flows)} flows, " if len(flows) > 1 else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _nothing() -> Seen:
    return Seen(ok=False, text="no flow was looked at")
