"""Rules as of an agent that expands remote groups and preloads all neighbors; what others are measured against.

A bridge of its own, ``br-exp``, in the same ovs-vswitchd as the agent's. A host holds one rule for each
neighbor of its VPC, and for each local port one rule for each member of each remote group that a security
rule of the port names. What a change asks for is computed beforehand as the difference of two such sets,
and written by one ``ovs-ofctl --bundle add-flows`` for each host, all hosts at once.

What this is: the cost, in rules and in time, of the expanded form, at its best. Rules are judged by state in
their own direction only by the rule itself, so that one that goes cuts its live connections without a word to
conntrack; the difference costs nothing; ports have IPv4 rules only. What it is not: Neutron's or OVN's agent.
Those install conjunctive matches or address sets, which need fewer rules for a group than one each for its
members, compute the difference in the time that is measured, and hear of it over a message queue or a
database. Nor does a real agent start a process for each change: ``command_s`` tells what that costs here.

    table 0  whose packet: a local port (reg6 = its zone, ct, to 1), or the tunnel (to 2)
    table 1  may it leave: state, then one rule for each remote that a rule allows
    table 2  where to: one rule for each neighbor; of local ones ct in their zone, to 3
    table 3  may it come in: as table 1; then out of the port
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from mininet_topos.errors import LabError
from mininet_topos.ovs_host import ComputeHost
from mininet_topos.parallel import side_by_side
from mininet_topos.vm import Vm

BRIDGE: Final = "br-exp"
TUNNEL: Final = "vxlan-exp"
#: Not the port that the agent's tunnel has on the same host.
TUNNEL_PORT: Final = 4790
#: ofport of the tunnel; those of VMs are asked for too, so that rules can be made beforehand.
TUNNEL_OFPORT: Final = 1
#: Conntrack zones are shared by all bridges of a datapath; the agent counts from 1.
FIRST_ZONE: Final = 64_000
_APPLY_TIMEOUT_S: Final = 120
#: ovs-vswitchd counts as idle when it takes at most this share of a core for so many seconds, so often in turn.
_IDLE_S: Final = 0.2
_IDLE_SHARE: Final = 0.1
_QUIET: Final = 2


@dataclass(frozen=True, slots=True)
class Allow:
    """A security rule for UDP, expanded.

    Attributes:
        direction: as Neutron says it.
        port: UDP destination port, None: any.
        remotes: addresses of all members of its remote group, None: anybody.
    """

    direction: Literal["ingress", "egress"]
    port: int | None = None
    remotes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Local:
    """A port on the host. ``number``: its ofport, and its zone counted from ``FIRST_ZONE``."""

    ip: str
    mac: str
    number: int
    allows: tuple[Allow, ...]


@dataclass(frozen=True, slots=True)
class Remote:
    """A port on another host; ``tunnel_ip`` is that host's."""

    ip: str
    mac: str
    tunnel_ip: str


#: Rules of a host: actions by table, priority and match.
Rules = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Applied:
    """What a difference cost.

    Attributes:
        start_s: when the first command was begun (``time.monotonic``).
        apply_s: from then until the last one had ended.
        flow_mods: by host label.
    """

    start_s: float
    apply_s: float
    flow_mods: Mapping[str, int]


def rules(vni: int, locals_: Iterable[Local], remotes: Iterable[Remote]) -> dict[str, str]:
    """All rules of a host."""
    found = {f"table=0,priority=10,in_port={TUNNEL_OFPORT},ip": "resubmit(,2)"}
    for local in locals_:
        found |= local_rules(local)
    for remote in remotes:
        match, actions = remote_rule(vni, remote)
        found[match] = actions
    return found


def remote_rule(vni: int, remote: Remote) -> tuple[str, str]:
    """Where a neighbor on another host is: match and actions."""
    actions = f"set_field:{remote.mac}->eth_dst,set_field:{vni}->tun_id"
    actions += f",set_field:{remote.tunnel_ip}->tun_dst,output:{TUNNEL_OFPORT}"
    return f"table=2,priority=10,ip,nw_dst={remote.ip}", actions


