"""Signals that end a process, turned into an orderly end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], object] | int | None


def exit_on_signals() -> dict[signal.Signals, Handler]:
    """Let SIGTERM and SIGHUP raise ``SystemExit``, so that contexts are left as on Ctrl-C.

    A handler of somebody else stays, and so does a signal that is ignored (nohup(1)).

    Returns:
        The former handlers, for ``restore_handlers``; empty outside the main thread, where Python
        allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {
        number: signal.signal(number, _exit)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    }


def restore_handlers(former: dict[signal.Signals, Handler]) -> None:
    for number, handler in former.items():
        signal.signal(number, handler)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Keep SIGINT, SIGTERM and SIGHUP back; the first that came is raised at the end.

    Outside the main thread it does nothing: Python runs handlers in the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        pending.append(number)

    former: dict[signal.Signals, Handler] = {
        number: signal.signal(number, note)
        for number in _ENDING_SIGNALS
        if signal.getsignal(number) not in {signal.SIG_IGN, None}
    }
    try:
        yield
    finally:
        restore_handlers(former)
        for number in pending[:1]:
            signal.raise_signal(number)


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
