"""A proxy between a switch and its controller that breaks the connection at chosen messages.

It knows where OpenFlow messages begin and end, in both ways, and passes each on whole unless a fault is
armed for it. What was done is counted in ``injected``, so that a test which injected nothing shows.

With ``probe`` a test asks both ends whether they have handled all that was sent to them: the switch by
a barrier, the controller by an echo request, whose answers go no further than the proxy.
"""

from __future__ import annotations

import enum
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from controller_app.decode import HEADER_BYTES
from tests.support.packet_in_bytes import message

ERROR, ECHO_REQUEST, ECHO_REPLY = 1, 2, 3
FLOW_REMOVED, PACKET_OUT, FLOW_MOD = 11, 13, 14
MULTIPART_REQUEST, MULTIPART_REPLY = 18, 19
BARRIER_REQUEST, BARRIER_REPLY, METER_MOD = 20, 21, 29

TIMEOUT_S: Final = 5.0
#: Seconds between nudges.
_NUDGE_S: Final = 0.003
#: Upper half of the xids of probes; neither os-ken nor the agent has such.
_PROBE: Final = 0xFA170000


class Way(enum.Enum):
    """Where a message goes."""

    TO_SWITCH = "to the switch"
    TO_AGENT = "to the agent"


@dataclass(frozen=True, slots=True)
class Passing:
    """A whole message that the proxy has read. ``number`` counts those of its way since ``begin``."""

    way: Way
    number: int
    data: bytes

    @property
    def kind(self) -> int:
        return self.data[1]

    @property
    def xid(self) -> int:
        return int.from_bytes(self.data[4:8], "big")

    @property
    def multipart(self) -> int:
        """The type of a multipart message, -1 of any other."""
        if self.kind not in (MULTIPART_REQUEST, MULTIPART_REPLY):
            return -1
        return int.from_bytes(self.data[8:10], "big")


class _Link:
    """One connection of the switch and the one that was made to the controller for it."""

    def __init__(self, listener: str, switch: socket.socket, agent: socket.socket) -> None:
        #: Where the switch has connected to.
        self.listener = listener
        self.ends = {Way.TO_SWITCH: switch, Way.TO_AGENT: agent}
        self._locks = {way: threading.Lock() for way in Way}
        self._readers = len(Way)
        self.alive = True
        #: Whose hello has been passed on; before it nothing else may be said.
        self.greeted: set[Way] = set()

    def send(self, way: Way, data: bytes) -> None:
        try:
            with self._locks[way]:
                self.ends[way].sendall(data)
        except OSError:
            self.cut()

    def cut(self) -> None:
        """Close both ends; what was sent before can still be read there."""
        self.alive = False
        for end in self.ends.values():
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                # Its peer was faster.
                continue

    def end_reading(self) -> None:
        """One of the two that read is done; the last one closes."""
        self.cut()
        with self._locks[Way.TO_SWITCH]:
            self._readers -= 1
            is_last = self._readers == 0
        if is_last:
            for end in self.ends.values():
                end.close()


class Fault(Protocol):
    """What becomes of a message instead of being passed on."""

    @property
    def name(self) -> str:
        """By which ``injected`` counts it."""

    def apply(self, passing: Passing, link: _Link) -> None:
        """Do it."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends; ``part`` of the message's bytes are delivered before (0, 1/2 or 1)."""

    part: float = 0.0
    name: str = "cut"

    def apply(self, passing: Passing, link: _Link) -> None:
        data = passing.data[: int(len(passing.data) * self.part)]
        if data:
            link.send(passing.way, data)
        link.cut()


@dataclass(frozen=True, slots=True)
class Swallow:
    """The message never arrives."""

    name: str = "swallow"

    def apply(self, passing: Passing, link: _Link) -> None:
        return


@dataclass(frozen=True, slots=True)
class Repeat:
    """The message arrives twice."""

    name: str = "repeat"

    def apply(self, passing: Passing, link: _Link) -> None:
        link.send(passing.way, passing.data * 2)


