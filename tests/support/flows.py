"""Flows as a load might have seen them."""

from __future__ import annotations

from typing import Any

from mininet_topos.load import FlowSeen, FlowSpec


def flow_seen(name: str = "kept TCP IPv4", protocol: str = "tcp", **fields: Any) -> FlowSeen:
    """A flow that lives and to which nothing happened, but for what ``fields`` say."""
    spec = FlowSpec(name, "a", "b", protocol, "10.0.0.2", 80)  # type: ignore[arg-type]
    known: dict[str, Any] = {
        "sent": 50,
        "echoed": 50,
        "lost": 0,
        "first_s": 100.02,
        "last_s": 101.0,
        "longest_gap_s": 0.022,
        "retransmissions": 0,
        "timeouts": 0,
        "to_first": 0,
        "error": "",
    }
    return FlowSeen(spec, **{**known, **fields})
