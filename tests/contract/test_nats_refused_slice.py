"""A host that may not read some slices of a NATS server, or finds one damaged, serves all the others."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller_app.nats_options import NatsAddress, NatsOptions
from controller_app.nats_store import NatsStore
from controller_app.requests_aside import RequestsAside
from controller_app.source_link import Answer, SourceLink, StoreIs
from ondemand.addresses import parse_ip
from ondemand.engine import Engine
from ondemand.goal_state import compile_goal_state, encode_slices
from ondemand.settings import Settings
from ondemand.slices import Lookup, SourceState
from rule_cache.fields import CtState
from tests.contract.backend import PATIENCE_S
from tests.support.agent_on_store import missed
from tests.support.frame_builder import build_tcp4
from tests.support.goal_states import goal_state, group, port, rule, subnet, vpc
from tests.support.nats_server import NatsServer, needs_nats_server

pytestmark = needs_nats_server

QUICK = NatsOptions(timeout_s=0.5, retry_max_s=0.2, audit_s=0.3)
GET = "$JS.API.DIRECT.GET.ondemand"
NEIGHBORS = "nbr/w/10.0.0.0"


def tenant(name: str, vni: int, first: int) -> dict[str, object]:
    """A VPC with a port on h1 and one on h2; addresses 10.0.0.<first> and the next one."""
    groups = {"security_groups": [f"g-{name}"], "subnet": f"s-{name}"}
    return vpc(
        id=name,
        subnets=[subnet(id=f"s-{name}", vni=vni)],
        security_groups=[group(rule(direction="egress"), id=f"g-{name}")],
        ports=[
            port(first, **groups),
            port(first + 1, host="h2", **groups),
        ],
    )


#: vm10 and vm11 are of v, vm20 and vm21 of w; the even ones are on h1.
SLICES = encode_slices(compile_goal_state(goal_state(tenant("v", 100, 10), tenant("w", 101, 20))))


class Server:
    """A server with a publisher, and a host that may read all slices but some."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: NatsServer | None = None

    def start(self, *denied: str) -> None:
        """``denied``: subjects that may not be asked, behind those of direct gets."""
        texts = ", ".join(f'"{GET}{one}"' for one in denied)
        port = None if self._server is None else self._server.port
        self.stop()
        configuration = f"""authorization {{ users: [
            {{user: publisher, password: p}}
            {{user: host, password: h, permissions: {{
                publish: {{allow: "{GET}.>", deny: [{texts}]}}
                subscribe: ["ondemand.live.>", "_INBOX.host.>"] }} }} ] }}"""
        options = {} if port is None else {"port": port}
        self._server = NatsServer(self._folder, configuration=configuration, **options)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()

    def open(self, user: str, *, writer: bool = False) -> NatsStore:
        assert self._server is not None
        url = self._server.url.replace("//", f"//{user}:{user[0]}@")
        return NatsStore(NatsAddress((url,)), writer=writer, options=QUICK)


class Host:
    """The engine of h1 behind a link, with a switch that takes everything."""

    def __init__(self, store: NatsStore) -> None:
        self.engine = Engine(
            host="h1",
            tunnel_ip=parse_ip("192.0.2.1"),
            settings=Settings(park_s=0.5),
            round_number=1,
            first_epoch=1,
        )
        self.warnings: list[str] = []
        self.states: list[str | None] = []
        self._mailbox: deque[Answer] = deque()
        self.link = SourceLink(
            store,
            self._mailbox.append,
            warn=self.warnings.append,
            aside=RequestsAside(first_s=0.1, longest_s=0.2),
        )
        self.engine.start()
        self.engine.switch_connected()
        self.engine.tunnel_plugged(9)
        for ofport, name in enumerate(("vm10", "vm20"), start=1):
            self.engine.port_plugged(name, ofport, time.monotonic())
        self.engine.interfaces_known(time.monotonic())

    def until(self, holds: Callable[[], object]) -> None:
        """Work until it holds."""
        end_s = time.monotonic() + PATIENCE_S
        while not holds():
            now_s = time.monotonic()
            assert now_s < end_s, f"it did not happen: {self.warnings}, {self.states}"
            while self._mailbox:
                self._handle(self._mailbox.popleft(), now_s)
            self.engine.tick(now_s)
            self.engine.work(now_s)
            for request in self.engine.take().requests:
                self.link.ask(request)
            time.sleep(0.005)

    def _handle(self, answer: Answer, now_s: float) -> None:
        if isinstance(answer, Lookup):
            self.engine.fetched(answer, now_s)
        elif isinstance(answer, StoreIs):
            self.engine.store_is(answer.identity)
        else:
            if isinstance(answer, SourceState):
                self.states.append(answer.error)
            self.engine.slice_event(answer, now_s)

    def is_served(self, name: str) -> bool:
        return name in self.engine.world.ports

    def count(self, counter: str, name: str) -> int:
        return self.engine.counters.of(counter, name)

    def send(self, name: str, last: int, vni: int) -> None:
        """The first packet of a connection, from a port here to 10.0.0.<last> on h2."""
        source, target = f"10.0.0.{name[2:]}", f"10.0.0.{last}"
        frame = build_tcp4(
            src=source,
            dst=target,
            tp_src=40000,
            tp_dst=443,
            eth_src=f"fa:16:3e:00:00:{int(name[2:]):02x}",
            eth_dst=f"fa:16:3e:00:00:{last:02x}",
        )
        zone = self.engine.world.ports[name].zone
        packet = missed(
            30,
            frame,
            source=source,
            target=target,
            proto=6,
            ports=(40000, 443),
            state=int(CtState.TRK | CtState.NEW),
            vni=vni,
            source_zone=zone,
        )
        self.engine.packet_in(packet, time.monotonic())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.stop()


