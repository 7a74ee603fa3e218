"""What must not get through, each beside its likeness that does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mininet_topos.attempts import denied_seen, family_of
from mininet_topos.demo_lab import DemoLab
from mininet_topos.demo_state import CLOSED, HTTP, SQL, VM
from mininet_topos.promises import Promise, Seen, Trial, all_of, check
from mininet_topos.vm import VM_INTERFACE, Vm

THEME: Final = "Denied"
STATE_THEME: Final = "Stateful"

#: Nobody's MAC; 06 marks it as locally administered.
_FALSE_MAC: Final = "06:00:00:00:00:99"
#: An address of the subnet front that nobody holds.
_NOBODY: Final = ("10.0.1.250", "fd00:1::250")

_SPOOFED: Final = 5

#: The counters of a network namespace (proc(5)).
_SNMP: Final = "/proc/net/snmp"
_SNMP6: Final = "/proc/net/snmp6"


def deny_trials() -> Iterator[Trial[DemoLab]]:
    yield check(
        THEME,
        "a port that no rule allows",
        "dropped, though a server listens",
        lambda lab: denied_both(lab, "client-1", "web-1", CLOSED),
    )
    yield check(
        THEME,
        "such a port, over VXLAN",
        "dropped, though a server listens",
        lambda lab: denied_both(lab, "client-2", "web-3", CLOSED),
    )
    yield check(
        THEME,
        "a VM outside the remote group",
        "dropped, though a server listens",
        lambda lab: denied_both(lab, "client-2", "db-3", SQL),
    )
    yield check(THEME, "an address that nobody holds", "no answer", _unknown)
    yield check(THEME, "a spoofed source address", "nothing arrives", _false_address)
    yield check(THEME, "a spoofed source MAC", "nothing arrives", _false_mac)
    yield Trial(
        (
            Promise(STATE_THEME, "the reply", "comes back to who began the connection"),
            Promise(STATE_THEME, "the reverse connection", "dropped while the first one lives"),
        ),
        _reply_and_reverse,
    )


def denied(lab: DemoLab, source: str, target: str, address: str, port: int) -> Seen:
    """A connection must be dropped on its way: not refused by the VM, nor for want of a server."""
    (own,) = lab.vms[target].tcp_attempts(address, port)
    return denied_seen(own, lab.tcp(source, address, port), family_of(address))


def denied_both(lab: DemoLab, source: str, target: str, port: int) -> Seen:
    """Both families of ``denied``."""
    return all_of(*(denied(lab, source, target, ip, port) for ip in VM[target].ips))


def _unknown(lab: DemoLab) -> Seen:
    seen = []
    for address in _NOBODY:
        result = lab.ping("client-2", address)
        text = f"{family_of(address)} {result.received} of {result.sent}"
        seen.append(Seen(result.received == 0, text))
    return all_of(*seen)


def _reply_and_reverse(lab: DemoLab) -> Sequence[Seen]:
    client, server = "client-1", "web-2"
    replies, reverse = [], []
    for there, back in zip(VM[server].ips, VM[client].ips, strict=True):
        stream = lab.stream(client, there, HTTP)
        reverse.append(denied(lab, server, client, back, HTTP))
        goes_on = stream.wait_for_progress()
        stream.stop()
        lab.note(client, there)
        text = f"{stream.now.echoed} bytes" if goes_on else "stands still"
        replies.append(Seen(goes_on, f"{family_of(there)} {text}"))
    return all_of(*replies), all_of(*reverse)


# Spoofing -----------------------------------------------------------------------------------------


def _false_address(lab: DemoLab) -> Seen:
    """client-3 sends as web-3, a member of the group that may reach db."""
    source, addresses = lab.vms["client-3"], VM["web-3"].ips
    own = [_arrived(lab, "client-3", "batch-1", family) for family in (0, 1)]
    source.ip(
        f"address add {addresses[0]}/32 dev {VM_INTERFACE}",
        f"address add {addresses[1]}/128 dev {VM_INTERFACE} nodad preferred_lft 0",
    )
    try:
        false = [
            _arrived(lab, "client-3", "batch-1", family, ["-I", addresses[family]])
            for family in (0, 1)
        ]
    finally:
        source.ip(
            f"address delete {addresses[0]}/32 dev {VM_INTERFACE}",
            f"address delete {addresses[1]}/128 dev {VM_INTERFACE}",
        )
    return spoof_seen(own, false)


def _false_mac(lab: DemoLab) -> Seen:
    source = lab.vms["db-1"]
    own = [_arrived(lab, "db-1", "batch-2", family) for family in (0, 1)]
    source.ip(f"link set {VM_INTERFACE} address {_FALSE_MAC}")
    try:
        false = [_arrived(lab, "db-1", "batch-2", family) for family in (0, 1)]
    finally:
        source.ip(f"link set {VM_INTERFACE} address {VM['db-1'].mac}")
    return spoof_seen(own, false)


@dataclass(frozen=True, slots=True)
class Arrived:
    """Echo requests: how many frames left the sender's interface, how many requests arrived."""

    sent: int
    arrived: int


def spoof_seen(own: Sequence[Arrived], false: Sequence[Arrived]) -> Seen:
    """Under its own name everything must arrive, under the false one nothing of what was sent."""
    truths, lies = sum(one.arrived for one in own), sum(one.arrived for one in false)
    wanted = _SPOOFED * len(own)
    text = f"{lies} of {wanted} arrived, {truths} under its own name"
    if any(one.sent < _SPOOFED for one in false):
        # Nothing was tested: the frames never left the VM.
        return Seen(ok=False, text=f"{text}; too few frames were sent")
    return Seen(truths == wanted and lies == 0, text)


def _arrived(
    lab: DemoLab, source: str, target: str, family: int, options: Sequence[str] = ()
) -> Arrived:
    address = VM[target].ips[family]
    sender, receiver = lab.vms[source], lab.vms[target]
    sent, arrived = _frames_sent(sender), _echoes_received(receiver, family)
    lab.note(source, address)
    # Answers do not matter: those to a false name would go to its owner.
    sender.execute(
        ["ping", *options, "-n", "-q", "-c", str(_SPOOFED), "-i", "0.02", "-W", "0.3", address],
        check=False,
    )
    lab.note(source, address)
    return Arrived(_frames_sent(sender) - sent, _echoes_received(receiver, family) - arrived)


def _frames_sent(vm: Vm) -> int:
    path = f"/sys/class/net/{VM_INTERFACE}/statistics/tx_packets"
    return int(vm.execute(["cat", path]).stdout)


def _echoes_received(vm: Vm, family: int) -> int:
    """How many echo requests the VM's kernel has seen."""
    if family == 1:
        found = re.search(
            r"^Icmp6InEchos\s+(\d+)", vm.execute(["cat", _SNMP6]).stdout, re.MULTILINE
        )
        return int(found[1]) if found else 0
    names, values = re.findall(r"^Icmp: (.*)$", vm.execute(["cat", _SNMP]).stdout, re.MULTILINE)
    return int(dict(zip(names.split(), values.split(), strict=True))["InEchos"])
