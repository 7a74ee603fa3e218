"""A real agent and a real Open vSwitch with a ``FaultProxy`` between them, and a cloud around them.

Frames are put in by packet-out, as if they came in by a VM's port; nobody reads what is delivered. What
counts is which rules come about, and that agent and switch agree on them.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import os_ken.base.app_manager  # noqa: F401 - os_ken.controller.controller needs it first
from os_ken.lib import hub

from controller_app.agent import Agent
from controller_app.encode import Encoder
from controller_app.flow_stats import flow_entries, flow_stats_request
from controller_app.hot_listener import Installation, install
from controller_app.ovsdb_ports import InterfacesTold, PortGone, PortSeen, TunnelSeen
from controller_app.rule_reader import RuleReader
from mininet_topos.ovs_node import OvsNode
from ondemand.addresses import parse_ip
from ondemand.codec import encode_record
from ondemand.engine import Engine
from ondemand.messages import Fetch, SetMeter
from ondemand.pipeline import Pipeline
from ondemand.settings import Settings
from rule_cache.cookie import MAGIC_MASK, MAGIC_VALUE
from rule_cache.rule import Rule
from tests.support.fault_proxy import FaultProxy
from tests.support.fault_source import FaultSource
from tests.support.os_ken_bricks import running_bricks
from tests.support.packet_in_bytes import message
from tests.support.switch_client import SwitchClient
from tests.support.truth_check import (
    active_ports,
    check_bounds,
    check_ports,
    check_rules,
    check_switch,
    world_from_store,
)
from tests.support.vm_frames import VmFrames
from tests.support.world_builder import HERE, TUNNELS, CloudBuilder

BRIDGE: Final = "br-fault"
DATAPATH_ID: Final = 0xFA17
TUNNEL_PORT: Final = 1
#: OpenFlow numbers of the interfaces that there are for VMs.
VM_PORTS: Final = range(10, 15)
TIMEOUT_S: Final = 3.0
#: Nothing expires by itself while a test runs.
LASTING: Final = Settings(deny_s=3600, outage_deny_s=3600)

_ERROR, _MULTIPART_REQUEST, _METER_CONFIG = 1, 18, 10


class FaultSite:
    """One compute host.

    Attributes:
        agent: the agent that runs now; ``engine`` is its engine.
        proxy: between agent and switch.
        plugged: port id to OpenFlow port.
        warnings: what agents warned of.
    """

    def __init__(
        self, node: OvsNode, cloud: CloudBuilder, proxy: FaultProxy, targets: list[Path]
    ) -> None:
        self.node = node
        self.cloud = cloud
        self.proxy = proxy
        self.source = FaultSource(cloud.store())
        self.plugged: dict[str, int] = {}
        self.warnings: list[str] = []
        self._targets = targets
        self._turn = 0
        self._generation = 0
        self._sentinels = 0
        self._encoder = Encoder(Pipeline())
        self.client = SwitchClient(node.directory / f"{BRIDGE}.mgmt")
        self._reader = RuleReader(Pipeline())
        self._database = _Database(node.db_socket)
        self.installation: Installation | None = None
        self.start_agent()

    # -- life ------------------------------------------------------------------------------------

    def start_agent(self, settings: Settings = LASTING, *, round_number: int = 1) -> None:
        """Begin with a new agent, which knows the plugged ports, and nothing of the switch."""
        self.engine = Engine(
            host=HERE,
            tunnel_ip=parse_ip(TUNNELS[HERE]),
            settings=settings,
            round_number=round_number,
            first_epoch=1 + 1000 * round_number,
        )
        self.agent = Agent(self.engine, self.source, warn=self.warnings.append)
        self.installation = install(self.agent)
        self.agent.serve_switch(DATAPATH_ID)
        self.agent.post(TunnelSeen("tunnel", TUNNEL_PORT))
        for port, ofport in self.plugged.items():
            self._tell(port, ofport)
        self.agent.post(InterfacesTold(BRIDGE))

    def end_agent(self) -> None:
        """The agent is gone; rules stay."""
        if self.installation is not None:
            self.installation.uninstall()
            self.installation = None
        self.agent.serve_switch(0)
        self.proxy.cut()
        self._until(lambda: self.agent._connection is None)
        self.agent.close()

    def serve(self, sock: Any, address: Any) -> None:
        """What the listener does with a connection: give it to the agent that runs now."""
        if self.installation is not None:
            self.installation._serve(sock, address)
        else:
            sock.close()

    def reconnect(self) -> None:
        """Have the switch connect at once; by itself it would wait a second.

        Another target is another connection to Open vSwitch, and the former one ends.
        """
        self.proxy.cut()
        self._until(lambda: self.agent._connection is None)
        self.agent.idle()
        self._turn = (self._turn + 1) % len(self._targets)
        target = self._targets[self._turn]
        self._database.set_controller(f"unix:{target}")
        self.proxy.wait_linked(target)

    def close(self) -> None:
        self.node.vsctl("del-controller", BRIDGE)
        self.end_agent()
        self.client.close()
        self._database.close()

    # -- what happens ----------------------------------------------------------------------------

    def plug(self, port: str, ofport: int) -> None:
        self.plugged[port] = ofport
        self._tell(port, ofport)

    def _tell(self, port: str, ofport: int) -> None:
        self.agent.post(PortSeen(port, f"tap-{port}", ofport, None))

    def unplug(self, port: str) -> None:
        del self.plugged[port]
        self.agent.post(PortGone(port, f"tap-{port}"))

    def publish(self) -> None:
        """Make the source hold what the cloud is now."""
        wanted = self.cloud.slices()
        for name in sorted(wanted.keys() | set(self.source.store.names)):
            records = wanted.get(name, {})
            self.source.write(name, {key: encode_record(r) for key, r in records.items()})

    def frames(self, family: int = 4) -> VmFrames:
        return VmFrames(self.cloud, family)

    def send(self, port: str, *frames: bytes) -> None:
        """Frames of a VM; each packet-in that they cause is with the agent's connection afterwards."""
        for frame in frames:
            self._generation += 1
            # Far from the generations that the agent gives out, see Encoder.packet_out.
            generation = 1 << 20 | self._generation
            self.client.send(self._encoder.packet_out(self.plugged[port], 0, frame, generation))
        errors = [m for m in self.client.barrier() if m[1] == _ERROR]
        assert errors == []

    def expire(self, *cookies: int) -> None:
        """The switch drops rules by itself, or so the agent must think: it is told."""
        self.client.send(b"".join(self._encoder.delete(cookie) for cookie in cookies))
        self.client.barrier()

    # -- quiet -----------------------------------------------------------------------------------

    def settle(self) -> bool:
        """Wait until nothing is left to do for anybody; after a cut the switch connects at once.

        Returns:
            Whether the connection had been lost.
        """
        was_lost = False
        quiet = 0
        deadline_s = time.monotonic() + TIMEOUT_S
        while quiet < 2:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"no rest: {self.agent.status()}, {self.warnings[-5:]}")
            before = self.proxy.passed
            # After a hello Open vSwitch sleeps for half a second, unless somebody else wakes it up.
            if not self.proxy.probe(nudge=self.client.barrier):
                was_lost, quiet = True, 0
                self.reconnect()
                continue
            if self._is_idle() and self.proxy.passed == before:
                quiet += 1
            else:
                quiet = 0
                time.sleep(0.001)
        return was_lost

    def _is_idle(self) -> bool:
        agent, engine = self.agent, self.engine
        self._sentinels += 1
        sentinel = f"sentinel-{self._sentinels}"
        agent._link.ask(Fetch("nbr/nobody/10.0.0.0", sentinel))
        self._until(lambda: sentinel in self.source.asked)
        self.source.asked.clear()
        return (
            agent._connection is not None
            and not agent._mailbox
            and agent._reading is None
            and not (engine.is_adopting or engine.has_work or engine.has_effects)
        )

    def _until(self, condition: Any) -> None:
        deadline_s = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"it did not come about: {self.agent.status()}")
            time.sleep(0.0005)

    # -- truth -----------------------------------------------------------------------------------

    def in_switch(self) -> dict[int, Rule | None]:
        """Cookie -> rule of all that carries our cookie, as a connection of its own is told."""
        found: dict[int, Rule | None] = {}
        self.client.send(flow_stats_request(1, MAGIC_VALUE, MAGIC_MASK))
        for reply in self.client.barrier():
            if reply[1] == 19:
                for cookie, _, start, end in flow_entries(reply, 0, len(reply)):
                    assert cookie not in found
                    found[cookie] = self._reader.read(reply, start, end)
        return found

    def meters(self) -> set[int]:
        body = _METER_CONFIG.to_bytes(2, "big") + bytes(6) + b"\xff" * 4 + bytes(4)
        self.client.send(message(_MULTIPART_REQUEST, body, xid=2))
        (reply,) = [m for m in self.client.barrier() if m[1] == 19]
        found, at = set(), 16
        while at < len(reply):
            found.add(int.from_bytes(reply[at + 4 : at + 8], "big"))
            at += int.from_bytes(reply[at : at + 2], "big")
        return found

    def remove_spare_meters(self) -> None:
        """Those that no port has; the agent learns of it when it reads the switch back."""
        for meter in self.meters() - self.engine.world.by_zone.keys():
            self.client.send(self._encoder.meter_mod(SetMeter(meter, 0, 0), exists=True))
        self.client.barrier()

    def check(self, *, ports: bool = True, spare_meters: bool = False) -> None:
        """Agent and switch agree, and each rule is what a decision from nothing gives now.

        ``ports``: also that each port has all of its static rules and its meter. ``spare_meters``: the
        switch may have meters that no port has.
        """
        rules = self.in_switch()
        strange = [f"{cookie:#x}" for cookie, rule in rules.items() if rule is None]
        assert strange == []
        meters = self.meters()
        if ports:
            assert self.agent._meters == meters
        if spare_meters:
            meters &= self.engine.world.by_zone.keys()
        switch = SimpleNamespace(
            rules=lambda: [(c, r) for c, r in rules.items() if r is not None],
            meters=meters,
        )
        view: Any = SimpleNamespace(
            name=HERE,
            engine=self.engine,
            switch=switch,
            plugged=self.plugged,
            tunnel_port=TUNNEL_PORT,
        )
        check_switch(view)
        check_bounds(view)
        if ports:
            check_ports(view)
        check_rules(view, self.engine.world, store=None)
        world = world_from_store(view, self.source.store)
        check_rules(view, world, store=self.source.store)
        assert active_ports(view, self.source.store) == set(self.engine.world.ports)


