"""Whether an agent holds what the source has: its saved holdings, compared slice by slice.

The agent may run meanwhile. What it appends to the file is read as far as it is whole, and what differs
is looked at again before it counts, because a change may be on its way.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller_app.source_factory import SliceStore
from ondemand.holdings import Holdings, SavedSlice
from ondemand.journal import HoldingsError, replay
from ondemand.publishing import difference
from ondemand.slices import Snapshot, host_slice

#: Seconds between two looks at what differs.
_LOOK_EVERY_S: Final = 0.2


class VerifyError(Exception):
    """Nothing can be compared. The message names the thing and the mend."""


@dataclass(frozen=True, slots=True)
class SliceDifference:
    """How what is held of one slice differs from the source.

    Attributes:
        name: the slice.
        held_version: None when the slice is not held at all.
        source_version: 0 when the source never had it.
        missing: keys that the source has and a slice held whole has not.
        differing: keys of records that are not the same.
        gone: keys that are held and that the source has not.
        appeared: keys that are held as known to be absent, and that the source has.
        held: payloads that are held, by key.
        source: payloads of the source, by key.
    """

    name: str
    held_version: int | None
    source_version: int
    missing: tuple[str, ...]
    differing: tuple[str, ...]
    gone: tuple[str, ...]
    appeared: tuple[str, ...]
    held: Mapping[str, bytes]
    source: Mapping[str, bytes]

    @property
    def has_other_version(self) -> bool:
        # Of a slice that the source never had, an agent holds the version at which the store was made.
        return self.source_version not in (0, self.held_version)

    def __bool__(self) -> bool:
        return self.has_other_version or any(
            (self.missing, self.differing, self.gone, self.appeared)
        )


@dataclass(frozen=True, slots=True)
class Verified:
    """What was compared, and what differs.

    Attributes:
        host: whose holdings they are.
        file_bytes: size of the file.
        slices: how many are held, in whole or in part.
        records: how many are held, absences not counted.
        absences: records that are known to be absent.
        payload_bytes: of the records held.
        differences: by the names of the slices.
        moving: slices that changed so fast that they could not be compared at one version.
    """

    host: str
    file_bytes: int
    slices: int
    records: int
    absences: int
    payload_bytes: int
    differences: tuple[SliceDifference, ...]
    moving: tuple[str, ...]


def verify_holdings(path: Path, store: SliceStore, *, host: str | None, wait_s: float) -> Verified:
    """Compare what the agent has saved in ``path`` with what ``store`` has.

    Args:
        path: the file, also of an agent that runs.
        store: the source that the agent follows.
        host: whose holdings they must be; None: whoever's they are.
        wait_s: seconds for which what differs is looked at again and again before it counts.

    Raises:
        VerifyError: there is no file, it is damaged, or it is of another host or store.
        SourceError: the store does not answer.
    """
    deadline_s: float | None = None
    found: dict[str, SliceDifference] = {}
    #: Where the source was when a slice was first seen to differ.
    first: dict[str, int] = {}
    suspects: Collection[str] | None = None
    while True:
        holdings, size = _read(path)
        _check_host(path, holdings, host)
        identity = store.identity()
        is_same = holdings.identity.source == identity or not holdings.slices
        if is_same:
            found = {one.name: one for one in _differences(holdings, store, suspects)}
            suspects = found.keys()
            for one in found.values():
                first.setdefault(one.name, one.source_version)
        # The first look may take long, and says where the source was.
        if deadline_s is None:
            deadline_s = time.monotonic() + wait_s
        left_s = deadline_s - time.monotonic()
        if (is_same and not found) or left_s <= 0:
            break
        time.sleep(min(_LOOK_EVERY_S, left_s))
    if not is_same:
        raise VerifyError(
            f"{path} is of the store {holdings.identity.source or '(none)'}, and {store.place} is"
            f" {identity}: give the store that the agent of {holdings.identity.host} follows"
        )
    moving = tuple(name for name, one in found.items() if _has_moved(one, first[name]))
    return _summed(
        holdings, size, tuple(one for name, one in found.items() if name not in moving), moving
    )


def _read(path: Path) -> tuple[Holdings, int]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise VerifyError(
            f"there are no saved holdings {path}: give the file of [state] holdings_file; an agent makes"
            " it when it starts, and removes it when it cannot write it, as its log says then"
        ) from None
    except OSError as error:
        raise VerifyError(
            f"the saved holdings {path} cannot be read ({error.strerror}): read them as the user who"
            " runs the agent"
        ) from error
    try:
        return replay(data, str(path))[0], len(data)
    except HoldingsError as error:
        raise VerifyError(
            f"{error}. That is what an agent says that starts with this file; until then nothing can be"
            " compared"
        ) from error


def _check_host(path: Path, holdings: Holdings, host: str | None) -> None:
    found = holdings.identity.host
    if host is not None and found != host:
        raise VerifyError(
            f"{path} is of host {found!r}, and not of {host!r}: give the file of that host's agent, or"
            f" set [host] id"
        )


def _differences(
    holdings: Holdings, store: SliceStore, suspects: Collection[str] | None
) -> Iterator[SliceDifference]:
    """What differs, of the slices in ``suspects`` only, None: of all."""
    own = host_slice(holdings.identity.host)
    names = sorted({*holdings.slices, own})
    for name in names:
        if suspects is not None and name not in suspects:
            continue
        snapshot = store.snapshot(name)
        saved = holdings.slices.get(name)
        if saved is not None:
            one = _compared(saved, snapshot)
            if one:
                yield one
        elif snapshot.version:
            # An agent always holds the slice of its own host.
            missing = tuple(snapshot.records)
            yield SliceDifference(
                name, None, snapshot.version, missing, (), (), (), {}, snapshot.records
            )


def _compared(saved: SavedSlice, snapshot: Snapshot) -> SliceDifference:
    held = {key: payload for key, (_, payload) in saved.records.items() if payload is not None}
    absent = [key for key, (_, payload) in saved.records.items() if payload is None]
    keys = difference(held, snapshot.records)
    return SliceDifference(
        name=snapshot.slice,
        held_version=saved.version,
        source_version=snapshot.version,
        missing=keys.added if saved.is_whole else (),
        differing=keys.changed,
        gone=keys.removed,
        appeared=tuple(key for key in absent if key in snapshot.records),
        held=held,
        source=snapshot.records,
    )


def _has_moved(one: SliceDifference, first: int) -> bool:
    """Whether the agent has reached what the source was at first, while the source went on."""
    held = one.held_version
    return held is not None and first <= held < one.source_version


def _summed(
    holdings: Holdings, size: int, differences: tuple[SliceDifference, ...], moving: tuple[str, ...]
) -> Verified:
    records = absences = payload_bytes = 0
    for saved in holdings.slices.values():
        for _, payload in saved.records.values():
            if payload is None:
                absences += 1
            else:
                records += 1
                payload_bytes += len(payload)
    return Verified(
        host=holdings.identity.host,
        file_bytes=size,
        slices=len(holdings.slices),
        records=records,
        absences=absences,
        payload_bytes=payload_bytes,
        differences=differences,
        moving=moving,
    )


__all__ = ["SliceDifference", "Verified", "VerifyError", "verify_holdings"]
