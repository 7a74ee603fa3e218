"""One packet's way through the tables of the fake switch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ondemand.messages import PacketIn
from rule_cache.fields import CtState, Field
from rule_cache.rule import (
    Action,
    Ct,
    DecTtl,
    Meter,
    Move,
    Output,
    OutputInPort,
    Resubmit,
    SetField,
    ToController,
)
from tests.support.fake_conntrack import Conntrack, Tracked
from tests.support.fake_flow import Fields, extract
from tests.support.fake_fragments import Datagram, Reassembly, is_fragment, is_too_short
from tests.support.fake_outcomes import Delivered, Dropped, Held, Outcome, Tunnelled
from tests.support.fake_rewrite import rewrite
from tests.support.fake_table import Installed

#: More resubmits than any sane pipeline makes: ovs-actions(7) allows 64 levels.
MAX_DEPTH: Final = 64

_CT_FIELDS: Final = (
    Field.CT_STATE,
    Field.CT_MARK,
    Field.CT_NW_SRC,
    Field.CT_NW_DST,
    Field.CT_IPV6_SRC,
    Field.CT_IPV6_DST,
    Field.CT_NW_PROTO,
    Field.CT_TP_SRC,
    Field.CT_TP_DST,
)
#: What a packet keeps over ct() beside its frame.
_METADATA: Final = frozenset(
    {
        Field.REG4,
        Field.REG5,
        Field.REG6,
        Field.REG7,
        Field.TUN_ID,
        Field.TUN_SRC,
        Field.TUN_DST,
        Field.TUN_IPV6_DST,
    }
)
#: Of these states a packet-in tells the original tuple; of a bare +rel it does not (observed).
_TUPLE_STATES: Final = CtState.NEW | CtState.EST | CtState.RPL


@dataclass(slots=True)
class Packet:
    """A packet on its way: ``frame`` as it was at the last ``ct()``, ``fields`` as they are now.

    ``datagram`` are, in order, the fragments of a datagram of which ``frame`` is one: the same is
    done to all, until they are looked at one by one again. Of a packet in one piece it is ``frame``.
    """

    frame: bytes
    fields: Fields
    in_port: int
    base: Fields
    datagram: tuple[bytes, ...]

    @classmethod
    def arrive(cls, frame: bytes, in_port: int, metadata: Fields) -> Packet:
        base = extract(frame).fields
        fields = {**base, **metadata, Field.IN_PORT: in_port}
        return cls(frame, fields, in_port, base, (frame,))

    def frames(self) -> list[bytes]:
        """All of the datagram, with what was changed written in."""
        return [rewrite(frame, self._changes()) for frame in self.datagram]

    def _changes(self) -> Fields:
        return {
            target: value
            for target, value in self.fields.items()
            if target in self.base and value != self.base[target]
        }

    def metadata(self) -> Fields:
        """Registers and tunnel."""
        return {target: value for target, value in self.fields.items() if target in _METADATA}

    def adopt(self, fragments: tuple[bytes, ...]) -> None:
        """Go on with a whole datagram, whose fragments carry the changes made so far."""
        self.frame = rewrite(self.frame, self._changes())
        self.base = extract(self.frame).fields
        self.datagram = fragments

    def clear_conntrack(self) -> None:
        for target in _CT_FIELDS:
            self.fields.pop(target, None)


class Host(Protocol):
    """What a run needs of the switch."""

    conntrack: Conntrack
    reassembly: Reassembly
    now_s: float

    def lookup(self, table: int, fields: Fields) -> Installed | None: ...

    def has_port(self, ofport: int) -> bool: ...

    def is_tunnel(self, ofport: int) -> bool: ...

    def meter_passes(self, meter: int) -> bool: ...


class Run:
    """Runs one packet; ``outcomes`` collects what becomes of it, ``path`` the rules that it met."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.outcomes: list[Outcome] = []
        self.path: list[str] = []

    def table(self, number: int, packet: Packet, depth: int = 0) -> None:
        """Look the packet up in a table and do what its rule says."""
        if depth > MAX_DEPTH:
            self.outcomes.append(Dropped(number, "too many resubmits"))
            return
        installed = self._host.lookup(number, packet.fields)
        if installed is None:
            self.path.append(f"table={number} no rule")
            self.outcomes.append(Dropped(number, "no rule"))
            return
        self.path.append(str(installed))
        installed.packets += 1
        installed.used_s = self._host.now_s
        actions = installed.rule.shape.actions
        if not actions:
            self.outcomes.append(Dropped(number, installed.rule.shape.name))
            return
        self._actions(actions, installed, packet, depth)

    def _actions(
        self, actions: Sequence[Action], installed: Installed, packet: Packet, depth: int
    ) -> None:
        table = installed.rule.shape.table
        for action in actions:
            match action:
                case SetField(field=target, value=operand):
                    packet.fields[target] = installed.value_of(operand)
                case Move(source=source, target=target):
                    packet.fields[target] = packet.fields.get(source, 0)
                case Output(port=port):
                    self._output(installed.value_of(port), packet, table)
                case OutputInPort():
                    self._emit(packet.in_port, packet, table)
                case Resubmit(table=following):
                    self.table(following, packet, depth + 1)
                case ToController():
                    self.outcomes += [
                        _packet_in(frame, packet, installed) for frame in packet.frames()
                    ]
                case DecTtl():
                    if packet.fields.get(Field.IP_TTL, 0) <= 1:
                        self.outcomes.append(Dropped(table, "TTL"))
                        return
                    packet.fields[Field.IP_TTL] -= 1
                case Meter(meter=operand):
                    if not self._host.meter_passes(installed.value_of(operand)):
                        self.outcomes.append(Dropped(table, "meter"))
                        return
                case Ct():
                    strays = self._strays(action)
                    goes_on = self._ct(action, packet, table, depth)
                    for stray in strays:
                        self._recirculate(action, stray, packet, Tracked(CtState.INV), depth)
                    if not goes_on:
                        return

    def _output(self, ofport: int, packet: Packet, table: int) -> None:
        if ofport == packet.in_port:
            # ovs-actions(7): output to the input port is silently left out.
            self.outcomes.append(Dropped(table, "output to its input port"))
        else:
            self._emit(ofport, packet, table)

    def _emit(self, ofport: int, packet: Packet, table: int) -> None:
        if not self._host.has_port(ofport):
            self.outcomes.append(Dropped(table, f"no port {ofport}"))
            return
        for frame in packet.frames():
            if not self._host.is_tunnel(ofport):
                self.outcomes.append(Delivered(ofport, frame))
                continue
            fields = packet.fields
            tun_dst = fields.get(Field.TUN_DST, 0).to_bytes(4, "big")
            if not any(tun_dst):
                tun_dst = fields.get(Field.TUN_IPV6_DST, 0).to_bytes(16, "big")
            if any(tun_dst):
                self.outcomes.append(Tunnelled(fields.get(Field.TUN_ID, 0), tun_dst, frame))
            else:
                self.outcomes.append(Dropped(table, "no tunnel destination"))

    def _ct(self, action: Ct, packet: Packet, table: int, depth: int) -> bool:
        """False when the packet stays here, as a fragment that waits for others."""
        zone = packet.fields.get(action.zone, 0) & 0xFFFF
        now_s = self._host.now_s
        frames = packet.frames()
        whole: bytes | None = frames[0]
        headers = extract(frames[0])
        if is_fragment(headers):
            if is_too_short(frames[0], headers):
                whole = None
            else:
                datagram = self._reassemble(zone, table, frames)
                if datagram is None:
                    self.outcomes.append(Held(table, zone))
                    return False
                whole = datagram.whole
                packet.adopt(datagram.fragments)
        tracked = Tracked(CtState.INV | CtState.TRK)
        if whole is not None:
            tracked = self._host.conntrack.track(zone, whole, now_s)
            if action.commit:
                mark = None if action.mark is None else packet.fields.get(action.mark, 0)
                self._host.conntrack.commit(zone, whole, now_s, mark)
        # The packet goes on twice: in the table with its state, and behind ct() without it.
        for frame in packet.frames():
            self._recirculate(action, frame, packet, tracked, depth)
        packet.clear_conntrack()
        return True

    def _recirculate(
        self, action: Ct, frame: bytes, packet: Packet, tracked: Tracked, depth: int
    ) -> None:
        if action.table is not None:
            again = Packet.arrive(frame, packet.in_port, packet.metadata())
            again.fields |= conntrack_fields(tracked, frame)
            self.table(action.table, again, depth + 1)

    def _strays(self, action: Ct) -> list[bytes]:
        """Fragments that waited in vain, of any port and zone.

        The switch lets them out at the next ct() that any packet meets. They go on in that packet's
        place, with its port and its registers, and are +inv without +trk (observed).
        """
        if action.table is None:
            return []
        return self._host.reassembly.take_expired(self._host.now_s)

    def _reassemble(self, zone: int, table: int, frames: list[bytes]) -> Datagram | None:
        offered = [
            self._host.reassembly.offer(zone, table, frame, self._host.now_s) for frame in frames
        ]
        return offered[-1]


