"""What can go wrong between the agent and OVSDB.

```
OvsdbError                    base: everything raised on purpose by the OVSDB modules
├── OvsdbUnreachableError     ovsdb-server does not answer; waiting may help
├── OvsdbRefusedError         ovsdb-server answered and refused the transaction
├── VswitchdSilentError       the database holds the change, but ovs-vswitchd does not act on it
├── BridgeFailedError         ovs-vswitchd acted and could not make the bridge or its tunnel port
└── BridgeConflictError       the bridge, or a name on it, belongs to somebody else
    ├── ForeignControllerError   another OpenFlow controller is set on the bridge
    ├── ForeignRulesError        its rules are those of another host's agent
    └── SecondAgentError         another agent serves the bridge
        └── ReplacedError        it has taken the bridge over from this one
```

A bad value in ``BridgeConfig`` is a ``ValueError`` that starts with the name of the field.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

START_OVS: Final = "systemctl start openvswitch-switch"


class OvsdbError(Exception):
    """Base of all errors of the OVSDB modules; the message names the thing and the mend."""


class OvsdbUnreachableError(OvsdbError):
    """The server at ``remote`` gives no answer; ``reason`` is what the attempt said."""

    def __init__(self, remote: str, reason: str) -> None:
        self.remote = remote
        self.reason = reason
        super().__init__(
            f"OVSDB at {remote} does not answer ({reason}); is ovsdb-server running? ({START_OVS})"
        )


class OvsdbRefusedError(OvsdbError):
    """A transaction failed in a way that repeating it does not mend."""


class VswitchdSilentError(OvsdbError):
    """ovs-vswitchd has not taken up a change within ``timeout_s`` seconds."""

    def __init__(self, remote: str, timeout_s: float) -> None:
        self.remote = remote
        super().__init__(
            f"ovs-vswitchd did not take up the change in OVSDB at {remote} within {timeout_s:g} s; "
            f"is it running? ({START_OVS})"
        )


class BridgeFailedError(OvsdbError):
    """ovs-vswitchd could not make the bridge or the tunnel port."""


class BridgeConflictError(OvsdbError):
    """The bridge, or a port name that the agent needs, is in use by somebody else."""


class ForeignControllerError(BridgeConflictError):
    """The bridge obeys ``targets``, controllers that are not this agent."""

    def __init__(self, bridge: str, targets: Iterable[str]) -> None:
        self.bridge = bridge
        self.targets = tuple(targets)
        super().__init__(
            f"bridge {bridge} already has the controller {', '.join(self.targets)}; "
            f"remove it (ovs-vsctl del-controller {bridge}), name another bridge, "
            "or set take_over = true"
        )


class ForeignRulesError(BridgeConflictError):
    """The rules on ``bridge`` were made by the agent of another host."""

    def __init__(self, bridge: str, host: str) -> None:
        self.bridge = bridge
        super().__init__(
            f"the rules on bridge {bridge} were made by the agent of another host than {host!r}: correct"
            " [host] id, or take them over with ondemand run --replace-agent (ports that"
            f" {host!r} does not have lose their rules)"
        )


class SecondAgentError(BridgeConflictError):
    """The lock of ``bridge`` in OVSDB is held by another agent."""

    def __init__(self, bridge: str, lock_name: str, message: str = "") -> None:
        self.bridge = bridge
        super().__init__(
            message
            or f"another agent already serves bridge {bridge} (it holds the OVSDB lock {lock_name}); "
            "stop it first, take its place with ondemand run --replace-agent, or name another bridge"
        )


class ReplacedError(SecondAgentError):
    """Another agent took the lock of ``bridge`` away."""

    def __init__(self, bridge: str, lock_name: str) -> None:
        super().__init__(
            bridge,
            lock_name,
            f"another agent was started to replace this one on bridge {bridge} (it took the OVSDB lock"
            f" {lock_name}); this one ends, its rules stay in the switch",
        )
