"""The experiments by name. What each does is imported when it runs, so that ``--help`` is fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Entry:
    """An experiment as a listing shows it.

    Attributes:
        summary: one line.
        module: has ``performance(*, quick: bool) -> Performance``.
        needs_file: it breaks the file of the slice store, so there must be one.
    """

    summary: str
    module: str
    needs_file: bool = False


EXPERIMENTS: Final[Mapping[str, Entry]] = {
    "policy-cut": Entry(
        "A rule, a group, a member goes: denied streams are cut, the others notice nothing.",
        "mininet_topos.experiment_policy_cut",
    ),
    "migrate": Entry(
        "A VM moves to another host, and back, under live TCP: rules follow it, the stream survives.",
        "mininet_topos.experiment_migrate",
    ),
    "ovs-restart": Entry(
        "ovs-vswitchd is killed and started, then ovsdb-server: traffic is learnt anew by itself.",
        "mininet_topos.experiment_ovs_restart",
    ),
    "source-outage": Entry(
        "The slice store is away, then back: what is known goes on, what is not heals by itself.",
        "mininet_topos.experiment_source_outage",
        needs_file=True,
    ),
    "restart": Entry(
        "The agent is killed, then replaced, under load: rules stay, the untrue goes, no packet is lost.",
        "mininet_topos.experiment_restart",
    ),
    "flood": Entry(
        "A VM scans addresses and ports at full speed: new flows of the others go on as before.",
        "mininet_topos.experiment_flood",
    ),
}
