"""Three compute hosts and what changes on them, for ``change``: under agents, and as rules expanded beforehand.

Both contenders have the same VMs, under the same addresses, on the same three switches:

* ``web`` on h1 lets the group ``crowd`` in, and with the rule that comes and goes lets it in at another port;
* ``client`` and ``leaver`` on h2 are of the crowd, and so are some more members on hosts that do not exist.
  Some or all of these are in use: ``web`` has sent to them, so the agent of h1 has rules for each;
* ``mover`` is on h2 or on h3. Its interface is there on both, as at the end of a live migration, and the goal
  state says which of them is its port.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from benchmarks import expanded, touch
from benchmarks.expanded import Allow, Local, Remote, Rules
from mininet_topos.errors import LabError
from mininet_topos.experiment_lab import ExperimentLab
from mininet_topos.experiment_state import FLEET_PREFIX, OPEN, VPC, Goal, Station, member_address
from mininet_topos.lab_source import SourceKind
from mininet_topos.node import script
from mininet_topos.parallel import side_by_side
from mininet_topos.vm import Vm, VmSpec
from ondemand.addresses import format_ip, format_mac
from ondemand.codec import encode_record
from ondemand.publishing import Payloads
from ondemand.records import Neighbor
from ondemand.synthetic import neighbor_slices, synthetic_neighbors

AGENTS, EXPANDED = "on demand", "expanded"
#: UDP ports: of the neighbor that moves, of the rule that comes and goes, of the members.
MOVED, TOGGLED, MEMBER = 5000, 5001, 5003
#: Where ``mover`` may be.
PLACES: Final = (2, 3)
VNI: Final = 5001
#: RFC 2544 reserves 198.18.0.0/15 for benchmarks; nobody has these.
NOBODY: Final = tuple(bytes((198, 18, 0, number)) for number in range(1, 51))
FIRST_MEMBER: Final = 256
MAX_MEMBERS: Final = 20_000
#: Datagrams a second to the members; below what is taken for a flood (flood_rate).
TOUCH_RATE: Final = 1_500

_SETTINGS: Final = {
    "rules": {"verdict_idle_s": 3600, "location_idle_s": 3600, "responder_idle_s": 3600},
    "limits": {"neighbor_idle_s": 0},
}
_STATIONS: Final = (
    Station("web", 1, 11, groups=("service", "crowd-in", "toggle")),
    Station("client", 2, 21, groups=("open", "crowd")),
    Station("leaver", 2, 22, groups=("open", "crowd")),
    Station("mover", 2, 31),
)


def _udp(name: str, direction: str, port: int, **fields: object) -> dict[str, object]:
    head = {"id": name, "direction": direction, "ethertype": "IPv4", "protocol": "udp"}
    return {**head, "ports": port, **fields}


_GOAL: Final = Goal(
    stations=_STATIONS,
    groups={
        "open": OPEN,
        "crowd": (),
        "service": (
            _udp("out", "egress", MOVED),
            _udp("to-crowd", "egress", touch.PORT, remote_group="crowd"),
        ),
        "crowd-in": (_udp("in", "ingress", MEMBER, remote_group="crowd"),),
        "toggle": (_udp("toggled", "ingress", TOGGLED, remote_group="crowd"),),
    },
    # One, so that there is a subnet for them; the members themselves are made here.
    members=1,
)


@dataclass(frozen=True, slots=True)
class State:
    """What changes: the rule is there, the member is one, and where the neighbor is."""

    has_rule: bool = False
    is_member: bool = True
    place: int = PLACES[0]


@dataclass(frozen=True, slots=True)
class Entered:
    """A change was made.

    Attributes:
        start_s: when that began (``time.monotonic``).
        made_s: from then until the publisher, or the last command, had done its part.
        messages: flow-mods that were sent to h1; None: the agent sent them.
    """

    start_s: float
    made_s: float
    messages: int | None


class ChangeLab(ExperimentLab):
    """The lab with both contenders; only one of them is changed at a time."""

    def __init__(self, kind: SourceKind, *, members: int, progress: Callable[[str], None]) -> None:
        super().__init__(_GOAL, hosts=3, progress=progress, settings=_SETTINGS)
        self.source_kind = kind
        self.members = members
        self._states = {AGENTS: State(), EXPANDED: State()}
        self._published: Mapping[str, Payloads] = {}
        self._rules: dict[int, Rules] = {}
        #: Rules of all hosts by state, with the members that there are now.
        self._made: dict[State, dict[int, Rules]] = {}
        self._twins: dict[str, Vm] = {}

    # Set-up ---------------------------------------------------------------------------------------

    def payloads(self) -> Mapping[str, Payloads]:
        return self._payloads(self._states[AGENTS])

    def publish(self) -> int:
        written = super().publish()
        self._published = self.payloads()
        return written

    def prepare(self) -> None:
        """Make the second place of ``mover``, and the bridges and VMs of the other contender."""
        mover = _GOAL.station("mover")
        self._twins["mover"] = self._twin(mover, "mover-b", 3)
        self._twins["mover"].plug("mover")
        side_by_side(expanded.create_bridge, self.fabric.hosts)
        for number, station in enumerate(_STATIONS):
            twin = self._twin(station, f"x-{station.name}", station.host)
            expanded.plug(twin, _port(number))
            self._twins[twin.label] = twin
        self._twins["x-mover-b"] = self._twin(mover, "x-mover-b", 3)
        expanded.plug(self._twins["x-mover-b"], _port(len(_STATIONS) - 1))
        self._introduce()
        self._load_expanded()
        self.prefer_switches()

    def resize(self, members: int, *, in_use: int) -> None:
        """Let the crowd have so many synthetic members, and ``web`` send to so many of them.

        Raises:
            LabError: h1 does not hold their records then.
        """
        self.members = members
        self._made.clear()
        self.publish()
        self._load_expanded()
        self.step(f"a group of {members:,}; sending to {in_use:,} of them")
        words = [member_address(0), str(in_use), "--rate", str(TOUCH_RATE)]
        for _ in range(4):
            self.vms["web"].execute([*script(touch), *words], timeout_s=60.0)
            time.sleep(0.5)
            held = int(self.agents[1].status.get("neighbors_held", 0))
            if held >= in_use:
                return
        raise LabError(f"the agent of h1 holds {held} neighbors after packets to {in_use}")

    # Contenders -----------------------------------------------------------------------------------

    def state(self, who: str) -> State:
        return self._states[who]

    def vm(self, who: str, name: str, *, place: int | None = None) -> Vm:
        """A contender's VM; ``place`` tells which of the two of ``mover``."""
        second = place == PLACES[1]
        if who == EXPANDED:
            return self._twins[f"x-{name}{'-b' if second else ''}"]
        return self._twins[name] if second else self.vms[name]

    def enter(self, who: str, state: State) -> Entered:
        """Make a contender's state this one; only that is timed, not what is computed for it."""
        if who == EXPANDED:
            return self._apply(state)
        after = self._payloads(state)
        changed = {
            name: records for name, records in after.items() if self._published.get(name) != records
        }
        start_s = time.monotonic()
        self._store.publish(changed, replace_all=False)
        made_s = time.monotonic() - start_s
        self._states[AGENTS], self._published = state, after
        return Entered(start_s, made_s, None)

    def _apply(self, state: State) -> Entered:
        after = self._made.get(state)
        if after is None:
            after = self._made[state] = self._expanded(state)
        lines = {
            self.host(number): expanded.difference(self._rules[number], rules)
            for number, rules in after.items()
        }
        applied = expanded.apply(lines)
        self._states[EXPANDED], self._rules = state, after
        messages = applied.flow_mods.get(self.host(1).label, 0)
        return Entered(applied.start_s, applied.apply_s, messages)

    def rule_counts(self) -> dict[str, int]:
        """How many rules h1 holds for each contender."""
        return {
            AGENTS: self.host(1).rule_count(),
            EXPANDED: self.host(1).rule_count(expanded.BRIDGE),
        }

    # Goal state -----------------------------------------------------------------------------------

    def _payloads(self, state: State) -> dict[str, Payloads]:
        goal = _GOAL if state.has_rule else _GOAL.without({"toggled"})
        if not state.is_member:
            goal = goal.with_groups("leaver", ("open",))
        return {
            **goal.moved("mover", state.place).payloads(self.tunnels),
            **_member_payloads(self.members),
        }

    # The other contender --------------------------------------------------------------------------

    def _expanded(self, state: State) -> dict[int, Rules]:
        """The rules of each host."""
        fleet = _members(self.members)
        crowd = [member_address(number) for number in range(self.members)]
        crowd += [_ip("client")] + [_ip("leaver")] * state.is_member
        members = tuple(crowd)
        of_web = [
            Allow("egress", MOVED),
            Allow("egress", touch.PORT, members),
            Allow("ingress", MEMBER, members),
        ]
        if state.has_rule:
            of_web.append(Allow("ingress", TOGGLED, members))
        open_ = (Allow("egress"), Allow("ingress"))
        found: dict[int, Rules] = {}
        for number in self.agents:
            locals_, remotes = [], []
            for index, station in enumerate(_STATIONS):
                place = state.place if station.name == "mover" else station.host
                allows = tuple(of_web) if station.name == "web" else open_
                if place == number:
                    locals_.append(Local(station.ips[0], station.mac, _port(index), allows))
                else:
                    tunnel_ip = self.host(place).tunnel_ip
                    remotes.append(Remote(station.ips[0], station.mac, tunnel_ip))
            remotes += [as_remote(one) for one in fleet]
            found[number] = expanded.rules(VNI, locals_, remotes)
        return found

    def _load_expanded(self) -> None:
        self._rules = {number: self._rules.get(number, {}) for number in self.agents}
        self._apply(self._states[EXPANDED])

    def _twin(self, station: Station, name: str, host: int) -> Vm:
        """A VM with the addresses of a station."""
        spec = station.placed.spec
        twin = VmSpec(name, spec.mac, spec.addresses, spec.gateways)
        return self.fabric.add_vm(self.host(host), twin)

    def _introduce(self) -> None:
        """Let all VMs know each other's MAC for good: ARP is not what is looked at."""
        known = [
            f"neighbor replace {one.ips[0]} lladdr {one.mac} nud permanent dev eth0"
            for one in _STATIONS
        ]
        for vm in (*self.vms.values(), *self._twins.values()):
            vm.ip(*(line for line in known if vm.ips[0] not in line.split()))


def as_remote(neighbor: Neighbor) -> Remote:
    return Remote(format_ip(neighbor.ip), format_mac(neighbor.mac), format_ip(neighbor.host))


@cache
def _members(count: int) -> tuple[Neighbor, ...]:
    return tuple(
        synthetic_neighbors(
            subnet="fleet",
            prefix=FLEET_PREFIX,
            count=count,
            hosts=NOBODY,
            groups=("crowd",),
            first=FIRST_MEMBER,
        )
    )


@cache
def _member_payloads(count: int) -> Mapping[str, Payloads]:
    return {
        name: {key: encode_record(record) for key, record in records.items()}
        for name, records in neighbor_slices(VPC, _members(count)).items()
    }


def _ip(name: str) -> str:
    return _GOAL.station(name).ips[0]


def _port(index: int) -> int:
    """The ofport of a station in the other contender's bridges."""
    return 11 + index
