"""Fake switches joined by tunnels: frames, packet-ins and effects move until nothing moves any more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from ondemand.messages import Effects, FlowRemoved, PacketIn, SourceRequest
from tests.support.fake_outcomes import Applied, Delivered, Dropped, Outcome, Tunnelled
from tests.support.fake_switch import FakeSwitch

#: More than any finite exchange of a test takes.
MAX_STEPS: Final = 10_000

#: Handlers get the time too; None is the same as no effects.
OnPacketIn = Callable[[PacketIn, float], Effects | None]
OnRemoved = Callable[[FlowRemoved, float], Effects | None]
OnRefused = Callable[[int, float], Effects | None]
OnRequest = Callable[[SourceRequest, float], Effects | None]
#: A VM: the frames that it sends when it gets one.
Vm = Callable[[bytes], Iterable[bytes]]

_Message = TypeVar("_Message")


class RunawayError(AssertionError):
    """Something goes in circles: more than MAX_STEPS steps and still moving."""


class Endpoint(NamedTuple):
    """A VM's interface: the name of its host and the OpenFlow port there."""

    host: str
    ofport: int


class Arrival(NamedTuple):
    """A frame that came out at an endpoint."""

    endpoint: Endpoint
    frame: bytes


@dataclass(slots=True)
class Moves:
    """What happened until nothing moved, in order; ``outcomes`` are (host, outcome)."""

    outcomes: list[tuple[str, Outcome]] = field(default_factory=list)
    removed: list[tuple[str, FlowRemoved]] = field(default_factory=list)
    refused: list[tuple[str, int, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)

    @property
    def arrivals(self) -> list[Arrival]:
        return [
            Arrival(Endpoint(host, outcome.ofport), outcome.frame)
            for host, outcome in self.outcomes
            if isinstance(outcome, Delivered)
        ]

    @property
    def packet_ins(self) -> list[tuple[str, PacketIn]]:
        return [(host, out) for host, out in self.outcomes if isinstance(out, PacketIn)]

    @property
    def drops(self) -> list[tuple[str, Dropped]]:
        return [(host, out) for host, out in self.outcomes if isinstance(out, Dropped)]


@dataclass(slots=True)
class _Host:
    switch: FakeSwitch
    tunnel_ip: bytes
    on_packet_in: OnPacketIn | None
    on_removed: OnRemoved | None
    on_refused: OnRefused | None
    on_request: OnRequest | None


class FabricSim:
    """Hosts and the underlay between them, which loses nothing and keeps the order.

    Attributes:
        now_s: the time, which only ``advance`` moves.
        vms: what answers at an endpoint; an endpoint without a VM is silent.
    """

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s
        self.vms: dict[Endpoint, Vm] = {}
        self._hosts: dict[str, _Host] = {}
        self._steps: deque[Callable[[], None]] = deque()
        self._moves = Moves()

    def add_host(
        self,
        name: str,
        switch: FakeSwitch,
        tunnel_ip: bytes,
        *,
        on_packet_in: OnPacketIn | None = None,
        on_removed: OnRemoved | None = None,
        on_refused: OnRefused | None = None,
        on_request: OnRequest | None = None,
    ) -> None:
        """Add a host with its tunnel address (4 or 16 bytes) and the handlers of its agent.

        ``on_request`` plays the source of slices. A handler that is missing ignores the message.
        """
        self._hosts[name] = _Host(
            switch, tunnel_ip, on_packet_in, on_removed, on_refused, on_request
        )

    def switch(self, host: str) -> FakeSwitch:
        return self._hosts[host].switch

    def send(self, endpoint: Endpoint, frame: bytes) -> Moves:
        """A VM sends a frame."""
        self._inject(endpoint, frame)
        return self._settle()

    def apply(self, host: str, effects: Effects) -> Moves:
        """An agent wants something without a packet-in: it started, or goal state changed."""
        self._apply(host, effects)
        return self._settle()

    def advance(self, seconds: float) -> Moves:
        """Let time pass; rules expire, their agents are told."""
        self.now_s += seconds
        for name, host in self._hosts.items():
            self._removed(name, host.switch.expire(self.now_s))
        return self._settle()

    # -- inside ----------------------------------------------------------------------------------

    def _settle(self) -> Moves:
        for _ in range(MAX_STEPS):
            if not self._steps:
                moves, self._moves = self._moves, Moves()
                return moves
            self._steps.popleft()()
        self._steps.clear()
        moves, self._moves = self._moves, Moves()
        last = [(host, type(outcome).__name__) for host, outcome in moves.outcomes[-4:]]
        raise RunawayError(f"still moving after {MAX_STEPS} steps: {last}")

    def _inject(self, endpoint: Endpoint, frame: bytes) -> None:
        def step() -> None:
            switch = self._hosts[endpoint.host].switch
            self._outcomes(endpoint.host, switch.inject(endpoint.ofport, frame, self.now_s))

        self._steps.append(step)

    def _outcomes(self, name: str, outcomes: Sequence[Outcome]) -> None:
        host = self._hosts[name]
        for outcome in outcomes:
            self._moves.outcomes.append((name, outcome))
            if isinstance(outcome, PacketIn):
                self._ask(name, host.on_packet_in, outcome)
            elif isinstance(outcome, Tunnelled):
                self._carry(host, outcome)
            elif isinstance(outcome, Delivered):
                endpoint = Endpoint(name, outcome.ofport)
                vm = self.vms.get(endpoint)
                for answer in () if vm is None else vm(outcome.frame):
                    self._inject(endpoint, answer)

    def _carry(self, sender: _Host, tunnelled: Tunnelled) -> None:
        def step() -> None:
            for name, host in self._hosts.items():
                if host.tunnel_ip == tunnelled.tun_dst:
                    outcomes = host.switch.inject_tunnel(
                        tunnelled.vni, tunnelled.frame, sender.tunnel_ip, self.now_s
                    )
                    self._outcomes(name, outcomes)

        self._steps.append(step)

    def _ask(
        self,
        name: str,
        handler: Callable[[_Message, float], Effects | None] | None,
        message: _Message,
    ) -> None:
        def step() -> None:
            effects = None if handler is None else handler(message, self.now_s)
            if effects is not None:
                self._apply(name, effects)

        self._steps.append(step)

    def _apply(self, name: str, effects: Effects) -> None:
        def step() -> None:
            applied = host.switch.apply(effects, self.now_s)
            self._applied(name, applied)
            for request in effects.requests:
                self._ask(name, host.on_request, request)

        host = self._hosts[name]
        self._moves.warnings += [(name, warning) for warning in effects.warnings]
        self._steps.append(step)

    def _applied(self, name: str, applied: Applied) -> None:
        host = self._hosts[name]
        for cookie, reason in applied.refused:
            self._moves.refused.append((name, cookie, reason))
            self._ask(name, host.on_refused, cookie)
        self._removed(name, applied.removed)
        self._outcomes(name, applied.outcomes)

    def _removed(self, name: str, removed: Iterable[FlowRemoved]) -> None:
        for message in removed:
            self._moves.removed.append((name, message))
            self._ask(name, self._hosts[name].on_removed, message)
