"""Hostile VMs and a hostile underlay, on real Open vSwitch with real agents."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path

import pytest

from controller_app.sqlite_store import SqliteStore
from mininet_topos.agent_host import AgentOnHost
from mininet_topos.fabric import Fabric
from mininet_topos.node import LabNode
from mininet_topos.vm import VM_INTERFACE, Vm, VmSpec
from ondemand.addresses import parse_ip, parse_mac
from ondemand.frames import ABSENT, Arp, Fragment, Kind, Malformed, NeighborDiscovery, parse
from ondemand.goal_state import compile_goal_state, encode_slices
from tests.fuzz.mutate import Mutator
from tests.fuzz.seeds import good_frames
from tests.support import hostile_wire
from tests.support.hostile_frames import BROADCAST, MARK, OPEN, End, from_underlay, from_vm, good

EAST, WEST = 6001, 6002
ATTACKER = End("02:00:00:00:01:0a", "10.0.1.10", "fd00:1::a")
NEAR = End("02:00:00:00:01:0b", "10.0.1.11", "fd00:1::b")
FAR = End("02:00:00:00:01:0c", "10.0.1.12", "fd00:1::c")
#: VMs by name: tenant, number of the host, addresses. Each of the west has a twin in the east.
VMS = {
    "east-a": ("east", 1, ATTACKER),
    "east-near": ("east", 1, NEAR),
    "east-far": ("east", 2, FAR),
    "west-near": ("west", 1, NEAR),
    "west-far": ("west", 2, FAR),
}
FLOOD = 3000
WIRE = [sys.executable, "-I", "-S", hostile_wire.__file__]
SHORT = {"rules": {"verdict_idle_s": 4, "location_idle_s": 4, "responder_idle_s": 4, "deny_s": 2}}


def goal_state() -> dict[str, object]:
    rules = [
        {"direction": direction, "ethertype": family, "protocol": protocol, **ports}
        for family in ("IPv4", "IPv6")
        for direction, protocol, ports in (
            ("ingress", "udp", {"ports": OPEN}),
            ("ingress", "icmp", {}),
        )
    ] + [{"direction": "egress", "ethertype": family} for family in ("IPv4", "IPv6")]
    return {
        "hosts": [{"id": f"h{n}", "tunnel_ip": f"192.0.2.{n}"} for n in (1, 2)],
        "vpcs": [
            {
                "id": vpc,
                "subnets": [
                    {
                        "id": f"{vpc}-net",
                        "vni": vni,
                        "cidrs": ["10.0.1.0/24", "fd00:1::/64"],
                        "gateways": ["10.0.1.1", "fd00:1::1"],
                    }
                ],
                "routers": [{"id": f"{vpc}-r", "subnets": [f"{vpc}-net"]}],
                "security_groups": [{"id": f"{vpc}-sg", "rules": rules}],
                "ports": [
                    {
                        "id": name,
                        "host": f"h{host}",
                        "subnet": f"{vpc}-net",
                        "mac": end.mac,
                        "fixed_ips": [end.ip4, end.ip6],
                        "security_groups": [f"{vpc}-sg"],
                    }
                    for name, (tenant, host, end) in VMS.items()
                    if tenant == vpc
                ],
            }
            for vpc, vni in (("east", EAST), ("west", WEST))
        ],
    }


class Site:
    """Two hosts with agents, five VMs, and a sniffer on each."""

    def __init__(self, fabric: Fabric, directory: Path) -> None:
        self.fabric = fabric
        store = directory / "slices.db"
        with SqliteStore(store, writer=True) as writer:
            writer.publish(encode_slices(compile_goal_state(goal_state())), replace_all=True)
        self.agents = [AgentOnHost(host, store, settings=SHORT) for host in fabric.hosts]
        for agent in self.agents:
            agent.start()
        for agent in self.agents:
            agent.wait_connected()
        placed = [
            (
                fabric.hosts[host - 1],
                VmSpec(
                    name, end.mac, (f"{end.ip4}/24", f"{end.ip6}/64"), ("10.0.1.1", "fd00:1::1")
                ),
            )
            for name, (_, host, end) in VMS.items()
        ]
        self.vms = dict(
            zip(VMS, fabric.add_vms(placed, iface_ids=list(VMS)), strict=True)
        )  # fmt: skip
        for number, agent in enumerate(self.agents, 1):
            assert agent.wait_for_ports([name for name, vm in VMS.items() if vm[1] == number])
        self._files = {name: directory / f"{name}.hex" for name in VMS}
        for name, vm in self.vms.items():
            vm.spawn("sniff", [*WIRE, "sniff", VM_INTERFACE, str(self._files[name])])
        assert eventually(
            lambda: all(file.exists() and file.read_text() for file in self._files.values())
        )

    def seen(self, name: str) -> list[bytes]:
        """All frames that came in at a VM so far."""
        return [bytes.fromhex(line) for line in self._files[name].read_text().split()]

    def seen_by_all(self) -> dict[str, int]:
        return {name: len(self.seen(name)) for name in VMS}

    def rules(self) -> list[int]:
        return [len(host.dump_flows()) for host in self.fabric.hosts]

    def packet_ins(self) -> int:
        """As far as the agents have told: all that is counted of packet-ins."""
        total = 0
        for agent in self.agents:
            for name, ports in agent.status["counters"].items():
                if name == "packet_in" or name.startswith("packet_in."):
                    total += sum(ports.values())
        return total

    def control(self, number: int) -> None:
        """A good frame of the attacker's raw socket arrives, here and on the other host."""
        for name, end in (("east-near", NEAR), ("east-far", FAR)):
            mark = f"good {number} to {name}".encode()
            frames = good(ATTACKER, end, mark)
            for _ in range(20):
                send(self.vms["east-a"], frames)
                if eventually(lambda n=name, m=mark: self._families(n, m) == {4, 6}, 0.5):
                    break
            assert self._families(name, mark) == {4, 6}, f"no good frame reaches {name}"
            assert self._families(name.replace("east", "west"), mark) == set()

    def _families(self, name: str, mark: bytes) -> set[int]:
        return {
            4 if frame[12:14] == b"\x08\x00" else 6 for frame in self.seen(name) if mark in frame
        }


