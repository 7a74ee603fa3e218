"""Takes the rules of flows out of switches again, so that each measurement begins with as few.

Open vSwitch looks at all rules that have a timeout each time that its datapath flows were checked, which
each new rule makes it do. So a first packet that a controller answers takes the longer the more such rules
are there; ``first_packet`` shows how much.
"""

from __future__ import annotations

import re
from typing import Final

from benchmarks.first_packet_sites import VERDICTS, Site
from mininet_topos.ovs_host import INTEGRATION_BRIDGE

#: The register with the zone of the port that is judged, by table.
_ZONES: Final = tuple(zip(VERDICTS, ("reg6", "reg7"), strict=True))


def forget_verdicts(site: Site) -> int:
    """Delete all verdict rules for traffic of a site's agents, who hear of it; how many there were."""
    count = 0
    for host in site.hosts:
        for table, register in _ZONES:
            rules = [line for line in host.dump_flows(match=table) if "ct_tp_dst=" in line]
            zones = {found[1] for rule in rules if (found := re.search(rf"{register}=(\w+)", rule))}
            for zone in sorted(zones):
                # The rules of the port that no traffic fills match no protocol, those for all no zone.
                host.ofctl("del-flows", INTEGRATION_BRIDGE, f"{table},ip,{register}={zone}")
            count += len(rules)
    return count


def forget_learned(site: Site) -> None:
    """Delete the rules of flows that a learning controller installed."""
    for host in site.hosts:
        host.ofctl("del-flows", INTEGRATION_BRIDGE, "table=0,ip")


__all__ = ["forget_learned", "forget_verdicts"]
