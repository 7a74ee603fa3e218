"""Check of the host's tunnel address: by the goal state, and by the interfaces of this host."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from controller_app.config import AgentConfig
from controller_app.doctor_check import Check, Machine, Status
from controller_app.tunnel_address import OTHER_ADDRESS_MEND, other_address
from ondemand.addresses import format_ip, parse_ip

#: Addresses that are listed, at most.
_MOST_SHOWN: Final = 6


def tunnel_address(machine: Machine, config: AgentConfig, told: Collection[bytes]) -> Check:
    """``told``: where the goal state has this host; none when it does not say."""
    name = "tunnel address"
    wrong = other_address(config.host_id, config.tunnel_ip, told)
    if wrong is not None:
        return Check(name, Status.FAIL, wrong, OTHER_ADDRESS_MEND)
    address = format_ip(config.tunnel_ip)
    here = {parse_ip(text) for text in machine.addresses()}
    if here and config.tunnel_ip not in here:
        candidates = sorted(
            ip for ip in here if len(ip) == len(config.tunnel_ip) and not _is_own(ip)
        )
        shown = ", ".join(map(format_ip, candidates[:_MOST_SHOWN])) or "none of its family"
        return Check(
            name,
            Status.WARN,
            f"{address} is on no interface here, so nothing that others send arrives; here are {shown}",
            f"ip address add {address}/PREFIX dev INTERFACE, or set [host] tunnel_ip and the goal"
            " state to one that is here",
        )
    place = "on an interface here" if here else "(the interfaces here could not be read)"
    goal = "as in the goal state" if told else "the goal state does not say it"
    return Check(name, Status.OK, f"{address}, {place}, {goal}")


def _is_own(ip: bytes) -> bool:
    """Whether no other host can send to it: loopback or link-local."""
    if len(ip) == 4:
        return ip[0] == 127
    return ip == bytes(15) + b"\x01" or (ip[0] == 0xFE and ip[1] & 0xC0 == 0x80)
