"""What a switch says of itself when it connects: its rules and meters that are ours.

First the little that an agent needs to serve packets: meters, the rules of the tables that no traffic
fills (they tell zones and epochs), and a cookie round that no rule has. Then the tables that traffic
fills, in pieces: Open vSwitch makes the answer to a request in one go and forwards nothing meanwhile on
the userspace datapath (50,000 rules: 70 ms, in which a thousand packets may be lost). A piece is asked
for when the last one is nearly used up, so that neither side holds all of it.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from typing import Final

from controller_app.decode import MalformedMessage, xid_of
from controller_app.flow_mod import ANY, VERSION
from controller_app.flow_stats import flow_entries, flow_stats_reply, flow_stats_request
from controller_app.meter_stats import meters_reply, meters_request
from controller_app.owner import OWNER_XID
from controller_app.rule_reader import RuleReader
from ondemand.adoption import FoundRule
from ondemand.pipeline import ON_DEMAND, Pipeline, Table
from rule_cache.cookie import MAGIC_MASK, MAGIC_VALUE, ROUNDS
from rule_cache.rule import Rule

#: Pieces into which a table that traffic fills is divided, by the last bits of the cookie.
PIECES: Final = 16
#: Rules that are left when the next piece is asked for.
LOW_WATER: Final = 200

_MULTIPART_REQUEST: Final = 18
_AGGREGATE: Final = 2
_ALL_TABLES: Final = 0xFF
_ROUND_MASK: Final = MAGIC_MASK | 0xFF << 40
# As a request for flow statistics (section 7.3.5.3).
_pack_aggregate_request = struct.Struct(">BBHIHH4xB3xII4xQQHH4x").pack
_read_multipart = struct.Struct(">HH").unpack_from
_read_flow_count = struct.Struct(">16xI").unpack_from
_BODY: Final = 16


class SwitchReadBack:
    """One read-back. ``take`` is given each answer and says what to ask next.

    Attributes:
        meters: ids of the meters in the switch.
        static: the rules of tables that no traffic fills.
        round_number: a cookie round that no rule in the switch has.
    """

    def __init__(self, pipeline: Pipeline, *, round_number: int, is_own_round: bool) -> None:
        """``is_own_round``: the rules of this round are this very agent's, so it needs no other."""
        self._reader = RuleReader(pipeline)
        # Where things are first: traffic to who has moved meanwhile waits for that.
        first = (Table.LOCATION, Table.RESPONDER)
        filled = [*first, *(table for table in ON_DEMAND if table not in first)]
        others = [pipeline.number(table) for table in Table if table not in ON_DEMAND]
        self._pieces: deque[tuple[int, int]] = deque(
            (pipeline.number(table), piece) for table in filled for piece in range(PIECES)
        )
        self._is_own_round = is_own_round
        self._last_xid = OWNER_XID
        #: What the request that is not answered yet was about: meters, a round, a table or a piece.
        self._awaited: dict[int, str] = {}
        self._tables = deque(others)
        self._rounds_tried = 0
        self._found: deque[tuple[int, bytes, int, int]] = deque()
        self._strange: deque[FoundRule] = deque()
        self.meters: set[int] = set()
        self.static: list[tuple[int, Rule]] = []
        self.round_number = round_number

    # -- asking ----------------------------------------------------------------------------------

    def begin(self) -> bytes:
        """The first requests."""
        out = meters_request(self._ask("meters"))
        if not self._is_own_round:
            out += self._ask_round()
        while self._tables:
            xid = self._ask("table")
            out += flow_stats_request(xid, MAGIC_VALUE, MAGIC_MASK, self._tables.popleft())
        return out

    def more(self) -> bytes:
        """The next request, if it is time for one."""
        if self._awaited or not self._pieces or len(self._found) > LOW_WATER:
            return b""
        table, piece = self._pieces.popleft()
        return flow_stats_request(
            self._ask("piece"), MAGIC_VALUE | piece, MAGIC_MASK | (PIECES - 1), table
        )

    @property
    def is_begun(self) -> bool:
        """Whether what ``begin`` asked for is here."""
        return not self._awaited or "piece" in self._awaited.values()

    # -- answers ---------------------------------------------------------------------------------

    def take(self, message: bytes) -> bytes:
        """One multipart reply; what to ask because of it.

        Raises:
            MalformedMessage: it breaks the format.
        """
        xid = xid_of(message, 0)
        about = self._awaited.get(xid)
        if about is None:
            return b""  # of a read-back that was given up
        out = b""
        if about == "meters":
            meters, more = meters_reply(message)
            self.meters.update(meters)
        elif about == "round":
            more = False
            if self._take_flow_count(message):
                self.round_number = (self.round_number + 1) % ROUNDS
                self._rounds_tried += 1
                if self._rounds_tried < ROUNDS:
                    out = self._ask_round()
        else:
            more = self._take_rules(message, is_piece=about == "piece")
        if not more:
            del self._awaited[xid]
        return out

    # -- for adoption ----------------------------------------------------------------------------

    def next(self) -> FoundRule | None:
        """A rule of a table that traffic fills; None when none is here now."""
        if self._strange:
            return self._strange.popleft()
        if not self._found:
            return None
        cookie, reply, start, end = self._found.popleft()
        return cookie, self._read(reply, start, end)

    @property
    def is_complete(self) -> bool:
        """Whether all that was found has been given out."""
        return not (self._found or self._strange or self._pieces or self._awaited)

    @property
    def is_awaiting(self) -> bool:
        """Whether the switch owes an answer."""
        return bool(self._awaited)

    @property
    def has_next(self) -> bool:
        """Whether ``next`` has a rule now."""
        return bool(self._found or self._strange)

    # -- inside ----------------------------------------------------------------------------------

    def _ask(self, about: str) -> int:
        self._last_xid += 1
        self._awaited[self._last_xid] = about
        return self._last_xid

    def _ask_round(self) -> bytes:
        return _pack_aggregate_request(
            VERSION,
            _MULTIPART_REQUEST,
            56,
            self._ask("round"),
            _AGGREGATE,
            0,
            _ALL_TABLES,
            ANY,
            ANY,
            MAGIC_VALUE | self.round_number << 40,
            _ROUND_MASK,
            1,
            4,
        )

    def _take_rules(self, message: bytes, *, is_piece: bool) -> bool:
        reply = flow_stats_reply(message, 0, len(message))
        if reply is None:
            raise MalformedMessage("a multipart reply that is no flow statistics")
        for cookie, _, start, end in self._entries(message):
            if is_piece:
                self._found.append((cookie, message, start, end))
                continue
            rule = self._read(message, start, end)
            if rule is None:
                self._strange.append((cookie, None))
            else:
                self.static.append((cookie, rule))
        return reply[1]

    @staticmethod
    def _entries(message: bytes) -> Iterator[tuple[int, int, int, int]]:
        return flow_entries(message, 0, len(message))

    def _read(self, reply: bytes, start: int, end: int) -> Rule | None:
        try:
            return self._reader.read(reply, start, end)
        except MalformedMessage:
            return None

    @staticmethod
    def _take_flow_count(message: bytes) -> int:
        if len(message) < _BODY + 24 or _read_multipart(message, 8)[0] != _AGGREGATE:
            raise MalformedMessage("a multipart reply that is no aggregate flow statistics")
        count: int = _read_flow_count(message, _BODY)[0]
        return count
