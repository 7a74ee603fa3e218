"""What is told of a bridge's ports, from one view to the next."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

import pytest

from controller_app.ovsdb_ports import (
    BridgeGone,
    BridgeView,
    PortGone,
    PortSeen,
    PortTracker,
    SeenInterface,
    TunnelGone,
    TunnelSeen,
)
from controller_app.ovsdb_view import ViewReader

TUNNEL = TunnelSeen("vxlan0", 1)


def interface(name, iface_id, ofport, problem=None):
    port = None if ofport is None else PortSeen(iface_id, name, ofport, None)
    return SeenInterface(name, iface_id, port, problem)


def view(*interfaces, tunnel=TUNNEL):
    return BridgeView(present=True, tunnel=tunnel, interfaces=interfaces)


NO_BRIDGE = BridgeView(present=False, tunnel=None, interfaces=())


def tell(tracker, seen):
    difference = tracker.compare(seen)
    for event in difference.events:
        tracker.told(event)
    return list(difference.events)


@pytest.fixture
def tracker():
    return PortTracker("br-int")


def test_nothing_is_told_twice(tracker):
    seen = view(interface("a", "A", 2))
    assert tell(tracker, seen) == [TUNNEL, PortSeen("A", "a", 2, None)]
    assert tell(tracker, seen) == []


def test_what_was_not_recorded_is_told_again(tracker):
    seen = view(interface("a", "A", 2))
    first = tracker.compare(seen).events
    tracker.told(first[0])
    assert tracker.compare(seen).events == first[1:]


def test_two_ports_that_swap_their_ofports_both_go_first(tracker):
    tell(tracker, view(interface("a", "A", 2), interface("b", "B", 3)))
    assert tell(tracker, view(interface("a", "A", 3), interface("b", "B", 2))) == [
        PortGone("A", "a"),
        PortGone("B", "b"),
        PortSeen("B", "b", 2, None),
        PortSeen("A", "a", 3, None),
    ]


def test_at_the_start_the_lowest_ofport_has_the_iface_id(tracker):
    seen = view(interface("b", "A", 3), interface("a", "A", 2))
    (problem,) = tracker.compare(seen).problems
    assert problem.startswith("interfaces a and b both have iface-id A: a stays, b is ignored")
    assert tell(tracker, seen) == [TUNNEL, PortSeen("A", "a", 2, None)]


def test_a_rival_with_a_lower_ofport_does_not_take_the_iface_id(tracker):
    tell(tracker, view(interface("b", "A", 3)))
    assert tell(tracker, view(interface("b", "A", 3), interface("a", "A", 2))) == []


def test_a_rival_without_ofport_is_no_problem(tracker):
    seen = view(interface("b", "A", 3), interface("a", "A", None))
    assert tracker.compare(seen).problems == set()


def test_the_rival_follows_when_the_first_loses_its_ofport(tracker):
    tell(tracker, view(interface("b", "A", 3)))
    assert tell(
        tracker, view(interface("b", "A", None, "b is broken"), interface("a", "A", 2))
    ) == [
        PortGone("A", "b"),
        PortSeen("A", "a", 2, None),
    ]


def test_a_bridge_that_never_was_is_not_gone(tracker):
    assert tell(tracker, NO_BRIDGE) == []


def test_a_bridge_takes_its_ports_with_it(tracker):
    tell(tracker, view(interface("a", "A", 2)))
    assert tell(tracker, NO_BRIDGE) == [
        PortGone("A", "a"),
        TunnelGone("vxlan0"),
        BridgeGone("br-int"),
    ]
    assert tell(tracker, NO_BRIDGE) == []


def test_a_tunnel_port_with_another_number(tracker):
    tell(tracker, view())
    assert tell(tracker, view(tunnel=TunnelSeen("vxlan0", 9))) == [
        TunnelGone("vxlan0"),
        TunnelSeen("vxlan0", 9),
    ]


# -------------------------------------------------------------------- reading rows, and not again


@dataclass
class Interface:
    name: str
    ofport: list[int]
    external_ids: dict[str, str] = field(default_factory=dict)
    error: list[str] = field(default_factory=list)
    uuid: uuid.UUID = field(default_factory=uuid.uuid4)


@dataclass
class Port:
    interfaces: list[Interface]
    uuid: uuid.UUID = field(default_factory=uuid.uuid4)


@dataclass
class Bridge:
    ports: list[Port]


def read(reader, bridge):
    rows = {row.uuid: row for port in bridge.ports for row in port.interfaces}
    return reader.read(bridge, rows)


@pytest.mark.parametrize(
    ("row", "seen"),
    [
        (Interface("a", [2]), None),
        (Interface("a", [2], {"iface-id": ""}), None),
        (Interface("a", [2], {"iface-id": "A"}), interface("a", "A", 2)),
        (Interface("a", [], {"iface-id": "A"}), interface("a", "A", None)),
        (Interface("a", [-1], {"iface-id": "A"}), interface("a", "A", None)),
        (Interface("a", [65534], {"iface-id": "A"}), interface("a", "A", None)),
        (
            Interface("a", [-1], {"iface-id": "A"}, ["no such device"]),
            interface(
                "a", "A", None, "interface a (iface-id A) has no OpenFlow port: no such device"
            ),
        ),
    ],
)
def test_what_a_row_says(row, seen):
    reader = ViewReader("vxlan0")
    found = read(reader, Bridge([Port([row])]))
    assert found == view(*([seen] if seen else []), tunnel=None)


def test_only_what_was_noted_is_read_again():
    row = Interface("a", [2], {"iface-id": "A"})
    tunnel = Interface("vxlan0", [1], {"iface-id": "not a VM"})
    port = Port([row])
    bridge = Bridge([port, Port([tunnel])])
    reader = ViewReader("vxlan0")
    before = read(reader, bridge)
    assert before == view(interface("a", "A", 2))

    row.ofport = [5]
    assert read(reader, bridge) == before
    reader.note("Interface", row.uuid)
    assert read(reader, bridge) == view(interface("a", "A", 5))

    other = Interface("b", [6], {"iface-id": "B"})
    port.interfaces = [row, other]
    reader.note("Port", port.uuid)
    assert read(reader, bridge) == view(interface("a", "A", 5), interface("b", "B", 6))

    bridge.ports = [bridge.ports[1]]
    reader.note("Bridge", uuid.uuid4())
    assert read(reader, bridge) == view()
    assert reader.read(None, {}) == NO_BRIDGE
