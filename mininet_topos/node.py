"""A Mininet node whose commands end, and of which nothing stays.

Mininet drives a node through an interactive shell on a pseudo-terminal. That is handy by hand, and
``cmd`` and ``popen`` go on working, but output can be mixed up and a command that hangs hangs the
lab. So the lab itself runs each command as a process of its own inside the node's namespace.
"""

from __future__ import annotations

import ipaddress
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

with warnings.catch_warnings():
    # Mininet uses distutils and string escapes that newer Pythons warn of at import.
    warnings.simplefilter("ignore")
    from mininet.node import Node

from mininet_topos.errors import LabConfigError, LabError
from mininet_topos.lab_run import LabRun
from mininet_topos.processes import Background, CommandResult, run_command

#: Interface names have at most 15 bytes (IFNAMSIZ with its final NUL, netdevice(7)).
MAX_INTERFACE_NAME: Final = 15

#: What a program has open beside its sockets, and some more.
SPARE_FILES: Final = 64

#: Written below /proc/sys/net before a node gets interfaces: addresses are usable at once (no
#: duplicate address detection, RFC 4862 section 5.4) and nothing is sent that no test asked for.
_QUIET_IPV6: Final = {
    f"ipv6/conf/{scope}/{key}": "0"
    for scope in ("all", "default")
    for key in ("accept_dad", "dad_transmits", "router_solicitations", "accept_ra", "autoconf")
}

# Gets one path=value per argument; a family that the kernel was built without has no such files.
_WRITE_SYSCTLS: Final = """
for pair; do
  path="/proc/sys/net/${pair%%=*}"
  if [ -e "$path" ]; then printf %s "${pair#*=}" > "$path" || exit 1; fi
done
"""

_SHELL_GRACE_S: Final = 2.0
_SHELL_POLL_MS: Final = 200


