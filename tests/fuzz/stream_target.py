"""The hot connection's own reading: any stream, in any pieces, ends in what ``serve`` expects.

That is: whole messages handed over, or an error that closes this one connection and no other.
"""

from __future__ import annotations

import socket

import os_ken.base.app_manager  # noqa: F401 - os_ken.controller.controller needs it first
from os_ken.controller.handler import MAIN_DISPATCHER

from controller_app.decode import MalformedMessage
from controller_app.flow_mod import VERSION
from controller_app.hot_connection import Counters, HotDatapath, _ConnectionEnd
from controller_app.owner import OwnerLoan
from ondemand.messages import FlowRemoved, PacketIn
from tests.fuzz.kept import Kept
from tests.fuzz.message_target import MessageTarget
from tests.fuzz.target import without_values
from tests.support.recording_owner import RecordingOwner


class _Owner(RecordingOwner):
    """Notes what it is given, in the thread of the test."""

    def packet_in(self, message: PacketIn) -> None:
        self.calls.append(("packet_in", message.data))

    def flow_removed(self, message: FlowRemoved) -> None:
        self.calls.append(("flow_removed", message))

    def error(self, xid: int, kind: int, code: int, data: bytes) -> None:
        self.calls.append(("error", (xid, kind, code, data)))

    def collect(self, now_s: float) -> bytes:
        return b""


class _Reading(HotDatapath):
    """Without os-ken's parser, which some messages keep busy for ever (test_fuzz.py)."""

    def _dispatch(self, data: bytes) -> None:
        self._check_version(data[0], data[1])


class StreamTarget(MessageTarget):
    name = "stream"
    connection: type[HotDatapath] = _Reading

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._ours, self._theirs = socket.socketpair()
        self._owner = _Owner()
        loan = OwnerLoan(self._owner)
        self._datapath = self.connection(self._ours, "fuzz", loan=loan, counters=Counters())
        self._datapath.set_version(VERSION)
        self._datapath.set_state(MAIN_DISPATCHER)
        self._datapath._owner = self._owner

    def close(self) -> None:
        self._datapath._owner = None
        self._datapath.socket.close()
        self._theirs.close()

    def make(self) -> Kept:
        return Kept(self.name, "", super().make().data)

    def run(self, given: Kept) -> str:
        whole, end = self._take([given.data])
        third = len(given.data) // 3
        pieces = [given.data[:third], given.data[third:]]
        # What closes it may be another reason: of a piece the version is looked at first.
        calls, other_end = self._take(pieces)
        # Of one read the packet-ins come last, and by turns of their ports.
        assert (sorted(calls, key=repr), bool(other_end)) == (sorted(whole, key=repr), bool(end)), (
            "cut in two, it tells something else"
        )
        names = sorted({name for name, _ in whole})
        return f"{' '.join(names) or 'nothing'}: {end or 'goes on'}"

    def replay(self, given: Kept) -> str:
        return self.run(given)

    def _take(self, pieces: list[bytes]) -> tuple[list[tuple[str, object]], str]:
        self._owner.calls.clear()
        rest, end = b"", ""
        try:
            for piece in pieces:
                rest = self._datapath._take(rest + piece)
        except (MalformedMessage, _ConnectionEnd) as error:
            end = type(error).__name__ + " " + without_values(str(error))
        return list(self._owner.calls), end
