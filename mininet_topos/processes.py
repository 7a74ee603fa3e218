"""Run commands and background processes, and find and end those of one run.

Each process that a lab starts carries the run's id in its environment (``RUN_VARIABLE``), and what
that process starts inherits it. So whoever cleans up can find all of a run's processes, also those
whose pid was never told, and never takes a stranger for one of them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mininet_topos.errors import CommandError, CommandTimeoutError, LabError

#: Environment variable whose value is the id of the run that a process belongs to.
RUN_VARIABLE: Final = "ONDEMAND_LAB_RUN"

#: Seconds that a process gets between SIGTERM and SIGKILL.
TERM_GRACE_S: Final = 3.0

_POLL_S: Final = 0.01


class StartGate:
    """Starts processes until it is shut; after ``shut`` has returned, none can start any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_shut = False

    def start(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """``subprocess.Popen``, which returns when the program has been executed or failed.

        Raises:
            LabError: the gate is shut.
        """
        with self._lock:
            if self._is_shut:
                raise LabError(f"'{argv[0]}' was not started: its run has been closed")
            return subprocess.Popen(list(argv), **options)

    def shut(self) -> None:
        with self._lock:
            self._is_shut = True


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command that ended left: exit code (negative: signal) and its two outputs as text."""

    returncode: int
    stdout: str
    stderr: str


def run_command(
    argv: Sequence[str],
    *,
    where: str = "",
    env: Mapping[str, str] | None = None,
    timeout_s: float = 10.0,
    check: bool = True,
    stdin_text: str = "",
    gate: StartGate | None = None,
) -> CommandResult:
    """Run a command to its end.

    It runs in a session of its own, so that Ctrl-C in the terminal reaches the lab and not its
    tools, and so that a timeout ends the command's children too.

    Args:
        argv: program and arguments; no shell.
        where: name of the node for error messages; empty for the root namespace.
        env: full environment; None for the caller's.
        timeout_s: seconds; then the process group is killed.
        check: raise when the exit code is not 0.
        stdin_text: given on standard input.
        gate: starts the process; None for a process of no run.

    Raises:
        CommandError: exit code not 0 and ``check``, or the program does not exist.
        CommandTimeoutError: it took longer than ``timeout_s``.
    """
    try:
        process: subprocess.Popen[str] = (gate or StartGate()).start(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise CommandError(where, argv, 127, f"{error.filename} is not installed") from error
    with process:
        try:
            stdout, stderr = process.communicate(stdin_text, timeout=timeout_s)
        except subprocess.TimeoutExpired as expired:
            _kill_group(process)
            stdout, stderr = process.communicate()
            raise CommandTimeoutError(where, argv, timeout_s, stderr or stdout) from expired
        except BaseException:  # Ctrl-C or SIGTERM: leave no child behind, then go on with it
            _kill_group(process)
            raise
    if check and process.returncode != 0:
        raise CommandError(where, argv, process.returncode, stderr or stdout)
    return CommandResult(process.returncode, stdout, stderr)


def _kill_group(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


class Background:
    """A process that goes on beside the caller, known by its pid, its output in a file.

    ``name`` is for messages, ``log`` the file with its standard output and error.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        gate: StartGate | None = None,
    ) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.log = log
        with log.open("ab") as output:
            # The file may have what an earlier process of that name wrote.
            self._begin = output.seek(0, os.SEEK_END)
            self._process: subprocess.Popen[bytes] = (gate or StartGate()).start(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code (negative: signal), None while it runs."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        return self.returncode is None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has ended."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; False when it still runs after ``timeout_s`` seconds."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, *, grace_s: float = TERM_GRACE_S) -> None:
        """End it: SIGTERM, then SIGKILL after ``grace_s`` seconds. May be called again."""
        self.send_signal(signal.SIGTERM)
        if not self.wait(grace_s):
            self.kill()

    def kill(self) -> None:
        """End it with SIGKILL and reap it. May be called again."""
        self.send_signal(signal.SIGKILL)
        self._process.wait()

    def output(self) -> str:
        """All that it has written so far."""
        with self.log.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace")

    def output_tail(self, *, max_bytes: int = 4096) -> str:
        """The end of what it has written so far, for a look at the last lines."""
        with self.log.open("rb") as file:
            file.seek(max(self._begin, self.log.stat().st_size - max_bytes))
            return file.read().decode(errors="replace")


def wait_until_path_exists(path: Path, process: Background, *, timeout_s: float) -> None:
    """Wait for a file that ``process`` makes when it is ready, such as its socket.

    Raises:
        CommandError: the process ended before.
        CommandTimeoutError: the file was not there in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while not path.exists():
        code = process.returncode
        if code is not None:
            raise CommandError(process.name, process.argv, code, process.output_tail())
        if time.monotonic() > deadline_s:
            raise CommandTimeoutError(
                process.name, process.argv, timeout_s, f"{path} did not appear"
            )
        time.sleep(_POLL_S)


def wait_until_output(process: Background, text: str, *, timeout_s: float) -> None:
    """Wait until ``process`` has written ``text``.

    Raises:
        CommandError: it ended before.
        CommandTimeoutError: it had not in time, and was killed.
    """
    deadline_s = time.monotonic() + timeout_s
    while text not in process.output():
        code = process.returncode
        if code is not None:
            raise CommandError(process.name, process.argv, code, process.output_tail())
        if time.monotonic() > deadline_s:
            process.kill()
            said = process.output_tail()
            raise CommandTimeoutError(process.name, process.argv, timeout_s, said)
        time.sleep(_POLL_S)


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc(5), field 22); None: no such process.

    A pid together with this number names one process for as long as the machine is up.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    after_name = stat.rpartition(")")[2].split()
    if after_name[0] in {"Z", "X"}:
        return None
    return int(after_name[19])


def pids_of_run(run_id: str) -> list[int]:
    """The pids of all living processes that carry ``run_id``, without the caller's own."""
    own = os.getpid()
    entries = (entry.name for entry in Path("/proc").iterdir())
    return [
        pid for pid in map(int, filter(str.isdigit, entries)) if pid != own and _is_of(pid, run_id)
    ]


def end_processes_of_run(run_id: str, *, timeout_s: float = 5.0) -> int:
    """SIGKILL each process that carries ``run_id`` until none is left.

    Returns:
        How many processes were ended.
    """
    ended: set[int] = set()
    deadline_s = time.monotonic() + timeout_s
    while True:
        pids = pids_of_run(run_id)
        if not pids or time.monotonic() > deadline_s:
            return len(ended)
        ended.update(pids)
        _kill_if_of(pids, run_id)
        time.sleep(_POLL_S)


def _kill_if_of(pids: Iterable[int], run_id: str) -> None:
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            # Looked up again through the handle's process: the pid may have a new holder by now.
            if _is_of(pid, run_id):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            continue
        finally:
            os.close(handle)


def _is_of(pid: int, run_id: str) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return f"{RUN_VARIABLE}={run_id}".encode() in environ.split(b"\0")
