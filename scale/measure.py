"""One contender at one size: what is done to it, and what each step took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from scale.crowd import Crowd
from scale.goal import Changes
from scale.machine import cpu_s, rss_bytes
from scale.origin import Origin
from scale.statistics import Times

#: A change that is not at all its hosts after so many seconds is lost.
CHANGE_TIMEOUT_S: Final = 30.0
WAVES: Final = 10


@dataclass(frozen=True, slots=True)
class Step:
    """What one step took.

    Attributes:
        title: what was done.
        repeats: how often; messages, bytes and CPU times are of one of them on average.
        times: seconds until it had happened at each host.
        served: of a start: until the host could serve, where that is before it follows all.
        wall_s: until it had happened at all hosts, on average.
        messages, bytes: from the origin to hosts; payloads and headers, without what frames them.
        origin_cpu_s, driver_cpu_s: CPU time of the server or pusher, and of the simulated hosts.
        origin_rss: resident bytes of the server or pusher at the end.
    """

    title: str
    repeats: int
    times: Times
    served: Times | None
    wall_s: float
    messages: float
    bytes: float
    origin_cpu_s: float
    driver_cpu_s: float
    origin_rss: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Result:
    """A contender at a size.

    Attributes:
        contender: its name in tables.
        hosts, goal_bytes: the size; bytes of keys and payloads that a host holds.
        vpc_bytes: the same of a host that holds all neighbors of its VPC.
        steps: by name: cold, group, port, move, idle, restart, rolling.
        expected, entered, twice: changes that hosts should have entered, did, and did again.
        different: slices and records that differ from the goal state at the end; some of them.
        heals, retries: gaps that hosts healed; attempts that failed and were repeated.
        driver_rss: resident bytes of all driver processes with all hosts running.
        base_rss: resident bytes of the server or pusher before the first host came.
        bare: the change of the group at as many bare sockets; None where that was left out.
    """

    contender: str
    hosts: int
    goal_bytes: int
    vpc_bytes: int
    steps: dict[str, Step] = field(default_factory=dict)
    expected: int = 0
    entered: int = 0
    twice: int = 0
    different: int = 0
    first: list[str] = field(default_factory=list)
    heals: int = 0
    retries: int = 0
    driver_rss: int = 0
    base_rss: int = 0
    seconds: float = 0.0
    bare: Step | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Program:
    """How much is done: repeats of each change, seconds of idleness, and what is left out."""

    group: int = 5
    port: int = 10
    move: int = 10
    idle_s: float = 0.0
    restart: bool = True
    rolling: bool = True


@dataclass(frozen=True, slots=True)
class _Mark:
    at_s: float
    messages: int
    bytes: int
    origin_cpu_s: float
    driver_cpu_s: float


class Measurement:
    """Does the steps of a program, one after the other."""

    def __init__(
        self,
        origin: Origin,
        crowd: Crowd,
        result: Result,
        *,
        say: Callable[[str], object],
    ) -> None:
        self._origin = origin
        self._crowd = crowd
        self._result = result
        self._say = say
        self._region = crowd.region
        self._changes = Changes(crowd.region)
        self._everybody = range(crowd.region.hosts)

    def run(self, program: Program) -> None:
        """All steps, and at the end the comparison with the goal state."""
        began_s = time.monotonic()
        self._result.base_rss = rss_bytes(self._origin.pid)
        self._start("cold", "cold start of all at once", saved=False)
        self._result.driver_rss = self._crowd.rss_bytes()
        for kind, repeats in (
            ("group", program.group),
            ("port", program.port),
            ("move", program.move),
        ):
            self._change(kind, repeats)
        if program.idle_s:
            self._idle(program.idle_s)
        if program.restart:
            self._crowd.stop(self._everybody)
            self._start("restart", "restart of all at once", saved=True)
        if program.rolling:
            self._rolling()
        self._check()
        self._result.seconds = time.monotonic() - began_s

    def _start(self, name: str, title: str, *, saved: bool) -> None:
        begin = self._mark()
        started = self._crowd.start(self._everybody, saved=saved, progress=self._progress(title))
        follows = Times.of([at_s - begin.at_s for at_s in started.follows])
        served = Times.of([at_s - begin.at_s for at_s in started.served])
        step = self._step(title, begin, follows, wall_s=follows.last)
        self._result.steps[name] = replace(step, served=served)

    def _progress(self, title: str) -> Callable[[int], object]:
        told = 0

        def tell(done: int) -> None:
            nonlocal told
            if done - told >= max(1000, self._region.hosts // 4):
                told = done
                self._say(f"{title}: {done:,} of {self._region.hosts:,}")

        return tell

    def _change(self, kind: str, repeats: int) -> None:
        titles = {
            "group": "a rule of the group that all hosts hold",
            "port": "a port of one host",
            "move": "a neighbor moves, whose shard a few hosts follow",
        }
        samples: list[float] = []
        walls: list[float] = []
        begin = self._mark()
        for _ in range(repeats):
            change = self._changes.make(kind)
            began_s = time.monotonic()
            version = self._origin.publish(change)
            entered = self._crowd.wait(change.slice, version, change.hosts, CHANGE_TIMEOUT_S)
            taken = [one.at_s - began_s for one in entered]
            samples += taken
            walls.append(max(taken, default=CHANGE_TIMEOUT_S))
            self._result.expected += len(change.hosts)
            self._result.entered += len({one.host for one in entered} & set(change.hosts))
        times = Times.of(samples or [CHANGE_TIMEOUT_S])
        self._result.steps[kind] = self._step(
            titles[kind], begin, times, repeats=repeats, wall_s=sum(walls) / len(walls)
        )

    def _idle(self, seconds: float) -> None:
        begin = self._mark()
        time.sleep(seconds)
        times = Times.of([seconds])
        step = self._step("nothing happens, for each second", begin, times, repeats=1)
        self._result.steps["idle"] = replace(
            step,
            messages=step.messages / seconds,
            bytes=step.bytes / seconds,
            origin_cpu_s=step.origin_cpu_s / seconds,
            driver_cpu_s=step.driver_cpu_s / seconds,
        )

    def _rolling(self) -> None:
        """Waves of hosts restart; while each is away, the group changes."""
        title = f"rolling restart in {WAVES} waves, a change to all in each"
        hosts = self._region.hosts
        # Neighboring numbers, so that each wave is spread over all drivers.
        waves = [range(n * hosts // WAVES, (n + 1) * hosts // WAVES) for n in range(WAVES)]
        samples: list[float] = []
        begin = self._mark()
        for wave in filter(len, waves):
            self._crowd.stop(wave)
            self._origin.publish(self._changes.make("group"))
            began_s = time.monotonic()
            started = self._crowd.start(wave, saved=True, progress=lambda _: None)
            samples += [at_s - began_s for at_s in started.follows]
        step = self._step(title, begin, Times.of(samples))
        self._result.steps["rolling"] = replace(step, wall_s=time.monotonic() - begin.at_s)

    def _check(self) -> None:
        """Wait until the last change is everywhere, then compare."""
        change = self._changes.make("group")
        version = self._origin.publish(change)
        entered = self._crowd.wait(change.slice, version, change.hosts, CHANGE_TIMEOUT_S)
        result = self._result
        result.expected += len(change.hosts)
        result.entered += len({one.host for one in entered})
        result.different, result.first = self._crowd.check(self._origin.truth())
        state = self._crowd.state()
        result.heals, result.retries = state["heals"], state["retries"]
        result.twice = state["twice"]

    def _mark(self) -> _Mark:
        counters = self._origin.counters()
        return _Mark(
            time.monotonic(),
            counters.messages,
            counters.bytes,
            cpu_s(self._origin.pid),
            self._crowd.cpu_s(),
        )

    def _step(
        self,
        title: str,
        begin: _Mark,
        times: Times,
        *,
        repeats: int = 1,
        wall_s: float | None = None,
    ) -> Step:
        end = self._mark()
        return Step(
            title=title,
            repeats=repeats,
            times=times,
            served=None,
            wall_s=end.at_s - begin.at_s if wall_s is None else wall_s,
            messages=(end.messages - begin.messages) / repeats,
            bytes=(end.bytes - begin.bytes) / repeats,
            origin_cpu_s=(end.origin_cpu_s - begin.origin_cpu_s) / repeats,
            driver_cpu_s=(end.driver_cpu_s - begin.driver_cpu_s) / repeats,
            origin_rss=rss_bytes(self._origin.pid),
        )


__all__ = ["CHANGE_TIMEOUT_S", "Measurement", "Program", "Result", "Step"]
