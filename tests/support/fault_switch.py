"""A switch in a few lines that speaks bytes: it keeps flow-mods and meters, and tells them when asked.

It passes no packet. It is for tests of what an agent asks, in which order answers come, and what the
agent sends because of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from controller_app.agent import Agent
from controller_app.decode import split
from ondemand.messages import Fetch, Follow, Forget, Heal, SourceRequest
from ondemand.slices import Lookup, TooOld
from rule_cache.cookie import is_ours
from tests.support.fault_source import FaultSource
from tests.support.flow_stats_bytes import entry_of, reply
from tests.support.packet_in_bytes import message

FLOW_MOD, PACKET_OUT, MULTIPART_REQUEST, METER_MOD = 14, 13, 18, 29
MULTIPART_REPLY = 19
FLOW, AGGREGATE, METER_CONFIG = 1, 2, 10
_DELETE, _METER_DELETE = 3, 2
#: What meters have seen is asked now and then; nothing waits for the answer.
_METER_STATISTICS = b"\0\x09"


class ScriptedSwitch:
    """Answers requests when it is told to.

    Attributes:
        rules: flow-mods by cookie.
        meters: ids of the meters.
        asked: every message that it was sent, by type.
        refuse: flow-mods for which this is true are not done, and are in ``refused``.
    """

    def __init__(self) -> None:
        self.rules: dict[int, bytes] = {}
        self.meters: set[int] = set()
        self.received: list[bytes] = []
        self.refuse: Callable[[bytes], bool] = lambda _: False
        self.refused: list[bytes] = []

    def take(self, data: bytes) -> list[bytes]:
        """Do what whole messages ask for; the multipart replies."""
        replies: list[bytes] = []
        end = 0
        for _, start, end in split(data):
            one = data[start:end]
            self.received.append(one)
            if one[1] == FLOW_MOD:
                self._flow_mod(one)
            elif one[1] == METER_MOD:
                command, _, meter = struct.unpack_from(">HHI", one, 8)
                if command == _METER_DELETE:
                    self.meters.discard(meter)
                else:
                    self.meters.add(meter)
            elif one[1] == MULTIPART_REQUEST and one[8:10] != _METER_STATISTICS:
                replies.append(self.answer(one))
        if end != len(data):
            raise ValueError("not whole messages")
        return replies

    def sent(self, kind: int) -> list[bytes]:
        """What came so far of one type."""
        return [one for one in self.received if one[1] == kind]

    def answer(self, request: bytes) -> bytes:
        """The one message that answers a multipart request."""
        (xid, kind) = struct.unpack_from(">4xIH", request, 0)
        if kind == METER_CONFIG:
            return meters_reply(sorted(self.meters), xid=xid)
        table, cookie, mask = struct.unpack_from(">16xB15xQQ", request, 0)
        found = [
            flow_mod
            for rule_cookie, flow_mod in sorted(self.rules.items())
            if table in (0xFF, flow_mod[24]) and rule_cookie & mask == cookie & mask
        ]
        if kind == AGGREGATE:
            return count_reply(len(found), xid=xid)
        return reply([entry_of(flow_mod) for flow_mod in found], xid=xid)

    def _flow_mod(self, one: bytes) -> None:
        cookie, mask = struct.unpack_from(">8xQQ", one, 0)
        if one[25] == _DELETE:
            self.rules = {c: m for c, m in self.rules.items() if c & mask != cookie & mask}
        elif self.refuse(one):
            self.refused.append(one)
        else:
            self.rules = {c: m for c, m in self.rules.items() if _match(m) != _match(one)}
            self.rules[cookie] = one


class ScriptedConnection:
    """What an agent has in its hand: keeps what is sent."""

    def __init__(self, number: int = 0xAB) -> None:
        self.id = number
        self.out = b""
        self.is_closed = False

    def send(self, buf: bytes) -> bool:
        self.out += buf
        return True

    def wake(self) -> None:
        """The test collects when it wants to."""

    def close(self) -> None:
        self.is_closed = True

    def take(self) -> bytes:
        out, self.out = self.out, b""
        return out


class InstantLink:
    """``SourceLink`` without a thread: the answer is in the mailbox when ``ask`` returns."""

    def __init__(
        self, source: FaultSource, deliver: Callable[..., None], *, identity: str | None = None
    ) -> None:
        self._source = source
        self._deliver = deliver
        self._watch = source.watch(deliver, identity)
        self.is_local = True

    def fetch(self, requests: Iterable[Fetch]) -> list[Lookup]:
        return self._source.get_many([(request.slice, request.key) for request in requests])

    def ask(self, request: SourceRequest) -> None:
        match request:
            case Fetch(slice=name, key=key):
                self._deliver(self._source.get(name, key))
            case Follow(slice=name, since=since):
                if since is None:
                    snapshot = self._source.snapshot(name)
                    self._deliver(snapshot)
                    since = snapshot.version
                self._watch.follow(name, since)
            case Forget(slice=name):
                self._watch.forget(name)
            case Heal(slice=name, since=since):
                delta = self._source.delta(name, since)
                self._deliver(self._source.snapshot(name) if isinstance(delta, TooOld) else delta)

    def close(self) -> None:
        self._watch.close()


class Session:
    """An agent's connection to a scripted switch, one step at a time. Time stands still at ``now_s``."""

    def __init__(self, agent: Agent, switch: ScriptedSwitch, now_s: float = 0.0) -> None:
        self.agent = agent
        self.switch = switch
        self.now_s = now_s
        self.connection = ScriptedConnection()
        #: Answers that have not been handed over yet.
        self.replies: list[bytes] = []
        agent.connected(self.connection)
        self.write()

    def write(self) -> None:
        """What the agent has to say gets to the switch."""
        # Twice, as ticks come anyway: what meters have seen is asked in the place of something else.
        for _ in range(2):
            self.replies += self.switch.take(self.connection.take())
            self.replies += self.switch.take(self.agent.collect(self.now_s))
        self.replies += self.switch.take(self.connection.take())

    def read(self, count: int | None = None) -> None:
        """Hand over answers, all that there are unless ``count``."""
        replies, self.replies = self.replies[:count], self.replies[len(self.replies[:count]) :]
        for one in replies:
            self.agent.statistics(one)
        self.write()

    def read_all(self) -> None:
        """Until the switch has nothing more to tell, and the agent nothing to do."""
        for _ in range(1000):
            self.read()
            if not (self.replies or self.agent._engine.has_work):
                return
        raise AssertionError("it does not come to an end")

    def ours(self) -> dict[int, bytes]:
        return {cookie: one for cookie, one in self.switch.rules.items() if is_ours(cookie)}


def _match(flow_mod: bytes) -> tuple[int, bytes, bytes]:
    """Table, priority and match."""
    length = int.from_bytes(flow_mod[50:52], "big")
    return flow_mod[24], flow_mod[30:32], flow_mod[52 : 48 + length]


def meters_reply(meters: Iterable[int], *, xid: int) -> bytes:
    """OFPMP_METER_CONFIG (OpenFlow 1.3.5 section 7.3.5.11): each with a band of 16 bytes."""
    bodies = (struct.pack(">HHI", 24, 6, meter) + bytes(16) for meter in meters)
    return message(
        MULTIPART_REPLY, struct.pack(">HH4x", METER_CONFIG, 0) + b"".join(bodies), xid=xid
    )


def count_reply(count: int, *, xid: int) -> bytes:
    """OFPMP_AGGREGATE (section 7.3.5.3)."""
    body = struct.pack(">HH4xQQI4x", AGGREGATE, 0, 0, 0, count)
    return message(MULTIPART_REPLY, body, xid=xid)
