"""All simulated hosts, spread over driver processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from mininet_topos.errors import LabError
from mininet_topos.lab_run import LabRun
from scale.child import Child
from scale.machine import cpu_s, rss_bytes
from scale.pipe import Message, region_as_json
from scale.region import Region

_BEGIN_S: Final = 300.0
_START_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Started:
    """When each host served and followed all, in monotonic seconds, and how hard drivers worked."""

    served: list[float]
    follows: list[float]


@dataclass(frozen=True, slots=True)
class Entered:
    """A change at one host: how many changes of records came of it, and when (monotonic seconds)."""

    host: int
    changes: int
    at_s: float


class Crowd:
    """``drivers`` processes; host ``n`` is in process ``n % drivers``."""

    def __init__(
        self,
        run: LabRun,
        region: Region,
        *,
        kind: str,
        target: str,
        drivers: int,
        timeout_s: float,
        audit_s: float,
    ) -> None:
        self._run = run
        self.region = region
        self._children = [Child(run, "scale.driver", f"{kind}-{n}") for n in range(drivers)]
        for number, child in enumerate(self._children):
            child.ask(
                {
                    "kind": kind,
                    "target": target,
                    "region": region_as_json(region),
                    "hosts": list(range(number, region.hosts, drivers)),
                    "timeout_s": timeout_s,
                    "audit_s": audit_s,
                }
            )
        for child in self._children:
            child.answer(_BEGIN_S)

    def start(
        self, hosts: Sequence[int], *, saved: bool, progress: Callable[[int], object]
    ) -> Started:
        """Start hosts and wait until all follow everything."""
        done = dict.fromkeys(range(len(self._children)), 0)

        def tell(driver: int, count: int) -> None:
            done[driver] = count
            progress(sum(done.values()))

        answers = self._all(
            {
                number: {"do": "start", "hosts": mine, "saved": saved}
                for number, mine in self._shares(hosts).items()
            },
            _START_S,
            tell,
        )
        return Started(
            [at_s for answer in answers for at_s in answer["served"]],
            [at_s for answer in answers for at_s in answer["follows"]],
        )

    def stop(self, hosts: Sequence[int]) -> None:
        shares = self._shares(hosts).items()
        self._all({number: {"do": "stop", "hosts": mine} for number, mine in shares}, _START_S)

    def wait(
        self, name: str, version: int, hosts: Sequence[int], timeout_s: float
    ) -> list[Entered]:
        """Wait until hosts entered a version of a slice; those that did, in time or not."""
        answers = self._all(
            {
                number: {
                    "do": "wait",
                    "slice": name,
                    "version": version,
                    "count": len(mine),
                    "timeout_s": timeout_s,
                }
                for number, mine in self._shares(hosts).items()
            },
            timeout_s + 60,
        )
        return [Entered(*one) for answer in answers for one in answer["entered"]]

    def check(self, truth: Message) -> tuple[int, list[str]]:
        """How many slices and records are held otherwise than they should be, and some of them."""
        order = {"do": "check", **truth}
        answers = self._all(dict.fromkeys(range(len(self._children)), order), _START_S)
        first = [text for answer in answers for text in answer["first"]]
        return sum(answer["different"] for answer in answers), first

    def state(self) -> Message:
        """Sums of what drivers count."""
        answers = self._all({n: {"do": "state"} for n in range(len(self._children))}, 60.0)
        return {key: sum(answer[key] for answer in answers) for key in answers[0]}

    def cpu_s(self) -> float:
        """CPU time of all drivers so far."""
        return sum(cpu_s(child.pid) for child in self._children)

    def rss_bytes(self) -> int:
        return sum(rss_bytes(child.pid) for child in self._children)

    def close(self) -> None:
        for child in self._children:
            child.begin_close()
        for child in self._children:
            child.close()
            self._run.disown(child)

    def _shares(self, hosts: Sequence[int]) -> dict[int, list[int]]:
        shares: dict[int, list[int]] = {}
        for host in hosts:
            shares.setdefault(host % len(self._children), []).append(host)
        return shares

    def _all(
        self,
        orders: dict[int, dict[str, Any]],
        timeout_s: float,
        progress: Callable[[int, int], object] = lambda *_: None,
    ) -> list[Message]:
        """Give orders at once and take all answers, in the order of ``orders``."""
        if not orders:
            raise LabError("no host was asked for")
        for number, order in orders.items():
            self._children[number].ask(order)
        return [
            self._children[number].answer(timeout_s, partial(progress, number)) for number in orders
        ]


__all__ = ["Crowd", "Entered", "Started"]
