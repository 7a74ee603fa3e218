"""A second look at some of the answers, by other eyes: Open vSwitch's own decoder and the store.

The fake switch checks every rule while it counts. Here a sample of the same messages, as they came,
is decoded by ``ovs-ofctl ofp-parse`` and each value compared with what the slice store says.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from benchmarks.agent_process import TUNNEL_PORT
from benchmarks.flow_plan import FlowPlan, PlannedFlow
from ondemand.addresses import format_ip, format_mac
from ondemand.records import Neighbor

#: VNI of the neighbors' subnet, gateway MAC in it (``vpc``).
_FAR_VNI: Final = 5002
_FAR_GATEWAY_MAC: Final = "02:00:5e:00:00:02"


class AnswerError(Exception):
    """A sampled rule is not what it must be; the message shows it."""


class AnswerCheck:
    """Checks samples of answers to one plan."""

    def __init__(self, plan: FlowPlan) -> None:
        self._neighbors = {format_ip(n.ip): n for n in plan.neighbors}
        self._flows = {
            (format_ip(plan.neighbors[flow.neighbor].ip), flow.target_port): flow
            for flow in plan.flows
        }

    def check(self, samples: Path, expect: str) -> int:
        """How many sampled rules were right; 0 when ``ovs-ofctl`` is not here to read them.

        Raises:
            AnswerError: one was wrong.
        """
        if shutil.which("ovs-ofctl") is None or not samples.stat().st_size:
            return 0
        text = subprocess.run(
            ["ovs-ofctl", "ofp-parse", str(samples)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        lines = [line for line in text.splitlines() if line.startswith("OFPT_FLOW_MOD")]
        for line in lines:
            reason = self._mistake(line, expect)
            if reason:
                raise AnswerError(f"{reason} in: {line}")
        return len(lines)

    def _mistake(self, line: str, expect: str) -> str | None:
        match, _, actions = line.partition(" actions=")
        fields = dict(re.findall(r"([a-z_0-9]+)=([^, ]+)", match))
        if expect == "exact":
            return self._exact_mistake(fields, actions)
        if "ct_nw_dst" in fields:
            return self._verdict_mistake(fields, actions, connection=expect == "connection")
        return self._location_mistake(fields, actions)

    def _exact_mistake(self, fields: dict[str, str], actions: str) -> str | None:
        flow = self._flow(fields, "nw_dst", "tp_dst")
        if flow is None:
            return "no such flow"
        if fields.get("in_port") != str(flow.port):
            return "another in_port"
        if fields.get("tp_src") != str(flow.source_port):
            return "another source port"
        return None if actions == f"output:{TUNNEL_PORT}" else "another way out"

    def _verdict_mistake(
        self, fields: dict[str, str], actions: str, *, connection: bool
    ) -> str | None:
        flow = self._flow(fields, "ct_nw_dst", "ct_tp_dst")
        if flow is None:
            return "no such flow"
        if fields.get("ct_nw_proto") != "6" or "reg6" not in fields:
            return "no protocol or no zone"
        if fields.get("ct_tp_src") != (str(flow.source_port) if connection else None):
            return "another source port"
        if not re.fullmatch(
            r"ct\(commit,zone=NXM_NX_REG6\[0\.\.15\],.*\),resubmit\(,\d+\)", actions
        ):
            return "not an allow rule"
        return None

    def _location_mistake(self, fields: dict[str, str], actions: str) -> str | None:
        neighbor: Neighbor | None = self._neighbors.get(fields.get("nw_dst", ""))
        if neighbor is None:
            return "no such neighbor"
        wanted = ",".join(
            (
                "dec_ttl",
                f"set_field:{_FAR_GATEWAY_MAC}->eth_src",
                f"set_field:{format_mac(neighbor.mac)}->eth_dst",
                f"set_field:{_FAR_VNI:#x}->tun_id",
                f"set_field:{format_ip(neighbor.host)}->tun_dst",
                f"output:{TUNNEL_PORT}",
            )
        )
        return None if actions == wanted else f"{wanted} was to be expected"

    def _flow(self, fields: dict[str, str], address: str, port: str) -> PlannedFlow | None:
        try:
            return self._flows.get((fields[address], int(fields[port])))
        except (KeyError, ValueError):
            return None
