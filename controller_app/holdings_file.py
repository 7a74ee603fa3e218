"""The file in which the holdings outlive the agent: a journal that is appended to and made short again.

What is appended survives the death of the process, in which nothing is lost that was handed to
write(2). Nothing is synced to the disk: after a power failure the switch is as empty as the agent, and
a file that came out of it damaged is noticed (see ``ondemand.journal``).

A thread makes the journal short when it has grown, from the file alone, so payloads stay as they came
and the thread that handles packets has no part in it. It waits only while the short file takes the
place of the other: for one call of rename(2), which is quick anywhere but on a disk that is busy.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ondemand.holdings import Holdings, Identity, Write
from ondemand.journal import (
    HoldingsError,
    check_identity,
    encode_batch,
    encode_header,
    read_batch,
    read_frames,
    read_header,
    replay,
)

LOG = logging.getLogger(__name__)

#: The journal is made short when it is larger than this, and than ``COMPACT_RATIO`` times what it was
#: when it was short. Bytes.
COMPACT_ABOVE: Final = 4 << 20
COMPACT_RATIO: Final = 4
#: After so many bytes the thread that makes the journal short lets the others run, for so long.
BREATH_BYTES: Final = 64 << 10
BREATH_S: Final = 0.001

_MODE: Final = 0o600


class HoldingsFile:
    """One journal. ``load`` first, then ``append``, both from one thread; ``close`` at the end.

    ``source`` is the identity of the store, None while it does not answer. When the file cannot be
    used or written, ``warn`` is told in one sentence and the agent goes on without: what is saved is
    never more than a head start.
    """

    def __init__(
        self,
        path: Path,
        *,
        host: str,
        source: str | None,
        warn: Callable[[str], None] = LOG.warning,
        compact_above: int = COMPACT_ABOVE,
    ) -> None:
        self.path = path
        self._host = host
        self._source = source
        self._warn = warn
        self._compact_above = compact_above
        self._spare = path.with_name(path.name + ".new")
        #: Guards what is below. Held for a write or a rename, not while the file is made short.
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._size = 0
        self._short_size = 0
        self._compacting: threading.Thread | None = None

    @property
    def is_saving(self) -> bool:
        """Whether what is appended is written down; once False, it stays so."""
        return self._fd is not None

    def load(self) -> Holdings | None:
        """What was saved, None when nothing is; whatever it is, appending goes on from there.

        If the store does not answer, ``Holdings.identity`` says of which store the holdings are: they
        are worth nothing if it turns out to be another one.
        """
        try:
            holdings = self._read()
        except HoldingsError as error:
            self._warn(str(error))
            holdings = None
        except OSError as error:
            self._abandon(error)
            return None
        try:
            if holdings is None:
                self._begin(Identity(self._host, self._source or ""))
        except OSError as error:
            self._abandon(error)
        return holdings

    def append(self, writes: Sequence[Write]) -> None:
        """Write down one batch, in one call of write(2)."""
        if not writes:
            return
        with self._lock:
            if self._fd is None:
                return
            try:
                self._size += _write(self._fd, encode_batch(writes))
            except OSError as error:
                self._abandon(error)
                return
        if self._size > max(self._compact_above, COMPACT_RATIO * self._short_size):
            self._compact()

    def close(self) -> None:
        """End saving; the file stays."""
        if self._compacting is not None:
            self._compacting.join()
        with self._lock:
            self._close()

    # -- beginning -------------------------------------------------------------------------------

    def _read(self) -> Holdings | None:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            os.fchmod(fd, _MODE)
            holdings, end = replay(_read(fd, 0, os.fstat(fd).st_size), str(self.path))
            if not holdings.identity.source and not holdings.slices:
                os.close(fd)
                return None  # the store never answered, so nothing was ever held
            check_identity(holdings.identity, self._host, self._source, str(self.path))
            os.ftruncate(fd, end)  # or what comes next would stand behind half a frame
        except BaseException:
            os.close(fd)
            raise
        # How short it can be is not known: if it is long, that is looked at with the next append.
        self._fd, self._size, self._short_size = fd, end, 0
        return holdings

    def _begin(self, identity: Identity) -> None:
        fd = self._open_spare()
        try:
            header = encode_header(identity)
            _write(fd, header)
            self._spare.replace(self.path)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._size, self._short_size = fd, len(header), len(header)

    def _open_spare(self) -> int:
        self._spare.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(self._spare, flags, _MODE)

    # -- making it short -------------------------------------------------------------------------

    def _compact(self) -> None:
        if self._compacting is None or not self._compacting.is_alive():
            self._compacting = threading.Thread(
                target=self._make_short, name="holdings-file", daemon=True
            )
            self._compacting.start()

    def _make_short(self) -> None:
        """Write what the journal leads to into a new file, and put that in its place."""
        with self._lock:
            if self._fd is None:
                return
            # One of its own: the other is closed when saving ends in the middle.
            old, end = os.dup(self._fd), self._size
        try:
            spare = self._open_spare()
            try:
                in_use = self._swap(old, end, spare, self._write_short(old, end, spare))
            except BaseException:
                os.close(spare)
                raise
            if not in_use:
                os.close(spare)
                self._spare.unlink(missing_ok=True)
        except (OSError, HoldingsError) as error:
            with self._lock:
                if self._fd is not None:
                    self._abandon(error)
        finally:
            os.close(old)

    def _write_short(self, fd: int, end: int, spare: int) -> int:
        """Bytes of the journal that leads where the first ``end`` bytes of the old one lead."""
        breath = _Breath()
        name = str(self.path)
        holdings: Holdings | None = None
        for body, _ in read_frames(_read(fd, 0, end), name):
            if holdings is None:
                holdings = Holdings(read_header(body, name))
            else:
                holdings.apply(read_batch(body, name))
            breath.after(len(body))
        if holdings is None:
            raise HoldingsError(f"saved holdings {name} have lost their header")
        size = _write(spare, encode_header(holdings.identity))
        for batch in holdings.as_writes():
            frame = encode_batch(batch)
            size += _write(spare, frame)
            breath.after(len(frame))
        return size

    def _swap(self, old: int, end: int, spare: int, short_size: int) -> bool:
        """Take over what was appended meanwhile, and write into the short file from now on.

        False when saving has ended, and the short file must not take the place of the one removed.
        """
        size = short_size
        while self._size - end > BREATH_BYTES:
            newer = _read(old, end, BREATH_BYTES)
            end += len(newer)
            size += _write(spare, newer)
        # Some file systems write the new file out at the rename, which then is to be little.
        os.fsync(spare)
        with self._lock:
            if self._fd is None:
                return False
            size += _write(spare, _read(old, end, self._size - end))
            self._spare.replace(self.path)
            self._close()
            self._fd, self._size, self._short_size = spare, size, short_size
            return True

    # -- ending ----------------------------------------------------------------------------------

    def _abandon(self, error: Exception) -> None:
        """Save no more. A file that lacks what could not be written must not be loaded."""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self._close()
        mend = f"{self._mend(error)}, and restart the agent"
        try:
            for path in (self.path, self._spare):
                path.unlink(missing_ok=True)
        except OSError as second:
            mend += (
                "; if there is such a file, it is out of date now, and could not be removed"
                f" ({second.strerror})"
            )
        self._warn(
            f"holdings are not saved in {self.path} ({reason}), so a restart reads slices anew:"
            f" {mend}"
        )

    def _mend(self, error: Exception) -> str:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT):
            return "make room for it"
        if number == errno.ENOENT and _is_writable(_nearest_folder(self.path)):
            return f"make its folder with 'mkdir -p {self.path.parent}'"
        if number in (errno.EACCES, errno.EPERM, errno.ENOENT):
            return (
                "run the agent as root, or set [state] holdings_file to a path where this user may"
                " write"
            )
        return "give this user write access to the file and to its folder"

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _nearest_folder(path: Path) -> Path:
    """The folder above ``path`` that is there, as far as this user can see."""
    return next((folder for folder in path.parents if os.access(folder, os.F_OK)), Path("/"))


def _is_writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


class _Breath:
    """Gives way to the thread that handles packets, which waits while this one computes."""

    def __init__(self) -> None:
        self._done = 0

    def after(self, count: int) -> None:
        self._done += count
        if self._done >= BREATH_BYTES:
            self._done = 0
            time.sleep(BREATH_S)


def _read(fd: int, start: int, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = os.pread(fd, count, start)
        if not part:
            break
        parts.append(part)
        start += len(part)
        count -= len(part)
    return b"".join(parts)


def _write(fd: int, data: bytes) -> int:
    """Write in one call; how many bytes. OSError also when it were less than all."""
    written = os.write(fd, data)
    if written < len(data):
        # The next call would say why: the disk is full, or the file may not grow.
        raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes could be written")
    return written


__all__ = ["HoldingsFile"]
