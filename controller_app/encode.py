"""What the engine wants done, as OpenFlow 1.3 bytes for Open vSwitch.

The xid of a flow-mod is the low 32 bits of its cookie (the serial), that of a meter-mod the meter. A
flow-mod's answer is silence or an error, and an error carries the xid and the first 64 bytes of what
failed (OpenFlow 1.3.5 section 7.4.4), so that ``decode.failed_cookie`` can tell which rule it was.
"""

from __future__ import annotations

import struct
from typing import Final

from controller_app.flow_mod import (
    ANY,
    FLOW_MOD,
    NO_BUFFER,
    SEND_FLOW_REMOVED,
    SET_GENERATION_HEADER,
    SET_TUN_ID_HEADER,
    VERSION,
    EncodeError,
    Template,
    resubmit,
)
from ondemand.messages import Effects, SetMeter
from ondemand.pipeline import ON_DEMAND, P_DEFAULT, Pipeline, Table
from rule_cache.rule import Arg, Meter, Rule, Shape

_EXPERIMENTER, _PACKET_OUT, _BARRIER_REQUEST, _SET_ASYNC, _METER_MOD = 4, 13, 20, 28, 29
#: Nicira's experimenter id and the number of its message (nicira-ext.h).
_NICIRA, _CT_FLUSH_ZONE = 0x2320, 29
_DELETE: Final = 3
_ALL_TABLES: Final = 0xFF
_ALL_BITS: Final = 0xFFFFFFFFFFFFFFFF
_METER_ADD, _METER_MODIFY, _METER_DELETE = 0, 1, 2
#: OFPMF_PKTPS | OFPMF_BURST, and the one band that drops (OpenFlow 1.3.5 section 7.3.4.5).
_METER_FLAGS: Final = 0x0002 | 0x0004
_BAND_DROP: Final = 1

# Header, cookie, mask, table, command, timeouts and priority, buffer, ports, flags, an empty match.
_pack_delete = struct.Struct(">BBHIQQBB6xIIIHxxHH4x").pack
_pack_packet_out = struct.Struct(">BBHIIIH6x").pack
_pack_u64 = struct.Struct(">Q").pack
_pack_u32_padded = struct.Struct(">I4x").pack
_pack_set_async = struct.Struct(">BBHIIIIIII").pack
_pack_flush_zone = struct.Struct(">BBHIII6xH").pack
_pack_barrier = struct.Struct(">BBHI").pack
_pack_meter = struct.Struct(">BBHIHHI").pack
_pack_band = struct.Struct(">HHII4x").pack


def reports_removal(shape: Shape, pipeline: Pipeline) -> bool:
    """Whether the switch says so when it drops a rule of this shape by itself.

    True for the rules that come and go with traffic, not for the misses of their tables.
    """
    return shape.priority > P_DEFAULT and pipeline.table_of(shape.table) in ON_DEMAND


