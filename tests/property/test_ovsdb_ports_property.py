"""Whatever the views and wherever the delivery breaks off, the events add up to the last view."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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

OFPORTS = st.integers(2, 5)
NAMES = st.sampled_from(["a", "b", "c"])
IFACE_IDS = st.sampled_from(["A", "B", "C"])


@st.composite
def views(draw):
    if draw(st.integers(0, 9)) == 0:
        return BridgeView(present=False, tunnel=None, interfaces=())
    names = draw(st.lists(NAMES, unique=True))
    ofports = draw(st.lists(OFPORTS, unique=True, min_size=len(names), max_size=len(names)))
    interfaces = []
    for name, ofport in zip(names, ofports, strict=True):
        iface_id = draw(IFACE_IDS)
        ready = draw(st.booleans())
        port = PortSeen(iface_id, name, ofport, None) if ready else None
        interfaces.append(SeenInterface(name, iface_id, port, None))
    tunnel = draw(st.sampled_from([None, TunnelSeen("vxlan0", 1), TunnelSeen("vxlan0", 9)]))
    return BridgeView(present=True, tunnel=tunnel, interfaces=tuple(interfaces))


class Listener:
    """Takes the events at their word; an event that contradicts what it holds fails."""

    def __init__(self):
        self.ports = {}
        self.tunnel = None

    def take(self, event):
        match event:
            case PortSeen():
                others = [port for key, port in self.ports.items() if key != event.iface_id]
                assert event.ofport not in [port.ofport for port in others]
                assert event.name not in [port.name for port in others]
                held = self.ports.get(event.iface_id)
                assert held is None or (held.name, held.ofport) == (event.name, event.ofport)
                self.ports[event.iface_id] = event
            case PortGone():
                assert self.ports.pop(event.iface_id).name == event.name
            case TunnelSeen():
                assert self.tunnel is None
                self.tunnel = event
            case TunnelGone():
                assert self.tunnel is not None
                self.tunnel = None
            case BridgeGone():
                assert self.ports == {}
                assert self.tunnel is None


@given(st.lists(st.tuples(views(), st.integers(0, 6)), max_size=8), views())
def test_the_events_add_up_to_the_last_view(history, last):
    tracker = PortTracker("br-int")
    listener = Listener()
    for view, delivered in [*history, (last, None)]:
        for event in tracker.compare(view).events[:delivered]:
            listener.take(event)
            tracker.told(event)

    live = [interface.port for interface in last.interfaces if interface.port is not None]
    assert listener.tunnel == last.tunnel
    assert listener.ports.keys() == {port.iface_id for port in live}
    assert set(listener.ports.values()) <= set(live)
    assert tracker.compare(last).events == ()
