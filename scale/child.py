"""A process of this package as its parent sees it: orders out, answers back."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

from mininet_topos.errors import LabError
from mininet_topos.lab_run import LabRun
from scale.pipe import Message

_READ: Final = 1 << 20
_END_S: Final = 10.0


class Child:
    """``python -m MODULE``, which ends when its standard input is closed."""

    def __init__(self, run: LabRun, module: str, name: str) -> None:
        self.name = name
        self._log = run.directory / f"{name}.log"
        with self._log.open("ab") as log:
            self._process: subprocess.Popen[bytes] = run.gate.start(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=run.environment() | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,
            )
        self._buffer = bytearray()
        run.own(self)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, message: Message) -> None:
        """Give an order; its answer must be taken before the next one.

        Raises:
            LabError: the process is gone.
        """
        pipe = self._process.stdin
        if pipe is None:
            raise LabError(f"{self.name} has no standard input")
        try:
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()
        except OSError as error:
            raise self._ended() from error

    def answer(
        self, timeout_s: float, progress: Callable[[int], object] = lambda _: None
    ) -> Message:
        """The answer to the last order; what comes before it is told to ``progress``.

        Raises:
            LabError: none came in time, or the process is gone.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            line = self._line(deadline_s, timeout_s)
            found: Message = json.loads(line)
            if "progress" not in found:
                return found
            progress(found["progress"])

    def call(self, message: Message, timeout_s: float = 60.0) -> Message:
        self.ask(message)
        return self.answer(timeout_s)

    def _line(self, deadline_s: float, timeout_s: float) -> bytes:
        pipe = self._process.stdout
        if pipe is None:
            raise LabError(f"{self.name} has no standard output")
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([pipe], [], [], left_s)[0]:
                raise LabError(f"{self.name} gave no answer within {timeout_s:.0f} s")
            data = os.read(pipe.fileno(), _READ)
            if not data:
                raise self._ended()
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _ended(self) -> LabError:
        said = self._log.read_text(errors="replace").strip().splitlines()
        return LabError(f"{self.name} ended by itself: {said[-1] if said else 'it said nothing'}")

    def begin_close(self) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                return

    def close(self) -> None:
        self.begin_close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