def local_rules(local: Local) -> dict[str, str]:
    """The rules of one local port, the members of its remote groups among them."""
    zone, port = FIRST_ZONE + local.number, local.number
    own = f"in_port={port},dl_src={local.mac},ip,nw_src={local.ip}"
    found = {
        f"table=0,priority=10,{own}": f"set_field:{zone}->reg6,ct(zone={zone},table=1)",
        f"table=1,priority=20,ct_state=+trk+est+rpl,ct_zone={zone},ip": "resubmit(,2)",
        f"table=2,priority=20,ip,nw_dst={local.ip}": f"ct(zone={zone},table=3)",
        f"table=3,priority=20,ct_state=+trk+est+rpl,ct_zone={zone},ip": f"output:{port}",
    }
    for allow in local.allows:
        out = allow.direction == "egress"
        table, remote = (1, "nw_dst") if out else (3, "nw_src")
        passes = f"ct(commit,zone={zone}),{'resubmit(,2)' if out else f'output:{port}'}"
        head = f"table={table},priority=10,ct_state=-inv-rpl+trk,ct_zone={zone},udp"
        if allow.port is not None:
            head += f",tp_dst={allow.port}"
        if allow.remotes is None:
            found[head] = passes
        else:
            found |= dict.fromkeys((f"{head},{remote}={ip}" for ip in allow.remotes), passes)
    return found


def difference(before: Rules, after: Rules) -> list[str]:
    """The flow-mods that make one set of rules into another, as lines of a flow file."""
    removed = [f"delete_strict {match}" for match in before if match not in after]
    # Adding a rule whose match is there replaces its actions (ovs-ofctl(8)).
    return removed + [
        f"add {match},actions={actions}"
        for match, actions in after.items()
        if before.get(match) != actions
    ]


def create_bridge(host: ComputeHost) -> None:
    """Make the bridge, without any rule."""
    host.vsctl(
        *("--may-exist", "add-br", BRIDGE, "--", "set", "Bridge", BRIDGE),
        *("datapath_type=netdev", "fail_mode=secure"),
        *("--", "add-port", BRIDGE, TUNNEL, "--", "set", "Interface", TUNNEL, "type=vxlan"),
        *("options:remote_ip=flow", "options:key=flow", f"options:dst_port={TUNNEL_PORT}"),
        f"ofport_request={TUNNEL_OFPORT}",
    )
    host.ofctl("del-flows", BRIDGE)


def plug(vm: Vm, number: int) -> None:
    """Give a VM's tap to the bridge, as the port of a ``Local`` with this number."""
    vm.host.vsctl(
        *("add-port", BRIDGE, vm.tap, "--", "set", "Interface", vm.tap),
        f"ofport_request={number}",
    )


def write_difference(host: ComputeHost, lines: Sequence[str]) -> Path:
    """Put flow-mods where ``apply`` finds them; making the file is no part of what is measured."""
    file = host.directory / "expanded.flows"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def apply(differences: Mapping[ComputeHost, Sequence[str]]) -> Applied:
    """Apply the differences of several hosts at once, that of each host as one bundle.

    Raises:
        CommandError: a switch refused it.
    """
    wanted = {host: lines for host, lines in differences.items() if lines}
    files = {host: write_difference(host, lines) for host, lines in wanted.items()}
    start_s = time.monotonic()
    side_by_side(lambda host: apply_file(host, files[host]), wanted)
    return Applied(
        start_s,
        time.monotonic() - start_s,
        {host.label: len(lines) for host, lines in wanted.items()},
    )


def apply_file(host: ComputeHost, file: Path) -> None:
    """Apply the flow-mods of a file as one bundle."""
    host.ofctl("--bundle", "add-flows", BRIDGE, str(file), timeout_s=_APPLY_TIMEOUT_S)


def command_s(host: ComputeHost) -> float:
    """What ``apply`` takes when there is nothing to do but one flow-mod that changes nothing."""
    rule = f"table=0,priority=10,in_port={TUNNEL_OFPORT},ip"
    file = host.directory / "nothing.flows"
    file.write_text(f"add {rule},actions=resubmit(,2)\n")
    start_s = time.monotonic()
    apply_file(host, file)
    return time.monotonic() - start_s


def wait_until_idle(host: ComputeHost, *, timeout_s: float = 30.0) -> None:
    """Wait until ovs-vswitchd has nothing more to do.

    A command that removes rules returns before they are gone: a million of them keep the daemon busy for a
    second more, and whoever comes next would be measured with that.

    Raises:
        LabError: it is still busy.
    """
    end_s, quiet = time.monotonic() + timeout_s, 0
    while time.monotonic() < end_s:
        before = _cpu_s(host)
        time.sleep(_IDLE_S)
        quiet = quiet + 1 if _cpu_s(host) - before <= _IDLE_S * _IDLE_SHARE else 0
        if quiet == _QUIET:
            return
    raise LabError(f"ovs-vswitchd of {host.label} is still busy after {timeout_s:g} s")


def _cpu_s(host: ComputeHost) -> float:
    """CPU time of ovs-vswitchd, all threads (proc(5), fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{host.vswitchd_pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def without(addresses: Collection[str], gone: str) -> tuple[str, ...]:
    """The members of a group but for one."""
    return tuple(address for address in addresses if address != gone)