@dataclass(frozen=True, slots=True)
class Delay:
    """The message and all behind it are late."""

    seconds: float
    name: str = "delay"

    def apply(self, passing: Passing, link: _Link) -> None:
        time.sleep(self.seconds)
        link.send(passing.way, passing.data)


@dataclass(frozen=True, slots=True)
class Refuse:
    """A request of the agent is answered with an error and does not get to the switch.

    As OpenFlow 1.3.5 section 7.4.4 says: with the xid of the request and its first 64 bytes.
    """

    kind: int
    code: int
    name: str = "refuse"

    def apply(self, passing: Passing, link: _Link) -> None:
        if passing.way is not Way.TO_SWITCH:
            raise ValueError(f"only requests can be refused, not a message {passing.way.value}")
        body = self.kind.to_bytes(2, "big") + self.code.to_bytes(2, "big") + passing.data[:64]
        link.send(Way.TO_AGENT, message(ERROR, body, xid=passing.xid))


@dataclass(frozen=True, slots=True)
class Garble:
    """Half of the message arrives, then other bytes, and then the connection ends.

    Not every garbage makes its reader end it: Open vSwitch goes on behind a message of a wrong version.
    """

    garbage: bytes
    name: str = "garble"

    def apply(self, passing: Passing, link: _Link) -> None:
        link.send(passing.way, passing.data[: len(passing.data) // 2] + self.garbage)
        link.cut()


@dataclass(frozen=True, slots=True)
class Replace:
    """Other bytes arrive in the place of the message."""

    make: Callable[[bytes], bytes]
    name: str = "replace"

    def apply(self, passing: Passing, link: _Link) -> None:
        link.send(passing.way, self.make(passing.data))


@dataclass(slots=True)
class _Armed:
    fault: Fault
    which: Callable[[Passing], bool]
    times: int


class FaultProxy:
    """Listens at some Unix sockets, and connects to the controller's for each switch that comes.

    Attributes:
        injected: how often each kind of fault was done, by its name.
        record: the messages since ``begin``, in the order in which they came, probes left out.
    """

    def __init__(self, listen: Sequence[Path], controller: Path) -> None:
        self.injected: Counter[str] = Counter()
        self.record: list[Passing] = []
        self._controller = controller
        self._changed = threading.Condition()
        self._armed: list[_Armed] = []
        self._counts: Counter[Way] = Counter()
        self._link: _Link | None = None
        self._answers: set[int] = set()
        self._last_probe = 0
        self._closing = False
        self._threads: list[threading.Thread] = []
        self._listeners: list[socket.socket] = []
        for path in listen:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(path))
            listener.listen()
            self._listeners.append(listener)
            self._start(self._accept, listener)

    # -- the test's thread -----------------------------------------------------------------------

    def begin(self) -> None:
        """Count and record from here on; nothing is armed."""
        with self._changed:
            self.record = []
            self._counts.clear()
            self._armed.clear()
            self.injected.clear()

    def arm(self, fault: Fault, which: Callable[[Passing], bool], *, times: int = 1) -> None:
        """Do this to the next messages of which ``which`` is true, ``times`` times."""
        with self._changed:
            self._armed.append(_Armed(fault, which, times))

    def arm_at(self, fault: Fault, way: Way, number: int) -> None:
        """Do this to the message of this number in this way, the first since ``begin`` being 1."""
        self.arm(fault, lambda passing: (passing.way, passing.number) == (way, number))

    def disarm(self) -> None:
        with self._changed:
            self._armed.clear()

    @property
    def passed(self) -> int:
        """Messages so far since ``begin``, whatever became of them."""
        return self._counts.total()

    def cut(self) -> None:
        """End the connection that is there, if there is one."""
        if self._link is not None:
            self._link.cut()

    def wait_linked(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        """Until the switch has connected to this one of the sockets.

        Raises:
            TimeoutError: it has not.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._link is not None and self._link.listener == str(path), timeout_s
            ):
                raise TimeoutError(f"the switch does not connect to {path}")

    def probe(
        self, *, nudge: Callable[[], object] | None = None, timeout_s: float = TIMEOUT_S
    ) -> bool:
        """Wait until both have read what was sent to them before; False: the connection is gone.

        ``nudge`` is called now and then meanwhile, to wake up whoever sleeps.
        """
        link = self._link
        if link is None:
            return False
        deadline_s = time.monotonic() + timeout_s
        if not self._wait(lambda: len(link.greeted) == len(Way), link, nudge, deadline_s):
            return False
        for way, kind in ((Way.TO_SWITCH, BARRIER_REQUEST), (Way.TO_AGENT, ECHO_REQUEST)):
            self._last_probe = self._last_probe % 0xFFFF + 1
            xid = _PROBE | self._last_probe
            link.send(way, message(kind, xid=xid))
            if not self._wait(lambda xid=xid: xid in self._answers, link, nudge, deadline_s):  # type: ignore[misc]
                return False
            self._answers.discard(xid)
        return True

    def _wait(
        self,
        condition: Callable[[], bool],
        link: _Link,
        nudge: Callable[[], object] | None,
        deadline_s: float,
    ) -> bool:
        """Whether the condition came about while the link was alive."""
        while time.monotonic() < deadline_s:
            with self._changed:
                self._changed.wait_for(lambda: condition() or not link.alive, _NUDGE_S)
            if condition():
                return True
            if not link.alive:
                return False
            if nudge is not None:
                nudge()
        raise TimeoutError(f"neither an answer nor an end of the connection: {link.greeted}")

    def close(self) -> None:
        self._closing = True
        for listener in self._listeners:
            # A listening socket that is shut down wakes up its accept().
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- the proxy's threads ---------------------------------------------------------------------

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._closing:
            try:
                switch, _ = listener.accept()
            except OSError:
                return
            agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                agent.connect(str(self._controller))
            except OSError:
                # Nobody serves there now; the switch tries again.
                agent.close()
                switch.close()
                continue
            self._begin_link(_Link(listener.getsockname(), switch, agent))

    def _begin_link(self, link: _Link) -> None:
        with self._changed:
            former, self._link = self._link, link
            self._changed.notify_all()
        if former is not None:
            former.cut()
        for way in Way:
            self._start(self._pump, link, way)

    def _pump(self, link: _Link, way: Way) -> None:
        source = link.ends[Way.TO_AGENT if way is Way.TO_SWITCH else Way.TO_SWITCH]
        rest = b""
        try:
            while data := source.recv(1 << 18):
                rest += data
                while (whole := _first(rest)) and link.alive:
                    rest = rest[len(whole) :]
                    self._take(link, way, whole)
        except OSError:
            # Cut by the other thread, or by the peer.
            rest = b""
        link.end_reading()
        with self._changed:
            self._changed.notify_all()

    def _take(self, link: _Link, way: Way, data: bytes) -> None:
        xid = int.from_bytes(data[4:8], "big")
        if xid & 0xFFFF0000 == _PROBE and data[1] in (BARRIER_REPLY, ECHO_REPLY):
            with self._changed:
                self._answers.add(xid)
                self._changed.notify_all()
            return
        with self._changed:
            self._counts[way] += 1
            passing = Passing(way, self._counts[way], data)
            self.record.append(passing)
            armed = next((a for a in self._armed if a.which(passing)), None)
            if armed is not None:
                self.injected[armed.fault.name] += 1
                armed.times -= 1
                if armed.times == 0:
                    self._armed.remove(armed)
        if armed is None:
            link.send(way, data)
        else:
            armed.fault.apply(passing, link)
        if way not in link.greeted:
            with self._changed:
                link.greeted.add(way)
                self._changed.notify_all()


def _first(data: bytes) -> bytes:
    """The first whole message, b"" when it is not whole yet."""
    if len(data) < HEADER_BYTES:
        return b""
    length = max(HEADER_BYTES, int.from_bytes(data[2:4], "big"))
    return data[:length] if len(data) >= length else b""
