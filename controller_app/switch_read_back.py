"""What a switch says of itself when it connects: its rules and meters that are ours.

Both are asked for at once; the answers come in many messages. Rules that are always there are decoded
when the last one is here. Those that come and go with traffic may be very many: of them only the cookies
are looked at, and they are decoded one by one as adoption asks for them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from controller_app.decode import MalformedMessage, xid_of
from controller_app.flow_mod import VERSION
from controller_app.flow_stats import flow_entries, flow_stats_reply, flow_stats_request
from controller_app.owner import OWNER_XID
from controller_app.rule_reader import RuleReader
from ondemand.adoption import FoundRule
from ondemand.pipeline import ON_DEMAND, Pipeline
from rule_cache.cookie import MAGIC_MASK, MAGIC_VALUE, round_of
from rule_cache.rule import Rule

_RULES_XID: Final = OWNER_XID | 1
_METERS_XID: Final = OWNER_XID | 2

_MULTIPART_REQUEST: Final = 18
_METER_CONFIG: Final = 10
_ALL_METERS: Final = 0xFFFFFFFF
_REPLY_MORE: Final = 1
# Header, type, flags, padding; meter and padding (OpenFlow 1.3.5 sections 7.3.5, 7.3.5.11).
_pack_meter_request = struct.Struct(">BBHIHH4xI4x").pack
_read_multipart = struct.Struct(">HH").unpack_from
_read_meter = struct.Struct(">HHI").unpack_from
_BODY: Final = 16
#: Idle and hard timeout of a flow entry: those that have one come and go (section 7.3.5.2).
_read_timeouts = struct.Struct(">HH").unpack_from
_TIMEOUTS: Final = 14


class SwitchReadBack:
    """One read-back, from the requests to the last answer.

    Attributes:
        meters: ids of the meters in the switch.
        gone: cookies of rules that left the switch meanwhile.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._reader = RuleReader(pipeline)
        self._on_demand_tables = {pipeline.number(table) for table in ON_DEMAND}
        self._replies: list[bytes] = []
        self._awaited = {_RULES_XID, _METERS_XID}
        self.meters: set[int] = set()
        self.gone: set[int] = set()

    @staticmethod
    def requests() -> bytes:
        """What to ask the switch."""
        meters = _pack_meter_request(
            VERSION, _MULTIPART_REQUEST, 24, _METERS_XID, _METER_CONFIG, 0, _ALL_METERS
        )
        return meters + flow_stats_request(_RULES_XID, MAGIC_VALUE, MAGIC_MASK)

    @property
    def done(self) -> bool:
        """Whether the last answer is here."""
        return not self._awaited

    def take(self, message: bytes) -> None:
        """One multipart reply.

        Raises:
            MalformedMessage: it breaks the format.
        """
        xid = xid_of(message, 0)
        if xid == _RULES_XID:
            reply = flow_stats_reply(message, 0, len(message))
            if reply is None:
                raise MalformedMessage("a multipart reply that is no flow statistics")
            self._replies.append(message)
            more = reply[1]
        elif xid == _METERS_XID:
            more = self._take_meters(message)
        else:
            raise MalformedMessage(f"a multipart reply to request 0x{xid:08x}, which was not made")
        if not more:
            self._awaited.discard(xid)

    def found(self) -> tuple[list[tuple[int, Rule]], Iterator[FoundRule], set[int]]:
        """Rules that are always there, all other rules, and the cookie rounds of all.

        Of the first, those that no agent of this version makes are among the second.
        """
        static: list[tuple[int, Rule]] = []
        others: list[FoundRule] = []
        later: list[tuple[int, bytes, int, int]] = []
        rounds: set[int] = set()
        for reply in self._replies:
            for cookie, table, start, end in flow_entries(reply, 0, len(reply)):
                rounds.add(round_of(cookie))
                if table in self._on_demand_tables and any(
                    _read_timeouts(reply, start + _TIMEOUTS)
                ):
                    later.append((cookie, reply, start, end))
                    continue
                rule = self._read(reply, start, end)
                if rule is None:
                    others.append((cookie, None))
                else:
                    static.append((cookie, rule))
        self._replies.clear()
        return static, self._decoded(others, later), rounds

    def _decoded(
        self, others: list[FoundRule], later: list[tuple[int, bytes, int, int]]
    ) -> Iterator[FoundRule]:
        yield from others
        read, gone = self._read, self.gone
        # From the end, so that memory of what has been decoded is given back.
        while later:
            cookie, reply, start, end = later.pop()
            if cookie not in gone:
                yield cookie, read(reply, start, end)

    def _read(self, reply: bytes, start: int, end: int) -> Rule | None:
        try:
            return self._reader.read(reply, start, end)
        except MalformedMessage:
            return None

    def _take_meters(self, message: bytes) -> bool:
        if len(message) < _BODY:
            raise MalformedMessage(f"a multipart reply of {len(message)} bytes")
        kind, flags = _read_multipart(message, 8)
        if kind != _METER_CONFIG:
            raise MalformedMessage(f"a multipart reply of type {kind} for the meters")
        at = _BODY
        while at < len(message):
            if len(message) - at < 8:
                raise MalformedMessage("a meter that ends behind its message")
            length, _, meter = _read_meter(message, at)
            if length < 8:
                raise MalformedMessage(f"a meter of {length} bytes")
            self.meters.add(meter)
            at += length
        return bool(flags & _REPLY_MORE)
