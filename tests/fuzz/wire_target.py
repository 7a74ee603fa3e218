"""Frames at the ports of a fake switch: from VMs, and from tunnels of any network.

What arrives at a VM was looked at by the rules alone, so here the rules are under test: nothing spoofed,
nothing of the link, nothing tagged, nothing to a wrong port.
"""

from __future__ import annotations

from ondemand.addresses import link_local_of
from ondemand.frames import ABSENT, Frame, Kind, Malformed, parse
from ondemand.goal_ports import PortSpec
from ondemand.malformed import Reason
from ondemand.pipeline import LINK_LOCAL_ICMPV6
from tests.fuzz.engine_target import CHECK_EVERY, PAIRS, RENEW_EVERY, cloud, new_lab
from tests.fuzz.kept import Kept, load
from tests.fuzz.mutate import Mutator
from tests.fuzz.seeds import cloud_frames, good_frames
from tests.support.lab import Lab, Sent
from tests.support.office_cloud import BLUE_VNI, RED_VNI
from tests.support.world_builder import HERE, THERE

_SENDERS = ("a", "a", "a2", "b", "d", "p")
#: A port's own question is answered by these: ARP reply, echo reply, advertisement.
_ANSWERS = {(Kind.ARP, 2), (Kind.IPV4, 0), (Kind.IPV6, 129), (Kind.IPV6, 136)}
_DHCP = {(17, 67, 68), (17, 547, 546)}
#: What the agent refuses and the switch does not look at. No rule is made for such a frame, but it may
#: meet one that was made for a good frame of the same addresses, protocol and ports.
_UNSEEN = {
    Reason.IP_VERSION,
    Reason.EXTENSION_SHORT,
    Reason.EXTENSION_ORDER,
    Reason.EXTENSION_COUNT,
}


class WireTarget:
    name = "wire"

    def __init__(self, seed: int) -> None:
        frames = cloud_frames(cloud(), PAIRS)
        self._mutator = Mutator(seed, [*frames, *frames, *good_frames()])
        self._mutator.good += [one.data for one in load("parse")]
        self._lab = new_lab()
        self._count = 0

    def make(self) -> Kept:
        chance = self._mutator
        data = chance.frame() if chance.below(5) else chance.good[chance.below(len(chance.good))]
        if chance.below(3):
            facts = {"sender": _SENDERS[chance.below(len(_SENDERS))]}
        else:
            facts = {"vni": str(chance.pick((RED_VNI, RED_VNI, RED_VNI, BLUE_VNI, BLUE_VNI, 0, 7)))}
        return Kept(self.name, "", data, facts)

    def run(self, given: Kept) -> str:
        self._count += 1
        outcome = send(self._lab, given)
        if self._count % CHECK_EVERY == 0:
            self._lab.check()
            self._lab.advance(0.5)
        if self._count % RENEW_EVERY == 0:
            self._lab = new_lab()
        return outcome

    def replay(self, given: Kept) -> str:
        lab = new_lab()
        try:
            outcome = send(lab, given)
            lab.check()
        finally:
            self._lab = new_lab()
        return outcome


def send(lab: Lab, given: Kept) -> str:
    """Send it twice: through the engine, and past it if there is a rule now."""
    outcome = ""
    for _ in range(2):
        if "sender" in given.facts:
            sent = lab.send(given.facts["sender"], given.data)
        else:
            sent = lab.from_tunnel(HERE, int(given.facts["vni"]), given.data, THERE)
        for port, frame in sent.arrived:
            _check_arrival(lab, given, port, frame)
        outcome = outcome or _words(given, sent)
    return outcome


def _words(given: Kept, sent: Sent) -> str:
    origin = "vm" if "sender" in given.facts else "tunnel"
    if sent.arrived:
        answered = sent.reached == [given.facts.get("sender")]
        kinds = {_kind(frame) for _, frame in sent.arrived}
        return f"{origin} {'answered' if answered else 'delivered'} {' '.join(sorted(kinds))}"
    return f"{origin} {' '.join(sorted(set(sent.dropped_by))) or 'gone'}"


def _kind(data: bytes) -> str:
    try:
        frame = parse(data)
    except Malformed:
        return "malformed"
    return f"{frame.kind.name} {frame.proto if frame.proto in (1, 6, 17, 58, 132) else 'other'}".lower()


def _check_arrival(lab: Lab, given: Kept, port: str, data: bytes) -> None:
    sender = given.facts.get("sender")
    target = lab.cloud.port_spec(port)
    try:
        frame = parse(data)
    except Malformed as error:
        # An answer follows the question; who has no port security asked for all there is.
        is_lawful = port == sender or not target.port_security or error.reason in _UNSEEN
        if is_lawful:
            return
        raise AssertionError(f"malformed, and delivered to {port}: {error.reason.value}") from error
    if port == sender:
        number = frame.proto if frame.kind is Kind.ARP else frame.tp_src
        assert (frame.kind, number) in _ANSWERS, f"{sender} gets back what is no answer: {frame}"
        return
    assert frame.vlan == ABSENT, f"{port} gets a tagged frame"
    assert frame.eth_dst in _macs(target), f"{port} gets what is for another MAC: {frame}"
    if frame.kind is Kind.IPV6 and frame.proto == 58:
        assert frame.tp_src not in (*LINK_LOCAL_ICMPV6, 135), f"{port} gets {frame}"
    if sender is None:
        assert int(given.facts["vni"]) == target.subnet.vni
        is_known = not target.port_security  # test_fuzz.py: ARP reaches it out of a tunnel
        assert is_known or frame.kind in (Kind.IPV4, Kind.IPV6), f"{port} gets {frame}"
        return
    assert frame.kind in (Kind.IPV4, Kind.IPV6), f"{port} gets {frame}"
    if target.port_security:
        assert _may_use(target, frame.dst), f"{port} gets what is for another address: {frame}"
    if lab.cloud.port_spec(sender).port_security:
        _check_sender(lab.cloud.port_spec(sender), given, frame)


def _check_sender(sender: PortSpec, given: Kept, frame: Frame) -> None:
    before = parse(given.data)
    assert before.eth_src in _macs(sender), f"a spoofed MAC arrives: {frame}"
    is_dhcp_client = (frame.proto, frame.tp_src, frame.tp_dst, any(frame.src)) == (
        17,
        68,
        67,
        False,
    )
    assert _may_use(sender, frame.src) or is_dhcp_client, f"a spoofed address arrives: {frame}"
    assert (frame.proto, frame.tp_src, frame.tp_dst) not in _DHCP, f"a DHCP server: {frame}"


def _macs(port: PortSpec) -> set[bytes]:
    return {port.mac, *(pair.mac for pair in port.pairs)}


def _may_use(port: PortSpec, ip: bytes) -> bool:
    return (
        ip in port.fixed_ips
        or any(pair.prefix.contains(ip) for pair in port.pairs)
        or ip in {link_local_of(mac) for mac in _macs(port)}
    )
