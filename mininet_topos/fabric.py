"""Compute hosts joined by an underlay, and the VMs on them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from mininet_topos.errors import LabConfigError
from mininet_topos.lab_run import LabRun
from mininet_topos.ovs_host import ComputeHost
from mininet_topos.parallel import side_by_side
from mininet_topos.requirements import require_lab
from mininet_topos.underlay import Underlay, UnderlayKind, make_underlay
from mininet_topos.vm import Vm, VmSpec

#: TEST-NET-1 (RFC 5737): met by no tenant, and only ever used inside the namespaces.
UNDERLAY_NETWORK: Final = "192.0.2.0/24"


class Fabric:
    """A context in which compute hosts exist, and VMs on them as they are added.

    Leaving it, in whatever way, ends all of it; see ``LabRun``. Hosts have no ``br-int``: an agent
    makes it, or ``ComputeHost.create_integration_bridge``.

    Attributes:
        run: owns everything.
        hosts: in order; named ``h1``, ``h2``, ...
        vms: by name.
        underlay: the switch between the hosts.
    """

    def __init__(
        self,
        *,
        hosts: int,
        underlay: UnderlayKind = "auto",
        network: str = UNDERLAY_NETWORK,
        progress: Callable[[str], None] | None = None,
        keep_directory: bool = False,
    ) -> None:
        """Nothing is made before the context is entered.

        Args:
            hosts: how many compute hosts, 1 or more.
            underlay: ``bridge``, ``ovs``, or ``auto`` for what the kernel has.
            network: IPv4 prefix of the tunnel addresses, used inside the namespaces only.
            progress: told in a few words what is being done.
            keep_directory: leave sockets, databases and logs where they are at the end.
        """
        self._addresses = _tunnel_addresses(network, hosts)
        self._underlay_kind: UnderlayKind = underlay
        self._progress = progress or _silent
        self._keep_directory = keep_directory
        self.hosts: list[ComputeHost] = []
        self.vms: dict[str, Vm] = {}
        self.run: LabRun
        self.underlay: Underlay

    def __enter__(self) -> Self:
        require_lab()
        self.run = LabRun(keep_directory=self._keep_directory)
        with ExitStack() as stack:
            stack.enter_context(self.run)
            self._build()
            stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._progress("removing hosts, VMs and underlay")
        finally:
            self.close()

    def close(self) -> None:
        """End all hosts and VMs. May be called again."""
        self.run.close()

    def add_vm(self, host: ComputeHost, spec: VmSpec, *, iface_id: str | None = None) -> Vm:
        """Make one VM on a host, and plug it in when ``iface_id`` is given."""
        return self.add_vms([(host, spec)], iface_ids=[iface_id])[0]

    def add_vms(
        self,
        placed: Sequence[tuple[ComputeHost, VmSpec]],
        *,
        iface_ids: Sequence[str | None] | None = None,
    ) -> list[Vm]:
        """Make several VMs side by side; ``iface_ids``, in the same order, plug them in."""
        ids = iface_ids if iface_ids is not None else [None] * len(placed)

        def make(number: int) -> Vm:
            host, spec = placed[number]
            vm = Vm(self.run, host, spec)
            iface_id = ids[number]
            if iface_id is not None:
                vm.plug(iface_id)
            return vm

        self._progress(f"starting {len(placed)} VMs" if len(placed) > 1 else "starting a VM")
        made = side_by_side(make, range(len(placed)))
        self.vms |= {vm.label: vm for vm in made}
        return made

    def remove_vm(self, vm: Vm) -> None:
        """Delete a VM while the fabric goes on."""
        self.vms.pop(vm.label, None)
        vm.destroy()

    def _build(self) -> None:
        self._progress("starting the underlay")
        self.underlay = make_underlay(self.run, self._underlay_kind)
        self._progress(f"starting {len(self._addresses)} compute hosts, each with its Open vSwitch")
        self.hosts = side_by_side(self._make_host, range(len(self._addresses)))
        for host in self.hosts:
            self.underlay.attach(host)
        for host in self.hosts:
            others = [other for other in self.hosts if other is not host]
            host.learn_underlay_peers({other.tunnel_ip: other.tunnel_mac for other in others})

    def _make_host(self, number: int) -> ComputeHost:
        return ComputeHost(
            self.run,
            f"h{number + 1}",
            tunnel_address=self._addresses[number],
            tunnel_mac=f"02:0d:00:00:{(number + 1) >> 8:02x}:{(number + 1) & 0xFF:02x}",
        )


def _tunnel_addresses(network: str, count: int) -> list[ipaddress.IPv4Interface]:
    try:
        prefix = ipaddress.IPv4Network(network)
    except ValueError as error:
        raise LabConfigError(f"the underlay network '{network}' is no IPv4 prefix") from error
    room = prefix.num_addresses - 2
    if not 1 <= count <= room:
        raise LabConfigError(f"{count} compute hosts do not fit into {network} (1..{room})")
    return [
        ipaddress.IPv4Interface((int(prefix.network_address) + number, prefix.prefixlen))
        for number in range(1, count + 1)
    ]


def _silent(_text: str) -> None:
    return None