class LabNode(Node):
    """A network (and mount) namespace that belongs to a ``LabRun``.

    Its interfaces are made inside it, never in the root namespace, so that their names meet no
    other run's. Whatever is started in it is ended by ``close``.

    Attributes:
        run: the run that closes it.
        label: its name within the run, such as ``h1``; ``name`` is Mininet's, unique by the prefix.
        directory: its files.
        pid: of the process that holds the namespace.
    """

    name: str
    pid: int
    shell: subprocess.Popen[bytes] | None

    def __init__(self, run: LabRun, label: str) -> None:
        """``label``: 1-11 letters, digits, ``_``, ``-``, starting with a letter; unique in the run.

        Raises:
            LabConfigError: the label is not of that form, or taken.
        """
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,10}", label):
            raise LabConfigError(
                f"the node name '{label}' cannot be used: 1-11 letters, digits, '_' or '-', "
                "starting with a letter"
            )
        self.run = run
        self.label = label
        self.directory: Path = run.claim_label(label)
        self._closed = False
        self._backgrounds: list[Background] = []
        self._backgrounds_lock = threading.Lock()
        super().__init__(f"{run.prefix}-{label}")
        run.own(self)
        self.write_sysctls(_QUIET_IPV6)
        self.ip("link set lo up")

    # Mininet's hooks ------------------------------------------------------------------------------

    @classmethod
    def setup(cls) -> None:
        """Mininet would end the process for want of ifconfig; ``requirements`` checks instead."""

    def startShell(self, mnopts: str | None = None) -> None:  # noqa: N802 - Mininet's name
        # Without mnexec's -c, which closes every possible descriptor one by one: with the limits
        # that containers set, that is a billion calls. _popen does not hand any down.
        super().startShell("-d" + (mnopts or ""))

    def _popen(self, cmd: Sequence[str], **params: Any) -> subprocess.Popen[Any]:
        params["close_fds"] = True
        params.setdefault("env", self.run.environment())
        return self.run.gate.start(cmd, **params)

    def read(self, size: int = 1024) -> str:
        """Mininet's read of its shell, which would wait for ever for a shell that has ended."""
        while not self.readbuf and not self.pollOut.poll(_SHELL_POLL_MS):
            if self.shell is None or self.shell.poll() is not None:
                raise LabError(f"{self.label}: the node's shell has ended")
        text: str = super().read(size)
        return text

    # Commands -------------------------------------------------------------------------------------

    def execute(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 10.0,
        check: bool = True,
        stdin_text: str = "",
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a command inside the namespace to its end; see ``run_command``.

        ``env`` is added to the run's environment.
        """
        return run_command(
            ["mnexec", "-a", str(self.pid), *argv],
            where=self.label,
            env={**self.run.environment(), **(env or {})},
            timeout_s=timeout_s,
            check=check,
            stdin_text=stdin_text,
            gate=self.run.gate,
        )

    def spawn(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> Background:
        """Start a background process inside the namespace; its output goes to ``<name>.log``.

        ``env`` is added to the run's environment. The process is ended by ``close`` at the latest.
        """
        process = Background(
            f"{self.label}/{name}",
            ["mnexec", "-a", str(self.pid), *argv],
            log=self.directory / f"{name}.log",
            env={**self.run.environment(), **(env or {})},
            gate=self.run.gate,
        )
        with self._backgrounds_lock:
            self._backgrounds = [other for other in self._backgrounds if other.running]
            self._backgrounds.append(process)
        return process

    def ip(self, *commands: str) -> None:
        """Run ``ip`` commands (each without the leading ``ip``) in one go; the first error ends it."""
        self.execute(["ip", "-batch", "-"], stdin_text="\n".join(commands) + "\n")

    def write_sysctls(self, values: Mapping[str, str]) -> None:
        """Write values below /proc/sys/net of the namespace; a path that is not there is left out."""
        pairs = [f"{path}={value}" for path, value in values.items()]
        self.execute(["sh", "-c", _WRITE_SYSCTLS, "sh", *pairs])

    # End ------------------------------------------------------------------------------------------

    def begin_close(self) -> None:
        """SIGTERM to all background processes."""
        for process in self.running_backgrounds():
            process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End the background processes, the last started first, then the namespace's own."""
        for process in self.running_backgrounds():
            process.stop()
        self.terminate()
        if not self._closed:
            self._closed = True
            self.run.release_label(self.label)
            self.run.disown(self)

    def terminate(self) -> None:
        """Mininet's name for the end of the node's shell, here with a bound on the time."""
        if self.shell is None:
            return
        if self.shell.poll() is None:
            os.killpg(self.shell.pid, signal.SIGHUP)
            try:
                self.shell.wait(_SHELL_GRACE_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.shell.pid, signal.SIGKILL)
        # Mininet keeps every node that ever was in two class-wide tables.
        descriptor = self.stdin.fileno()
        Node.inToNode.pop(descriptor, None)
        Node.outToNode.pop(descriptor, None)
        self.cleanup()

    def running_backgrounds(self) -> list[Background]:
        """What ``spawn`` started and still runs, the last started first."""
        with self._backgrounds_lock:
            return [process for process in reversed(self._backgrounds) if process.running]


def script(module: ModuleType) -> tuple[str, ...]:
    """The command that runs a module as a script; it may import the standard library only."""
    # -I -S: no site packages are looked at, which halves the time to start.
    return sys.executable, "-I", "-S", str(Path(str(module.__file__)).resolve())


def with_open_files(count: int, argv: Sequence[str]) -> list[str]:
    """A command that may have ``count`` files open, where the limit is lower (prlimit(1))."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return list(argv)
    return ["prlimit", f"--nofile={count}:{count}", *argv]


def join_by_veth(
    left: LabNode, left_name: str, right: LabNode, right_name: str, *, mtu: int, right_mac: str = ""
) -> None:
    """Make a veth pair whose ends are born inside the two namespaces, and up.

    Args:
        left: node that gets the end ``left_name``.
        left_name: at most 15 bytes.
        right: node that gets the end ``right_name``.
        right_name: at most 15 bytes.
        mtu: of both ends, bytes.
        right_mac: MAC of the right end; empty for one that the kernel picks.
    """
    for name in (left_name, right_name):
        check_interface_name(name)
    address = ["address", right_mac] if right_mac else []
    run_command(
        [
            *("ip", "link", "add", left_name, "netns", str(left.pid), "mtu", str(mtu)),
            *("type", "veth", "peer", "name", right_name, "netns", str(right.pid)),
            *("mtu", str(mtu), *address),
        ],
        where=f"{left.label}-{right.label}",
        env=left.run.environment(),
        gate=left.run.gate,
    )
    left.ip(f"link set {left_name} up")
    right.ip(f"link set {right_name} up")


def without_offloads(node: LabNode, interface: str) -> None:
    """Let the kernel write every checksum and cut every segment before the frame leaves.

    A switch in user space gets frames as they are on a veth: with offloads, conntrack sees a wrong
    checksum and calls the packet invalid, and frames larger than the MTU.
    """
    features = ("tx", "rx", "sg", "tso", "gso", "gro")
    off = [word for feature in features for word in (feature, "off")]
    node.execute(["ethtool", "-K", interface, *off])


def check_interface_name(name: str) -> None:
    """Raise ``LabConfigError`` for a name that the kernel would refuse."""
    if not re.fullmatch(r"[^\s/:]+", name) or len(name.encode()) > MAX_INTERFACE_NAME:
        raise LabConfigError(
            f"the interface name '{name}' cannot be used: 1-{MAX_INTERFACE_NAME} bytes without "
            "space, '/' or ':'"
        )


def interface_addresses(
    texts: Iterable[str],
) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    """Addresses with prefix lengths from text such as ``10.0.0.5/24``; refuses one without."""
    result = []
    for text in texts:
        if "/" not in text:
            raise LabConfigError(f"the address '{text}' has no prefix length: write {text}/24")
        try:
            result.append(ipaddress.ip_interface(text))
        except ValueError as error:
            raise LabConfigError(f"the address '{text}' cannot be used: {error}") from error
    return result
