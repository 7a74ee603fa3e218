"""The lab's errors.

```
LabError                 base: everything the lab raises on purpose
├── LabUnavailableError  this machine or user cannot run a lab (no root, a program is missing)
├── CommandError         a command in a namespace ended with a failure
│   └── CommandTimeoutError  ... or did not end in its time, and was killed
└── LabConfigError       the caller asked for something that cannot be (a bad name, MAC, address)
```
"""

from __future__ import annotations

from collections.abc import Sequence


class LabError(Exception):
    """Base of all errors of the lab."""


class LabUnavailableError(LabError):
    """The machine lacks something that every lab needs; the message says what and how to mend it."""


class LabConfigError(LabError):
    """A value given by the caller cannot be used; the message names it."""


class CommandError(LabError):
    """A command failed.

    ``returncode`` is as subprocess gives it (negative: the signal); ``output`` is what the command
    wrote to standard error, or else to standard output.
    """

    def __init__(self, where: str, argv: Sequence[str], returncode: int, output: str) -> None:
        self.where = where
        self.argv = tuple(argv)
        self.returncode = returncode
        self.output = output.strip()
        super().__init__(self._message())

    def _message(self) -> str:
        said = self.output or "it printed nothing"
        return (
            f"{where_text(self.where)}: '{' '.join(self.argv)}' failed ({self.returncode}): {said}"
        )


class CommandTimeoutError(CommandError):
    """A command did not end within ``timeout_s`` seconds and was killed with its process group."""

    def __init__(self, where: str, argv: Sequence[str], timeout_s: float, output: str) -> None:
        self.timeout_s = timeout_s
        super().__init__(where, argv, -9, output)

    def _message(self) -> str:
        said = f": {self.output}" if self.output else ""
        return (
            f"{where_text(self.where)}: '{' '.join(self.argv)}' did not end within "
            f"{self.timeout_s:g} s{said}"
        )


def where_text(where: str) -> str:
    return where or "root namespace"