class Encoder:
    """Encodes the rules of one pipeline. Has no state besides the templates; any thread may use it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._templates: dict[Shape, Template] = {}
        #: Shapes with a meter: the index of the argument, and the template for meter 0, "none".
        self._unmetered: dict[Shape, tuple[int, Template]] = {}
        for shape in pipeline.shapes:
            flags = SEND_FLOW_REMOVED if reports_removal(shape, pipeline) else 0
            meter = next((a.meter for a in shape.actions if isinstance(a, Meter)), None)
            self._templates[shape] = Template(shape, flags=flags, metered=meter != 0)
            if isinstance(meter, Arg):
                plain = Template(shape, flags=flags, metered=False)
                self._unmetered[shape] = shape.args.index(meter.name), plain
        self._resubmit = resubmit(pipeline.number(Table.CLASSIFY))

    def add(self, rule: Rule, cookie: int) -> bytes:
        """Add the rule, or put it in the place of one with the same table, priority and match.

        Raises:
            EncodeError: the shape is of another pipeline, or a value does not fit its field.
        """
        shape = rule.shape
        try:
            template = self._templates[shape]
        except KeyError:
            raise EncodeError(f"{shape.name}: not a shape of this encoder's pipeline") from None
        if shape in self._unmetered:
            index, plain = self._unmetered[shape]
            if index < len(rule.values) and not rule.values[index]:
                template = plain
        return template.add(rule, cookie)

    def delete(self, cookie: int) -> bytes:
        """Delete the rules with exactly this cookie, in any table."""
        return self.delete_matching(cookie, _ALL_BITS)

    def delete_matching(self, cookie: int, mask: int) -> bytes:
        """Delete the rules whose cookie equals ``cookie`` where ``mask`` has ones, in any table."""
        return _pack_delete(
            VERSION,
            FLOW_MOD,
            56,
            cookie & 0xFFFFFFFF,
            cookie,
            mask,
            _ALL_TABLES,
            _DELETE,
            NO_BUFFER,
            ANY,
            ANY,
            0,
            1,
            4,
        )

    def packet_out(self, in_port: int, tun_id: int, data: bytes, generation: int) -> bytes:
        """Put a frame through the pipeline as if it came in by ``in_port``.

        ``tun_id`` is what the frame came out of its tunnel with, 0 when it came from a local port.
        ``generation`` goes into reg3, which no rule matches: registers are part of what the datapath
        tells recirculated packets apart by, so a frame of a new generation meets no megaflow that an
        earlier one left, in particular not the one that sent it here (docs/pipeline.md).

        Raises:
            EncodeError: a number or the frame does not fit an OpenFlow message of 65535 bytes.
        """
        try:
            actions = SET_GENERATION_HEADER + _pack_u32_padded(generation) + self._resubmit
            if tun_id:
                actions = SET_TUN_ID_HEADER + _pack_u64(tun_id) + actions
            length = 24 + len(actions) + len(data)
            head = _pack_packet_out(
                VERSION, _PACKET_OUT, length, 0, NO_BUFFER, in_port, len(actions)
            )
        except struct.error as error:
            raise EncodeError(
                f"packet-out of {len(data)} bytes for port {in_port}, tunnel {tun_id}: {error}"
            ) from error
        return head + actions + data

    def barrier(self, xid: int) -> bytes:
        """The switch does all before it, then answers with this xid, then does what follows."""
        return _pack_barrier(VERSION, _BARRIER_REQUEST, 8, xid)

    def report_evictions(self) -> bytes:
        """Have evicted rules reported as flow-removed, which Open vSwitch does not by default.

        OFPT_SET_ASYNC (OpenFlow 1.3.5 section 7.3.10) sets all reports at once: the others as they
        are by default, and flow-removed for reasons 0..5, of which 5 is OpenFlow 1.4's "eviction".
        """
        return _pack_set_async(VERSION, _SET_ASYNC, 32, 0, 0x3, 0, 0x7, 0, 0x3F, 0)

    def flush_zone(self, zone: int) -> bytes:
        """Forget all connections of a conntrack zone.

        NXT_CT_FLUSH_ZONE of Open vSwitch (since 2.6, ovs-ofctl(8) "ct-flush-zone"): an experimenter
        message, done in order with the flow-mods around it.
        """
        return _pack_flush_zone(VERSION, _EXPERIMENTER, 24, zone, _NICIRA, _CT_FLUSH_ZONE, zone)

    def meter_mod(self, meter: SetMeter, *, exists: bool) -> bytes:
        """Add, change or (rate 0) delete a meter.

        ``exists`` tells whether the switch has it: to add one that exists and to change one that does
        not are errors. Deleting it deletes the rules that use it too (OpenFlow 1.3.5 section 7.3.4.5),
        so a meter is never changed by deleting it first.

        Raises:
            EncodeError: a number is below 0 or has over 32 bits.
        """
        try:
            if meter.rate == 0:
                command, bands = _METER_DELETE, b""
            else:
                command = _METER_MODIFY if exists else _METER_ADD
                bands = _pack_band(_BAND_DROP, 16, meter.rate, meter.burst)
            length = 16 + len(bands)
            head = _pack_meter(
                VERSION, _METER_MOD, length, meter.meter, command, _METER_FLAGS, meter.meter
            )
        except struct.error as error:
            raise EncodeError(f"{meter} does not fit a meter-mod: {error}") from error
        return head + bands


#: The xid of the barrier inside an Effects; its answer needs no handling.
EFFECTS_BARRIER_XID: Final = 0


def encode_effects(
    effects: Effects, encoder: Encoder, meters: set[int], generation: int = 1
) -> bytes:
    """All that goes to the switch, in the order that the fields of Effects promise.

    ``generation`` is that of the packet-outs, a number that the last batches did not have (32 bits).

    ``meters`` are the meters that the switch has; it is brought up to date.

    Raises:
        EncodeError: a rule or a frame does not fit; ``meters`` is as it was.
    """
    # What becomes of a meter in the end. Those that go go first: a port's rules tell whose a meter was,
    # so should the connection end behind them it is found, and deleted, when the rules are read back.
    final = {meter.meter: meter for meter in effects.meters}
    known = set(meters) if effects.meters else meters
    out = [encoder.meter_mod(m, exists=True) for m in final.values() if not m.rate]
    known.difference_update(m.meter for m in final.values() if not m.rate)
    out += [encoder.delete(cookie) for cookie in effects.deletes]
    out += [encoder.flush_zone(zone) for zone in effects.flush_zones]
    for meter in (m for m in final.values() if m.rate):
        out.append(encoder.meter_mod(meter, exists=meter.meter in known))
        known.add(meter.meter)
    add = encoder.add
    out += [add(rule, cookie) for cookie, rule in effects.adds]
    out += [encoder.packet_out(*packet, generation) for packet in effects.packet_outs]
    if effects.after_barrier or effects.late_deletes:
        out.append(encoder.barrier(EFFECTS_BARRIER_XID))
        out += [add(rule, cookie) for cookie, rule in effects.after_barrier]
    if effects.late_deletes:
        # A mark that the old rules let pass must meet the new ones when they go.
        out.append(encoder.barrier(EFFECTS_BARRIER_XID))
        out += [encoder.delete(cookie) for cookie in effects.late_deletes]
    if effects.meters:
        meters.clear()
        meters |= known
    return b"".join(out)