class _Database:
    """Changes the one row of table Controller, faster than ovs-vsctl starts (RFC 7047)."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(str(path))

    def set_controller(self, target: str) -> None:
        change = {"op": "update", "table": "Controller", "where": [], "row": {"target": target}}
        request = {"method": "transact", "params": ["Open_vSwitch", change], "id": 1}
        self._socket.sendall(json.dumps(request).encode())
        text = ""
        while not text or text.count("{") != text.count("}"):
            text += self._socket.recv(65536).decode()
        if json.loads(text)["result"] != [{"count": 1}]:
            raise ValueError(f"the database says {text}")

    def close(self) -> None:
        self._socket.close()


@contextmanager
def running_site(node: OvsNode, cloud: CloudBuilder) -> Iterator[FaultSite]:
    """The bridge, the proxy, the agent's listener and the agent; the switch is connected."""
    node.vsctl(
        *("add-br", BRIDGE, "--", "set", "Bridge", BRIDGE, "datapath_type=netdev"),
        *("fail_mode=secure", "protocols=OpenFlow13"),
        f"other-config:datapath-id={DATAPATH_ID:016x}",
    )
    node.vsctl("set-controller", BRIDGE, f"unix:{node.directory / 'nobody.sock'}")
    for port in VM_PORTS:
        node.vsctl(
            *("add-port", BRIDGE, f"vm{port}", "--", "set", "Interface", f"vm{port}"),
            *("type=internal", f"ofport_request={port}"),
        )
    controller_path = node.directory / "agent.sock"
    targets = [node.directory / "proxy-0.sock", node.directory / "proxy-1.sock"]
    for path in (controller_path, *targets):
        path.unlink(missing_ok=True)
    with running_bricks(), FaultProxy(targets, controller_path) as proxy, ExitStack() as stack:
        stack.callback(node.vsctl, "del-br", BRIDGE)
        site = FaultSite(node, cloud, proxy, targets)
        stack.callback(site.close)
        listener = hub.StreamServer((str(controller_path), 0), site.serve)
        accepting = hub.spawn(_accept_until_closed, listener)
        stack.callback(accepting.join, TIMEOUT_S)
        stack.callback(listener.server.close)
        # A listening socket that is shut down wakes up its accept().
        stack.callback(listener.server.shutdown, socket.SHUT_RDWR)
        site.reconnect()
        site.settle()
        yield site


def _accept_until_closed(listener: Any) -> None:
    try:
        listener.serve_forever()
    except OSError:
        return
