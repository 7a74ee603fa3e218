"""A compute host with its ports as the running switch has them, over a slice store.

What only the switch knows (zones, OpenFlow ports, epochs, the tunnel port) is read from the rules that
no traffic fills; what the ports are is read from the store. So a decision made here, and a rule made of
it, can be compared with what is installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from controller_app.decode import MalformedMessage
from controller_app.explain_hosts import Bindings, ExplainError, Store, hosts_of
from controller_app.explain_store import StoreView
from controller_app.rule_reader import RuleReader
from controller_app.switch_query import FlowEntry, SwitchQuery
from ondemand.local_ports import LocalPort, host_mark, port_mark
from ondemand.pipeline import Pipeline, Table
from ondemand.read_back import FoundPort, found_owner, found_ports
from ondemand.records import Port
from ondemand.slices import vpc_slice
from rule_cache.cookie import MAGIC, MAGIC_MASK, MAGIC_VALUE, is_ours, table_of
from rule_cache.fields import to_int
from rule_cache.rule import Rule

_ALL_BITS: Final = 0xFFFFFFFFFFFFFFFF
_STATE_TABLES: Final = (Table.EGRESS_STATE, Table.INGRESS_STATE)


@dataclass(frozen=True, slots=True)
class ServedPorts:
    """The ports that the switch serves, by what its rules tell.

    Attributes:
        ports: by zone.
        ofports: zone -> OpenFlow port.
        tunnel_port: OpenFlow port of the VXLAN interface; 0 while no port is reached by it.
        owner: ``local_ports.host_mark`` of the host whose agent made the rules; None: they do not say.
    """

    ports: tuple[FoundPort, ...] = ()
    ofports: dict[int, int] = field(default_factory=dict)
    tunnel_port: int = 0
    owner: int | None = None

    @property
    def marks(self) -> frozenset[int]:
        return frozenset(port.mark for port in self.ports)


class SwitchReader:
    """Reads rules of ours from one bridge. Raises SwitchQueryError."""

    def __init__(self, query: SwitchQuery, pipeline: Pipeline) -> None:
        self.query = query
        self.pipeline = pipeline
        self._reader = RuleReader(pipeline)

    def read(self, entry: FlowEntry) -> Rule | None:
        """The rule of an entry; None when this version makes no such rule."""
        try:
            return self._reader.read(entry.data, 0, len(entry.data))
        except MalformedMessage:
            return None

    def has_epochs(self, rule: Rule) -> bool:
        """Whether a rule is of a table that has the policy epochs of ports."""
        return self.pipeline.table_of(rule.shape.table) in _STATE_TABLES

    def served_ports(self, *, with_epochs: bool = False) -> ServedPorts:
        """The ports that the switch serves; their epochs cost two tables more."""
        tables = [Table.CLASSIFY, Table.DELIVER]
        if with_epochs:
            tables += _STATE_TABLES
        rules: list[Rule] = []
        for table in tables:
            entries = self.query.flows(MAGIC_VALUE, MAGIC_MASK, self.pipeline.number(table))
            rules += [rule for entry in entries if (rule := self.read(entry)) is not None]
        return served_by(self.pipeline, rules)


def parse_cookie(text: str) -> int:
    """The cookie of a rule of ours.

    Raises:
        ExplainError: it is no cookie, or that of a rule of somebody else.
    """
    digits = text.removeprefix("cookie=")
    try:
        cookie = int(digits, 0)
    except ValueError:
        cookie = -1
    if not 0 <= cookie <= _ALL_BITS:
        raise ExplainError(
            f"{text!r} is no cookie; write it as ovs-ofctl dump-flows does: 0x{MAGIC:x}011e00000001"
        )
    if not is_ours(cookie):
        raise ExplainError(
            f"cookie 0x{cookie:x} is not one of ours, which begin with 0x{MAGIC:x}: somebody else"
            " made that rule"
        )
    return cookie


def find_rule(reader: SwitchReader, cookie: int, bridge: str) -> tuple[FlowEntry, Rule]:
    """The rule with this cookie.

    Raises:
        ExplainError: there is none, or this version cannot read it.
        SwitchQueryError: the switch cannot be asked.
    """
    entries = reader.query.flows(cookie, _ALL_BITS)
    if not entries:
        raise ExplainError(
            f"{bridge} has no rule with cookie 0x{cookie:x} (any more): it was replaced, or it left"
            " with its traffic; --rules lists what is there"
        )
    entry = entries[0]
    rule = reader.read(entry)
    if rule is None:
        raise ExplainError(unreadable(reader.pipeline, entry))
    return entry, rule


def unreadable(pipeline: Pipeline, entry: FlowEntry) -> str:
    """Why an entry with a cookie of ours is no rule that this version makes."""
    place = f"the rule with cookie 0x{entry.cookie:x} in table {entry.table}"
    if pipeline.table_of(entry.table) is None:
        return (
            f"{place} is outside the tables {pipeline.base} to {pipeline.base + max(Table)}: say where"
            " the agent's tables begin, with --table-base or --config"
        )
    if table_of(entry.cookie) != entry.table & 0xFF:
        return f"{place} says that it is of table {table_of(entry.cookie)}: no agent made it so"
    return (
        f"{place} is none that this version makes: an agent of another version made it, and one of"
        " this version deletes it when it starts"
    )


def served_by(pipeline: Pipeline, rules: Sequence[Rule]) -> ServedPorts:
    """What these static rules tell."""
    tunnel_port = 0
    ofports: dict[int, int] = {}
    for rule in rules:
        if rule.shape is pipeline.from_tunnel:
            tunnel_port = to_int(rule.value_of("tunnel_port"))
        elif rule.shape is pipeline.deliver:
            ofports[to_int(rule.value_of("zone"))] = to_int(rule.value_of("ofport"))
    owner = found_owner(pipeline, rules)
    return ServedPorts(tuple(found_ports(pipeline, rules)), ofports, tunnel_port, owner)


def host_of_switch(store: Store, served: ServedPorts, only_host: str | None = None) -> str:
    """The host of the store whose ports the switch serves.

    Raises:
        ExplainError: it serves none that the store has, or ports of several hosts.
        SourceError: the store cannot be read.
    """
    if only_host is not None:
        return hosts_of(store, only_host)[0]
    marks = served.marks
    bindings = Bindings(store)
    served_of = {
        host: marks.intersection(
            map(port_mark, (*bindings.of_host(host), *bindings.of_groups(host)))
        )
        for host in hosts_of(store)
    }
    found = [host for host, served_here in served_of.items() if served_here]
    if len(found) == 1:
        return found[0]
    # Hosts of a group share ports. The agent has signed its rules.
    known: set[int] = set().union(*served_of.values())
    for host in found:
        if host_mark(host) == served.owner and served_of[host] == known:
            return host
    if not marks:
        raise ExplainError(
            "the switch serves no port, which would tell which host of the store it is: say it with"
            " --host, or give the agent's --config"
        )
    if not found:
        raise ExplainError(
            "no host of the store has any of the ports that the switch serves: is this the store of"
            " its agent?"
        )
    raise ExplainError(
        f"the switch serves ports of the hosts {', '.join(found[:10])}: say which it is, with --host"
    )


class SwitchView(StoreView):
    """A host with the ports that its switch serves.

    Attributes:
        lost: zone -> why the store cannot tell the port of that zone, as the end of a sentence.
    """

    def __init__(
        self, store: Store, host: str, served: ServedPorts, *, tunnel_ip: bytes | None = None
    ) -> None:
        """``tunnel_ip``: the host's tunnel address; None: what records about its ports tell.

        Raises:
            SourceError: the store cannot be read.
        """
        super().__init__(store, host)
        self.tunnel_port = served.tunnel_port
        self.lost: dict[int, str] = {}
        by_mark = {port_mark(port.id): port for port in self.bound_ports()}
        plugged = [(found, by_mark.get(found.mark)) for found in served.ports]
        self._take_vpcs(port for _, port in plugged if port is not None)
        for found, port in plugged:
            self._plug(found, port, served.ofports[found.zone])
        self.world.tunnel_ip = self._served_tunnel_ip() if tunnel_ip is None else tunnel_ip

    def port_of_subnet(self, vni: int) -> LocalPort | None:
        """Any port of the subnet with this VNI: for a location one is as good as another."""
        ports = self.world.ports.values()
        return next((port for port in ports if port.subnet.vni == vni), None)

    def _take_vpcs(self, ports: Iterable[Port]) -> None:
        for vpc in dict.fromkeys(port.vpc for port in ports):
            self._take(vpc_slice(vpc))
            topology = self.world.topology(vpc)
            self.problems += topology.problems if topology is not None else []

    def _plug(self, found: FoundPort, port: Port | None, ofport: int) -> None:
        if port is None:
            names = " or ".join(map(repr, self.bound.slices))
            self.lost[found.zone] = f"slice {names} has no such port (any more)"
            return
        topology = self.world.topology(port.vpc)
        subnet = None if topology is None else topology.subnets.get(port.subnet)
        if subnet is None:
            self.lost[found.zone] = (
                f"port {port.id!r} is in subnet {port.subnet!r}, which slice"
                f" {vpc_slice(port.vpc)!r} does not have (any more)"
            )
            return
        epoch = 0 if found.epoch is None else found.epoch
        self.world.add_port(
            LocalPort(port, subnet, ofport, found.zone, epoch, dict(found.remote_epochs))
        )

    def _served_tunnel_ip(self) -> bytes:
        """The host's tunnel address as the store tells it, or as it does of a port that is served."""
        served = (port.record for port in self.world.ports.values())
        found = (self._own_tunnel_ip(port) for port in served)
        return next((address for address in found if address), b"")
