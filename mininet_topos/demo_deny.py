"""What must not get through, each beside its likeness that does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from mininet_topos.demo_lab import DemoLab
from mininet_topos.demo_model import Experiment, Promise, Seen, all_of, check
from mininet_topos.demo_reach import tcp_seen
from mininet_topos.demo_state import CLOSED, HTTP, SQL, VM
from mininet_topos.vm import VM_INTERFACE, Vm

THEME: Final = "Denied"
STATE_THEME: Final = "Stateful"

#: Nobody's MAC; 06 marks it as locally administered.
_FALSE_MAC: Final = "06:00:00:00:00:99"
#: An address of the subnet front that nobody holds.
_NOBODY: Final = ("10.0.1.250", "fd00:1::250")

_SPOOFED: Final = 5


def deny_experiments() -> Iterator[Experiment[DemoLab]]:
    yield check(
        THEME,
        "a port that no rule allows, within a host",
        "dropped, though a server listens",
        lambda lab: _denied_both(lab, "client-1", "web-1", CLOSED),
    )
    yield check(
        THEME,
        "a port that no rule allows, across hosts",
        "dropped, though a server listens",
        lambda lab: _denied_both(lab, "client-2", "web-3", CLOSED),
    )
    yield check(
        THEME,
        "no member of the remote group",
        "client does not reach db",
        lambda lab: _denied_both(lab, "client-2", "db-3", SQL),
    )
    yield check(THEME, "an address that nobody holds", "no answer", _unknown)
    yield check(THEME, "a spoofed source address", "dropped at its host", _false_address)
    yield check(THEME, "a spoofed source MAC", "dropped at its host", _false_mac)
    yield Experiment(
        (
            Promise(STATE_THEME, "the reply", "comes back to who began the connection"),
            Promise(STATE_THEME, "the reverse connection", "dropped while the first one lives"),
        ),
        _reply_and_reverse,
    )


def denied(lab: DemoLab, source: str, target: str, address: str, port: int) -> Seen:
    """A connection must be dropped on its way: not refused by the VM, nor for want of a server."""
    (own,) = lab.vms[target].tcp_attempts(address, port)
    attempt = lab.tcp(source, address, port)
    if not own.connected:
        return Seen(ok=False, text=f"no server on {address} port {port}: {own.error}")
    if attempt.connected:
        return Seen(ok=False, text=f"{address} port {port} connected")
    dropped = attempt.error == "timeout"
    return Seen(dropped, f"{address} {'dropped' if dropped else attempt.error}")


def _denied_both(lab: DemoLab, source: str, target: str, port: int) -> Seen:
    return all_of(*(denied(lab, source, target, ip, port) for ip in VM[target].ips))


def _unknown(lab: DemoLab) -> Seen:
    seen = []
    for address in _NOBODY:
        result = lab.ping("client-2", address, count=2)
        seen.append(Seen(result.received == 0, f"{address} {result.received} of {result.sent}"))
    return all_of(*seen)


def _reply_and_reverse(lab: DemoLab) -> Sequence[Seen]:
    client, server = "client-1", "web-2"
    replies, reverse = [], []
    for version, (there, back) in enumerate(zip(VM[server].ips, VM[client].ips, strict=True)):
        name = f"IPv{4 + 2 * version}"
        stream = lab.stream(client, there, HTTP)
        reverse.append(denied(lab, server, client, back, HTTP))
        grows = stream.wait_for_progress()
        stream.stop()
        lab.note(client, there)
        echoed = stream.now.echoed
        replies.append(Seen(grows, f"{name} {echoed} bytes" if grows else f"{name} stopped"))
        control = lab.tcp(client, there, HTTP)
        replies.append(tcp_seen(f"{name} again", control))
    return all_of(*replies), all_of(*reverse)


# Spoofing -----------------------------------------------------------------------------------------


def _false_address(lab: DemoLab) -> Seen:
    """client-3 sends as web-3, a member of the group that may reach db."""
    source = lab.vms["client-3"]
    as_v4, as_v6 = VM["web-3"].ips
    source.ip(
        f"address add {as_v4}/32 dev {VM_INTERFACE}",
        f"address add {as_v6}/128 dev {VM_INTERFACE} nodad preferred_lft 0",
    )
    try:
        return all_of(
            *(
                _spoof(lab, "client-3", "batch-1", family, ["-I", address])
                for family, address in enumerate((as_v4, as_v6))
            )
        )
    finally:
        source.ip(
            f"address delete {as_v4}/32 dev {VM_INTERFACE}",
            f"address delete {as_v6}/128 dev {VM_INTERFACE}",
        )


def _false_mac(lab: DemoLab) -> Seen:
    source = lab.vms["web-3"]
    source.ip(f"link set {VM_INTERFACE} address {_FALSE_MAC}")
    try:
        return all_of(*(_spoof(lab, "web-3", "batch-2", family, []) for family in (0, 1)))
    finally:
        source.ip(f"link set {VM_INTERFACE} address {VM['web-3'].mac}")


def _spoof(lab: DemoLab, source: str, target: str, family: int, options: list[str]) -> Seen:
    """Send echo requests under a false name, and count what leaves and what arrives."""
    address = VM[target].ips[family]
    sender, receiver = lab.vms[source], lab.vms[target]
    sent, arrived = _growth(
        (lambda: _frames_sent(sender), lambda: _echoes_received(receiver)[family]),
        lambda: sender.execute(
            ["ping", *options, "-n", "-q", "-c", str(_SPOOFED), "-i", "0.02", "-W", "0.3", address],
            check=False,
        ),
    )
    text = f"{_name(family)}: {arrived} of {_SPOOFED} arrived"
    if sent < _SPOOFED:
        # Nothing was tested: the frames never left the VM.
        return Seen(ok=False, text=f"{text}, but only {sent} frames were sent")
    return Seen(arrived == 0, text)
