"""FakeSwitch's interface over a real Open vSwitch bridge: what the engine wants goes there in OpenFlow.

Rules, meters and packets take the way that they take in service: the encoder, a connection to the
bridge, the decoders. Each call returns when the switch is done with it. Three things are not as in
service. Where a rule was changed, packets that come afterwards go by the new rules at once, not only
when a revalidator has come round (a packet-out in the same batch goes by whatever is there). The clock
stands still between calls of ``expire``. And what the switch merely drops leaves no outcome.

Without a counterpart here: ``refuse``, ``cut_after``, ``path``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from controller_app.decode import (
    ERROR,
    FLOW_REMOVED,
    PACKET_IN,
    PacketInDecoder,
    decode_error,
    decode_flow_removed,
    failed_cookie,
)
from controller_app.encode import Encoder, encode_effects, reports_removal
from controller_app.flow_stats import (
    MULTIPART_REPLY,
    flow_entries,
    flow_stats_reply,
    flow_stats_request,
)
from controller_app.meter_stats import meters_reply, meters_request
from controller_app.rule_reader import RuleReader
from controller_app.switch_read_back import SwitchReadBack
from mininet_topos.lab_run import LabRun
from ondemand.adoption import FoundRule
from ondemand.messages import Effects, FlowRemoved
from ondemand.pipeline import Pipeline
from rule_cache.rule import Rule
from tests.support.clocked_ovs import ClockedOvs
from tests.support.fake_outcomes import Applied, Outcome
from tests.support.far_ends import MARKER_PORT, FarEnds
from tests.support.switch_client import SwitchClient

BRIDGE: Final = "br-walk"
#: Of the rule that serves markers; not one of ours.
MARKER_COOKIE: Final = 0x77
_XID: Final = 0x7700_0000
#: OFPT_PORT_STATUS, in whose place the agent has OVSDB, and the answers to barriers inside Effects.
_NO_NEWS: Final = (12, 21)


class RealSwitch:
    """Bridge ``br-walk`` of a node of ``run``. Close it before the run.

    Attributes:
        now_s: the time of the last call of ``expire``; the switch's clock went along with it.
    """

    def __init__(self, run: LabRun, tunnel_address: str, peers: list[str]) -> None:
        """``tunnel_address`` with its prefix length; ``peers``: those of other hosts."""
        self.node = ClockedOvs(run, "walk", tunnel_address, peers)
        self.node.vsctl(
            *("add-br", BRIDGE, "--", "set", "Bridge", BRIDGE),
            *("datapath_type=netdev", "fail_mode=secure"),
        )
        self._far = FarEnds(self.node, BRIDGE)
        self.serve(Pipeline())
        self._decoder = PacketInDecoder()
        self._generation = 0
        self.now_s = 0.0
        self._removed: list[FlowRemoved] = []
        self._has_new_rules = True
        self._client = self._connect()

    def close(self) -> None:
        self._client.close()
        self._far.close()

    # -- life ------------------------------------------------------------------------------------

    def begin(self, now_s: float, pipeline: Pipeline) -> None:
        """Start a new test: no rules, no ports, the time ``now_s``."""
        self._far.unplug(*self._far.ofports)
        self.serve(pipeline)
        self.now_s = now_s
        self.clear()

    def serve(self, pipeline: Pipeline) -> None:
        """Take the effects of an engine with this pipeline; each engine has its own."""
        self._pipeline = pipeline
        self._encoder = Encoder(pipeline)

    def clear(self) -> None:
        """ovs-vswitchd is killed and starts anew: rules, meters and connections are gone."""
        self._client.close()
        self.node.kill_vswitchd()
        self.node.start_vswitchd()
        self._client = self._connect()

    def reconnect(self) -> None:
        """The OpenFlow connection ends and another begins; what was not read yet is lost."""
        self._client.close()
        self._client = self._connect()

    def _connect(self) -> SwitchClient:
        self.node.add_flows(BRIDGE, f"cookie={MARKER_COOKIE:#x},{self._far.marker_rule}")
        client = SwitchClient(self.node.directory / f"{BRIDGE}.mgmt")
        client.send(self._encoder.report_evictions())
        client.barrier()
        self._removed.clear()
        self._has_new_rules = True
        self._known_meters: set[int] = set()
        return client

    # -- ports -----------------------------------------------------------------------------------

    def add_port(self, ofport: int) -> None:
        self._far.plug(ofport)

    def add_tunnel_port(self, ofport: int) -> None:
        self._far.plug_tunnel(ofport)

    def remove_port(self, ofport: int) -> None:
        """Take a port out of the bridge. Its rules stay."""
        self._far.unplug(ofport)

    # -- rules -----------------------------------------------------------------------------------

    def apply(self, effects: Effects, now_s: float | None = None) -> Applied:
        """Do what ``effects`` ask of a switch."""
        self._check_time(now_s)
        self._generation = self._generation % 0xFFFF + 1
        data = encode_effects(effects, self._encoder, self._known_meters, self._generation)
        outcomes: list[Outcome] = []
        refused: list[tuple[int, str]] = []
        if data:
            self._client.send(data)
            for message in self._client.barrier():
                if message[1] == ERROR:
                    refused.append(_refusal(message))
                else:
                    self._take(message, outcomes)
            self._has_new_rules = True
        if effects.packet_outs:
            outcomes += self._outcomes(MARKER_PORT)
        removed, self._removed = self._removed, []
        return Applied(tuple(outcomes), tuple(removed), tuple(refused))

    def expire(self, now_s: float) -> list[FlowRemoved]:
        """Let time pass: rules whose idle or hard timeout is over leave, and are reported."""
        before = {cookie: rule for cookie, rule in self.rules() if self._is_reported(rule)}
        if now_s > self.now_s:
            self.node.advance(round((now_s - self.now_s) * 1000))
            self.now_s = now_s
        # A changed rule makes the switch look at all of them, which it would do in a while anyway.
        self.node.add_flows(BRIDGE, f"cookie={MARKER_COOKIE:#x},{self._far.marker_rule}")
        self.node.control.run("revalidator/wait")
        gone = before.keys() - {cookie for cookie, _ in self.rules()}
        while not gone <= {removed.cookie for removed in self._removed}:
            for message in self._client.receive():
                self._take(message, [])
        removed, self._removed = self._removed, []
        return removed

    def rules(self) -> list[tuple[int, Rule]]:
        """(cookie, rule) of all rules that the switch reports, but for that of markers.

        Raises:
            ValueError: a rule is none of this pipeline.
        """
        reader = RuleReader(self._pipeline)
        found: list[tuple[int, Rule]] = []
        for message in self._ask(flow_stats_request(_XID, 0, 0)):
            if flow_stats_reply(message, 0, len(message)) is None:
                raise ValueError(f"no flow statistics: {message.hex()}")
            for cookie, table, start, end in flow_entries(message, 0, len(message)):
                rule = reader.read(message, start, end)
                if rule is None and cookie != MARKER_COOKIE:
                    raise ValueError(
                        f"nobody made the rule {cookie:#x} of table {table}: "
                        f"{self.node.dump_flows(BRIDGE, f'cookie={cookie:#x}/-1')}"
                    )
                if rule is not None:
                    found.append((cookie, rule))
        return found

    @property
    def meters(self) -> set[int]:
        """Ids of the meters that the switch reports."""
        answers = self._ask(meters_request(_XID))
        return {meter for message in answers for meter in meters_reply(message)[0]}

    def _is_reported(self, rule: Rule) -> bool:
        return reports_removal(rule.shape, self._pipeline)

    # -- for an agent that connects --------------------------------------------------------------

    def read_back(self, reading: SwitchReadBack) -> ReadOut:
        """Ask what an agent that connects asks; all that ``reading`` wants at first is then there."""
        self._exchange(reading, reading.begin())
        if not reading.is_begun:
            raise RuntimeError("the switch has not told all that it was asked")
        self._known_meters = set(reading.meters)
        return ReadOut(self, reading)

    def _exchange(self, reading: SwitchReadBack, request: bytes) -> None:
        while request:
            answers, request = self._ask(request), b""
            for message in answers:
                request += reading.take(message)

    def read_on(self, reading: SwitchReadBack) -> None:
        """Ask for what comes next."""
        request = reading.more()
        if not request:
            raise RuntimeError("a read-back that is not complete has nothing to ask")
        self._exchange(reading, request)

    # -- packets ---------------------------------------------------------------------------------

    def inject(self, ofport: int, frame: bytes, now_s: float | None = None) -> list[Outcome]:
        """A frame arrives at a port."""
        self._check_time(now_s)
        if not self._far.has(ofport):
            raise ValueError(f"port {ofport} is not in the switch: add_port it first")
        self._use_new_rules()
        self._far.send(ofport, frame)
        return self._outcomes(ofport)

    def inject_tunnel(
        self, vni: int, frame: bytes, tun_src: bytes, now_s: float | None = None
    ) -> list[Outcome]:
        """A frame arrives from the host ``tun_src`` (4 bytes); without a tunnel port it is lost."""
        self._check_time(now_s)
        if not self._far.tunnel_port:
            return []
        self._use_new_rules()
        self._far.send_by_tunnel(vni, frame, tun_src)
        return self._outcomes(self._far.tunnel_port)

    def _use_new_rules(self) -> None:
        if self._has_new_rules:
            self.node.control.run("revalidator/purge")
            self._has_new_rules = False

    def _outcomes(self, ofport: int) -> list[Outcome]:
        """What came of all that was sent to a port, or by packet-out, until now."""
        packet_ins: list[Outcome] = []
        for _ in range(2):
            marker = self._far.mark(ofport)
            is_over = False
            while not is_over:
                for message in self._client.receive():
                    is_over |= self._take(message, packet_ins, marker)
        return [*self._far.until(marker), *packet_ins]

    # -- inside ----------------------------------------------------------------------------------

    def _ask(self, request: bytes) -> Iterator[bytes]:
        """The multipart replies that come before the answer to a barrier."""
        self._client.send(request)
        answers = []
        for message in self._client.barrier():
            if message[1] == MULTIPART_REPLY:
                answers.append(message)
            else:
                self._take(message, [])
        return iter(answers)

    def _take(self, message: bytes, outcomes: list[Outcome], marker: bytes = b"") -> bool:
        """Keep what a message says; whether it is about the marker."""
        size = len(message)
        if message[1] == PACKET_IN:
            packet = self._decoder.decode(message, 0, size)
            if packet.cookie == MARKER_COOKIE:
                return packet.data == marker
            outcomes.append(packet)
        elif message[1] == FLOW_REMOVED:
            self._removed.append(decode_flow_removed(message, 0, size))
        elif message[1] not in _NO_NEWS:
            raise ValueError(f"the switch sent {message.hex()}")
        return False

    def _check_time(self, now_s: float | None) -> None:
        if now_s not in {None, self.now_s}:
            raise ValueError(f"it is {self.now_s}, not {now_s}: time goes on in expire alone")


class ReadOut:
    """A read-back as the engine takes it (``ondemand.adoption.Found``), which asks when it must."""

    def __init__(self, switch: RealSwitch, reading: SwitchReadBack) -> None:
        self._switch = switch
        self._reading = reading

    def next(self) -> FoundRule | None:
        self._ask_until_there_is_one()
        return self._reading.next()

    @property
    def has_next(self) -> bool:
        self._ask_until_there_is_one()
        return self._reading.has_next

    @property
    def is_complete(self) -> bool:
        self._ask_until_there_is_one()
        return self._reading.is_complete

    def _ask_until_there_is_one(self) -> None:
        while not (self._reading.has_next or self._reading.is_complete):
            self._switch.read_on(self._reading)


def _refusal(message: bytes) -> tuple[int, str]:
    """Cookie and reason of a rule that the switch did not take.

    Raises:
        ValueError: it was something else that it did not take.
    """
    _, kind, code, data = decode_error(message, 0, len(message))
    cookie = failed_cookie(data)
    if cookie is None:
        raise ValueError(f"the switch refused {data.hex()}: error type {kind}, code {code}")
    return cookie, f"error type {kind}, code {code}"
