"""The engine of one host on a slice store, and what it installs."""

from __future__ import annotations

from ondemand.addresses import parse_ip
from ondemand.engine import Engine
from ondemand.messages import Fetch, Follow, PacketIn
from ondemand.settings import Settings
from ondemand.slices import SliceSource
from rule_cache.rule import Rule


class AgentOnStore:
    """An agent whose switch is empty when it connects.

    Attributes:
        installed: cookie -> rule, of all that was sent and not deleted, static rules among them.
    """

    def __init__(
        self,
        store: SliceSource,
        host: str,
        tunnel_ip: str,
        *port_ids: str,
        match_connection: bool = False,
        table_base: int = 0,
    ) -> None:
        """Ports are plugged in this order, as OpenFlow ports 1, 2, ..."""
        self.engine = Engine(
            host=host,
            tunnel_ip=parse_ip(tunnel_ip),
            settings=Settings(match_connection=match_connection, table_base=table_base),
            round_number=1,
            first_epoch=1,
        )
        self.store = store
        self.installed: dict[int, Rule] = {}
        self.engine.start()
        self.engine.switch_connected()
        self.serve()
        for ofport, port_id in enumerate(port_ids, start=1):
            self.engine.port_plugged(port_id, ofport, 0.0)
            self.serve()
        self.engine.interfaces_known(0.0)
        self.engine.work(0.0)

    def serve(self) -> list[Rule]:
        """Answer what the engine asks; the rules that it adds meanwhile."""
        added: list[Rule] = []
        for _ in range(20):
            effects = self.engine.take()
            if not effects:
                return added
            for cookie in (*effects.deletes, *effects.late_deletes):
                self.installed.pop(cookie, None)
            for cookie, rule in (*effects.adds, *effects.after_barrier):
                added.append(rule)
                same = [old for old, other in self.installed.items() if other.key == rule.key]
                for old in same:
                    del self.installed[old]
                self.installed[cookie] = rule
            for request in effects.requests:
                if isinstance(request, Fetch):
                    self.engine.fetched(self.store.get(request.slice, request.key), 0.0)
                elif isinstance(request, Follow) and request.since is None:
                    self.engine.slice_event(self.store.snapshot(request.slice), 0.0)
        raise AssertionError("the engine asks without end")

    def rules_for(self, packet: PacketIn) -> list[str]:
        """What it adds for a packet-in, in ovs-ofctl text."""
        self.engine.packet_in(packet, 0.0)
        return [str(rule) for rule in self.serve()]


def missed(
    table: int,
    frame: bytes,
    *,
    source: str = "",
    target: str = "",
    proto: int = 0,
    ports: tuple[int, int] = (0, 0),
    state: int = 0,
    in_port: int = 1,
    **zones: int,
) -> PacketIn:
    """A packet-in; ``zones``: vni, source_zone, target_zone. The rest is conntrack's, state 0: none."""
    tracked = bool(state)
    return PacketIn(
        table=table,
        in_port=in_port,
        data=frame,
        ct_state=state,
        ct_src=parse_ip(source) if tracked else b"",
        ct_dst=parse_ip(target) if tracked else b"",
        ct_proto=proto if tracked else 0,
        ct_tp_src=ports[0] if tracked else 0,
        ct_tp_dst=ports[1] if tracked else 0,
        **zones,
    )
