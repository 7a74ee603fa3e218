"""A host of a lab whose switch is a real one, and whose agents read it back as they do in service."""

from __future__ import annotations

from typing import Any

from controller_app.switch_read_back import SwitchReadBack
from ondemand.adoption import Found
from rule_cache.rule import Rule
from tests.support.fabric_sim import FabricSim, Moves
from tests.support.host_sim import HostSim
from tests.support.real_switch import RealSwitch


class RealHost(HostSim):
    """Takes ``real`` for itself, as it is at the beginning of a test; one host at a time can."""

    def __init__(
        self, name: str, tunnel_ip: bytes, *, real: RealSwitch, fabric: FabricSim, **options: Any
    ) -> None:
        self._real = real
        self._has_own_round = False
        super().__init__(name, tunnel_ip, fabric=fabric, **options)

    def reconnect(self) -> Moves:
        self._real.reconnect()
        return super().reconnect()

    def start_agent(self, **options: Any) -> Moves:
        self._has_own_round = False
        return super().start_agent(**options)

    def _make_switch(self, *, enforce_meters: bool) -> RealSwitch:
        """``enforce_meters``: as any real switch, it does."""
        self._real.begin(self.fabric.now_s, self.engine.pipeline)
        return self._real

    def _add_tunnel_port(self, ofport: int) -> None:
        self._real.add_tunnel_port(ofport)

    def _found(self) -> tuple[list[tuple[int, Rule]], Found, int]:
        self._real.serve(self.engine.pipeline)
        reading = SwitchReadBack(
            self.engine.pipeline,
            round_number=self.engine.round_number,
            is_own_round=self._has_own_round,
        )
        found = self._real.read_back(reading)
        self._has_own_round = True
        return reading.static, found, reading.round_number