def publish(server: Server) -> None:
    server.start()
    with server.open("publisher", writer=True) as publisher:
        publisher.publish(SLICES, replace_all=True)


def test_packets_to_neighbors_that_may_be_read_are_served(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publish(server)
    server.start(".ondemand.*.nbr.w.>")
    with server.open("host") as store:
        host = Host(store)
        host.until(lambda: host.is_served("vm10") and host.is_served("vm20"))
        host.send("vm20", 21, 101)
        host.until(lambda: host.warnings)
        host.send("vm10", 11, 100)
        host.until(lambda: host.count("allowed", "vm10") == 1)
        # The one that waits for what may not be read is dropped and counted when its time is over.
        host.until(lambda: host.count("parked.too_late", "vm20") == 1)
        assert host.count("allowed", "vm20") == 0
        assert host.count("parked.too_late", "vm10") == 0
        assert host.states == [], "the source is not lost"
        assert host.engine.source_error is None
        (warning,) = host.warnings
        assert f"to '{GET}.ondemand.log.nbr.w.10%2E0%2E0%2E0': allow it" in warning
        assert f"until slice {NEIGHBORS!r} can be read" in warning

        server.start()
        host.until(lambda: f"slice {NEIGHBORS!r} can be read again" in caplog.messages)
        host.send("vm20", 21, 101)
        host.until(lambda: host.count("allowed", "vm20") == 1)
        host.link.close()


def test_the_port_of_a_vpc_that_may_not_be_read_is_served_when_it_may(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publish(server)
    server.start(".ondemand.*.vpc.w", ".ondemand.*.sg.g-w", ".ondemand.*.nbr.w.>")
    with server.open("host") as store:
        host = Host(store)
        host.until(lambda: host.is_served("vm10"))
        host.send("vm10", 11, 100)
        host.until(lambda: host.count("allowed", "vm10") == 1)
        host.until(lambda: any("slice 'vpc/w'" in one for one in host.warnings))
        assert not host.is_served("vm20")
        assert host.states == []
        server.start()
        host.until(lambda: host.is_served("vm20"))
        host.send("vm20", 21, 101)
        host.until(lambda: host.count("allowed", "vm20") == 1)
        host.link.close()


def test_a_damaged_slice_holds_up_no_packet_to_another(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publish(server)
    # What is before the last message of a slice is asked for without its name, which is not allowed.
    with server.open("publisher", writer=True) as publisher, server.open("host") as store:
        host = Host(store)
        host.until(lambda: host.is_served("vm10") and host.is_served("vm20"))
        link = publisher._link
        link.call(lambda: link.request("ondemand.log.nbr.w.10%2E0%2E0%2E0", b"hello"))
        host.send("vm20", 21, 101)
        host.until(lambda: host.warnings)
        assert "ends with what is no commit" in host.warnings[0]
        host.send("vm10", 11, 100)
        host.until(lambda: host.count("allowed", "vm10") == 1)
        host.until(lambda: host.count("parked.too_late", "vm20") == 1)
        assert host.states == []
        publisher.publish(SLICES, replace_all=True)
        host.until(lambda: f"slice {NEIGHBORS!r} can be read again" in caplog.messages)
        host.send("vm20", 21, 101)
        host.until(lambda: host.count("allowed", "vm20") == 1)
        assert len(host.warnings) == 1
        host.link.close()


def test_a_store_that_may_not_be_read_at_all_is_lost(server: Server) -> None:
    publish(server)
    server.start(".>")
    with server.open("host") as store:
        host = Host(store)
        host.until(lambda: host.states)
        assert "log.store" in str(host.states[0])
        assert host.warnings == []
        server.start()
        host.until(lambda: host.is_served("vm10") and host.states[-1] is None)
        host.link.close()
