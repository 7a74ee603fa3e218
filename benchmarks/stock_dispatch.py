"""The agent fed by os-ken's own dispatch: what the hot connection is compared with.

All else is the same: the engine, the slice store, the encoder. But messages come as os-ken gives them to
an app: its receive loop reads them one by one, its parser makes objects of them, they wait in the app's
event queue, and handlers set with ``set_ev_cls`` take them. What is for the switch goes through the
send queue of os-ken's ``Datapath``, a packet-in's rules and its packet-out in one piece. So it has one
advantage over an ordinary app: its flow-mods are not built and serialized as os-ken's objects.

os-ken 4.2 has no names for the fields of conntrack's original tuple (NXM 1, 119 to 125). It gives them
as ``field_N``, N being the OXM class's low bit and the field, with the value's bytes in base64.
"""

from __future__ import annotations

import base64
import threading
import time
from typing import Any, Final

from os_ken.base import app_manager
from os_ken.controller import event, ofp_event
from os_ken.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.ofproto import ofproto_v1_3

from controller_app.agent import Agent
from controller_app.owner import is_owners
from ondemand.messages import FlowRemoved, PacketIn
from rule_cache.cookie import is_ours

#: Seconds between ticks, as the hot connection has them.
TICK_S: Final = 0.05
_CT_PROTO: Final = "field_247"
_CT_SRC: Final = ("field_248", "field_250")
_CT_DST: Final = ("field_249", "field_251")
_CT_TP_SRC, _CT_TP_DST = "field_252", "field_253"


class EventWake(event.EventBase):
    """The agent has something to do that no message of the switch brings."""


class _Line:
    """What the agent may do with its connection (``controller_app.owner.Connection``)."""

    def __init__(self, app: StockDispatch, datapath: Any) -> None:
        self.id: int = datapath.id
        self.datapath = datapath
        self._app = app

    def send(self, buf: bytes) -> bool:
        return bool(self.datapath.send(buf))

    def wake(self) -> None:
        self._app.wake()

    def close(self) -> None:
        self.datapath.close()


class StockDispatch(app_manager.OSKenApp):
    """An os-ken app around the agent; os-ken's event thread owns the engine."""

    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]  # noqa: RUF012 - os-ken wants this very attribute

    def __init__(self, *args: Any, agent: Agent, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._agent = agent
        self._line: _Line | None = None
        threading.Thread(target=self._tick, name="tick", daemon=True).start()

    def wake(self) -> None:
        """From any thread, the app's own too, which must not wait for room in its own queue."""
        if self.events.qsize() < self.events.maxsize // 2:
            self.send_event(self.name, EventWake())

    @set_ev_cls(ofp_event.EventOFPStateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])
    def state_changed(self, change: Any) -> None:
        datapath = change.datapath
        if change.state == MAIN_DISPATCHER and self._agent.wants(datapath.id):
            self._line = _Line(self, datapath)
            self._agent.connected(self._line)
        elif self._line is not None and self._line.datapath is datapath:
            self._line = None
            self._agent.disconnected()

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def packet_in(self, change: Any) -> None:
        if is_ours(change.msg.cookie):
            self._agent.packet_in(packet_in_of(change.msg))
            self._send()

    @set_ev_cls(ofp_event.EventOFPFlowRemoved, MAIN_DISPATCHER)
    def flow_removed(self, change: Any) -> None:
        message = change.msg
        if is_ours(message.cookie):
            self._agent.flow_removed(FlowRemoved(message.cookie, message.table_id, message.reason))
            self._send()

    @set_ev_cls(
        [
            ofp_event.EventOFPFlowStatsReply,
            ofp_event.EventOFPAggregateStatsReply,
            ofp_event.EventOFPMeterConfigStatsReply,
            ofp_event.EventOFPMeterStatsReply,
        ],
        MAIN_DISPATCHER,
    )
    def statistics(self, change: Any) -> None:
        if is_owners(change.msg.xid):
            self._agent.statistics(bytes(change.msg.buf))
            self._send()

    @set_ev_cls(ofp_event.EventOFPErrorMsg, MAIN_DISPATCHER)
    def error(self, change: Any) -> None:
        message = change.msg
        self._agent.error(message.xid, message.type, message.code, bytes(message.data))

    @set_ev_cls(EventWake)
    def woken(self, _change: Any) -> None:
        self._send()

    def _send(self) -> None:
        if self._line is not None:
            out = self._agent.collect(time.monotonic())
            if out:
                self._line.send(out)

    def _tick(self) -> None:
        while True:
            time.sleep(TICK_S)
            if self._line is not None:
                self.wake()


def packet_in_of(message: Any) -> PacketIn:
    """os-ken's packet-in as the engine takes it."""
    fields = dict(message.match.items())
    return PacketIn(
        table=message.table_id,
        in_port=fields["in_port"],
        data=message.data,
        cookie=message.cookie,
        vni=fields.get("reg5", 0),
        source_zone=fields.get("reg6", 0),
        target_zone=fields.get("reg7", 0),
        ct_state=_number(fields.get("ct_state", 0)),
        ct_mark=_number(fields.get("ct_mark", 0)),
        ct_src=_octets(fields, *_CT_SRC),
        ct_dst=_octets(fields, *_CT_DST),
        ct_proto=int.from_bytes(_octets(fields, _CT_PROTO), "big"),
        ct_tp_src=int.from_bytes(_octets(fields, _CT_TP_SRC), "big"),
        ct_tp_dst=int.from_bytes(_octets(fields, _CT_TP_DST), "big"),
    )


def _number(said: Any) -> int:
    """A value that may have come with a mask."""
    value: int = said[0] if isinstance(said, tuple) else said
    return value


def _octets(fields: dict[str, Any], *names: str) -> bytes:
    for name in names:
        said = fields.get(name)
        if said is not None:
            return base64.b64decode(said)
    return b""