def conntrack_fields(tracked: Tracked, frame: bytes) -> Fields:
    """The ct_* fields of a frame (fragments: of each) of a packet in that state."""
    fields: Fields = {Field.CT_STATE: tracked.state, Field.CT_MARK: tracked.mark}
    original = tracked.original
    if original is None:
        return fields
    src, dst = (
        (Field.CT_NW_SRC, Field.CT_NW_DST)
        if len(original.src) == 4
        else (Field.CT_IPV6_SRC, Field.CT_IPV6_DST)
    )
    fields |= {
        src: int.from_bytes(original.src, "big"),
        dst: int.from_bytes(original.dst, "big"),
        Field.CT_NW_PROTO: original.proto,
    }
    # Ports are filled in together with those of the frame, which a later fragment has not.
    if extract(frame).has_l4:
        fields[Field.CT_TP_SRC], fields[Field.CT_TP_DST] = original.tp_fields
    return fields


def _packet_in(frame: bytes, packet: Packet, installed: Installed) -> PacketIn:
    fields = packet.fields
    state = fields.get(Field.CT_STATE, 0)
    told = bool(state & _TUPLE_STATES)
    src = dst = b""
    for source, target in (
        (Field.CT_NW_SRC, Field.CT_NW_DST),
        (Field.CT_IPV6_SRC, Field.CT_IPV6_DST),
    ):
        if told and source in fields:
            src = fields[source].to_bytes(source.width, "big")
            dst = fields[target].to_bytes(target.width, "big")
    return PacketIn(
        table=installed.rule.shape.table,
        in_port=packet.in_port,
        data=frame,
        cookie=installed.cookie,
        vni=fields.get(Field.REG5, 0),
        source_zone=fields.get(Field.REG6, 0),
        target_zone=fields.get(Field.REG7, 0),
        ct_state=state,
        ct_mark=fields.get(Field.CT_MARK, 0),
        ct_src=src,
        ct_dst=dst,
        ct_proto=fields.get(Field.CT_NW_PROTO, 0) if told else 0,
        ct_tp_src=fields.get(Field.CT_TP_SRC, 0) if told else 0,
        ct_tp_dst=fields.get(Field.CT_TP_DST, 0) if told else 0,
    )