def send(node: LabNode, frames: Iterable[bytes], interface: str = VM_INTERFACE) -> None:
    text = "\n".join(frame.hex() for frame in frames)
    node.execute([*WIRE, "send", interface], stdin_text=text, timeout_s=20)


def eventually(what: Callable[[], bool], timeout_s: float = 8.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def site(make_fabric: Callable[..., Fabric], tmp_path: Path) -> Site:
    return Site(make_fabric(hosts=2), tmp_path)


def strange(site: Site, names: Iterable[str]) -> dict[str, list[str]]:
    """What VMs saw beside the good frames of the controls: by VM, in hex."""
    found = {}
    for name in names:
        bad = [
            frame.hex()[:160]
            for frame in site.seen(name)
            if b"good " not in frame and not is_true_answer(frame)
        ]
        if bad:
            found[name] = bad[:5]
    return found


def is_true_answer(data: bytes) -> bool:
    """The agent's answer to a VM that asks for another: victims ask, to refuse what they do not serve."""
    try:
        frame = parse(data)
    except Malformed:
        return False
    holders = {
        parse_ip(ip): parse_mac(end.mac) for _, _, end in VMS.values() for ip in (end.ip4, end.ip6)
    }
    if isinstance(frame.detail, Arp):
        return frame.proto == 2 and holders.get(frame.src) == frame.detail.sha == frame.eth_src
    if isinstance(frame.detail, NeighborDiscovery):
        mac = holders.get(frame.detail.target)
        return (
            frame.tp_src == 136 and mac == frame.eth_src and frame.detail.link_layer in (None, mac)
        )
    return False


def check_sound(site: Site, memory_mib: list[float]) -> None:
    """The agents are at rest and sound: no loop, no error, bounded rules and memory, and they serve."""
    counts: list[int] = []
    # The status is written a few times a second: at rest it is the same for a second.
    assert eventually(lambda: counts.append(site.packet_ins()) or counts[-20:] == counts[-1:] * 20)
    for agent, before in zip(site.agents, memory_mib, strict=True):
        assert agent.errors() == []
        assert agent.memory_mib() < before + 20
    assert max(site.rules()) < 1000
    assert site.vms["east-near"].ping(FAR.ip4, count=3, interval_s=0.1, timeout_s=2).received
    assert site.vms["west-far"].ping(NEAR.ip6, count=3, interval_s=0.1, timeout_s=2).received


def test_nothing_of_a_hostile_vm_or_underlay_reaches_a_vm(site: Site) -> None:
    attacker: Vm = site.vms["east-a"]
    victims = [name for name in VMS if name != "east-a"]
    gateway = End("02:00:00:00:01:01", "10.0.1.1", "fd00:1::1")
    site.control(1)
    memory_mib = [agent.memory_mib() for agent in site.agents]

    # An attacker may raise its own MTU.
    attacker.ip(f"link set {VM_INTERFACE} mtu 9000")
    received = received_by_tap(attacker)
    for end in (NEAR, FAR):
        kinds = from_vm(ATTACKER, end, gateway)
        # Twice: what a first packet brings about must not let a second one through.
        for _ in range(2):
            send(attacker, [frame for frames in kinds.values() for frame in frames])
    # They did leave the VM, but for what is larger than the MTU of the veth's other end, or of both.
    sent = 4 * sum(len(frames) for kind, frames in kinds.items() if kind != "oversized")
    assert received_by_tap(attacker) - received >= sent
    site.control(2)
    assert strange(site, victims) == {}

    flood = [*from_vm(ATTACKER, NEAR, gateway)["to everybody"], *good(ATTACKER, NEAR, MARK)]
    flood = [BROADCAST_MAC + frame[6:] for frame in flood]
    send(attacker, flood * (FLOOD // len(flood)))
    site.control(3)
    assert strange(site, victims) == {}

    far, near = site.fabric.hosts[1], site.fabric.hosts[0]
    kinds_of_tunnel = from_underlay(FAR, NEAR, EAST, WEST)
    packets = [packet for packets in kinds_of_tunnel.values() for packet in packets]
    for _ in range(2):
        through_tunnel(far, near.tunnel_ip, packets)
    site.control(4)
    assert strange(site, victims) == {}

    # The control of the tunnel: each network's own VNI leads to its own VM, though their addresses
    # are the same.
    for tenant, vni in (("east", EAST), ("west", WEST)):
        mark = f"good from the underlay for {tenant}".encode()
        for _ in range(20):
            through_tunnel(far, near.tunnel_ip, [(vni, f) for f in good(FAR, NEAR, mark)])
            if eventually(lambda t=tenant, m=mark: site._families(f"{t}-near", m) == {4, 6}, 0.5):
                break
        reached = [name for name in VMS if site._families(name, mark)]
        assert reached == [f"{tenant}-near"]
    check_sound(site, memory_mib)


def received_by_tap(vm: Vm) -> int:
    told = vm.host.execute(["ip", "-s", "-j", "link", "show", vm.tap]).stdout
    count: int = json.loads(told)[0]["stats64"]["rx"]["packets"]
    return count


BROADCAST_MAC = bytes.fromhex(BROADCAST.replace(":", ""))


def through_tunnel(node: LabNode, address: str, packets: Iterable[tuple[int, bytes]]) -> None:
    text = "\n".join(f"{vni} {frame.hex()}" for vni, frame in packets)
    node.execute([*WIRE, "vxlan", address], stdin_text=text, timeout_s=20)


# -- the parser and the switch's -------------------------------------------------------------------


@pytest.mark.usefixtures("lab_machine")
def test_the_switch_reads_what_the_parser_accepts_alike(tmp_path: Path) -> None:
    """A rule made from a frame has to match that frame, or it would miss again without end."""
    mutator = Mutator(11, good_frames())
    frames = []
    while len(frames) < 10_000:
        data = mutator.frame()
        try:
            frame = parse(data)
        except Malformed:
            continue
        if frame.kind in (Kind.IPV4, Kind.IPV6) and len(data) < 9000:
            frames.append((data, frame))
    capture = tmp_path / "frames.pcap"
    with capture.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for data, _ in frames:
            file.write(struct.pack("<IIII", 0, 0, len(data), len(data)) + data)
    argv = ["ovs-ofctl", "parse-pcap", str(capture)]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    for (data, frame), line in zip(frames, lines, strict=True):
        words = dict(word.partition("=")[::2] for word in line.split(","))
        src, dst = ("nw_src", "nw_dst") if frame.kind is Kind.IPV4 else ("ipv6_src", "ipv6_dst")
        found = [ip_address(words[src]).packed, ip_address(words[dst]).packed]
        expected: list[object] = [frame.src, frame.dst]
        if frame.tp_src != ABSENT:
            pair = ("icmp_type", "icmp_code") if "icmp_type" in words else ("tp_src", "tp_dst")
            found += [words[pair[0]], words[pair[1]]]
            expected += [str(frame.tp_src), str(frame.tp_dst)]
        if frame.kind is Kind.IPV4 or frame.fragment is not Fragment.NOT_FRAGMENT:
            # Reserved bits of an IPv6 fragment header make a first fragment of it for the switch.
            found.append(words["nw_frag"])
            expected.append(("no", "first", "later")[frame.fragment])
        assert found == expected, f"{data.hex()}: {line}"
