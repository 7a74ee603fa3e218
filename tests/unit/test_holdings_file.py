"""The file of the holdings: what it survives, and what it must refuse."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller_app import holdings_file
from controller_app.holdings_file import HoldingsFile
from controller_app.sqlite_store import SqliteStore
from ondemand.codec import encode_record
from ondemand.holdings import (
    Holdings,
    Identity,
    PartHeld,
    RecordHeld,
    SavedSlice,
    SliceDropped,
    SourceChanged,
    WholeHeld,
    Write,
)
from ondemand.journal import encode_batch, encode_header, replay
from ondemand.records import Group, Neighbor
from ondemand.slice_cache import SliceCache
from ondemand.slices import Delta, SourceState
from tests.contract.backend import Recorder

SG, SHARD = "sg/web", "nbr/v1/10.0.0.0"
FIRST: list[Write] = [WholeHeld(SG, 3, {"group": b"g"}), PartHeld(SHARD, 5)]
SECOND: list[Write] = [RecordHeld(SHARD, "ip/10.0.0.1", 5, b"n"), SliceDropped("sg/other")]
SAVED = {
    SG: SavedSlice(True, 3, {"group": (3, b"g")}),
    SHARD: SavedSlice(False, 5, {"ip/10.0.0.1": (5, b"n")}),
}


class Files:
    """Opens the file again and again, as restarts do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._open: list[HoldingsFile] = []

    def open(
        self, *, host: str = "h1", source: str | None = "s1", compact_above: int = 1 << 30
    ) -> HoldingsFile:
        file = HoldingsFile(
            self.path,
            host=host,
            source=source,
            warn=self.warnings.append,
            compact_above=compact_above,
        )
        self._open.append(file)
        return file

    def load(self, *, source: str | None = "s1") -> dict[str, SavedSlice] | None:
        file = self.open(source=source)
        holdings = file.load()
        file.close()
        return holdings.slices if holdings is not None else None

    def filled(self) -> None:
        file = self.open()
        assert file.load() is None
        file.append(FIRST)
        file.append(SECOND)
        file.close()

    def close(self) -> None:
        for file in self._open:
            file.close()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    made = Files(tmp_path / "holdings")
    yield made
    made.close()


def test_what_was_appended_is_loaded(files: Files) -> None:
    files.filled()
    assert files.load() == SAVED
    file = files.open()
    file.load()
    file.append([SliceDropped(SG)])
    file.append([])
    assert files.load() == {SHARD: SAVED[SHARD]}
    assert files.warnings == []
    assert [path.name for path in files.path.parent.iterdir()] == ["holdings"]


def test_only_its_user_may_read_it(files: Files) -> None:
    files.filled()
    assert files.path.stat().st_mode & 0o777 == 0o600
    files.path.chmod(0o644)
    files.load()
    assert files.path.stat().st_mode & 0o777 == 0o600


def test_half_a_frame_at_the_end_is_as_if_never_written(files: Files) -> None:
    files.filled()
    whole = files.path.read_bytes()
    last = len(encode_batch(SECOND))
    for cut in range(1, last + 1):
        files.path.write_bytes(whole[:-cut])
        file = files.open()
        holdings = file.load()
        assert holdings is not None
        assert holdings.slices == {SG: SAVED[SG], SHARD: SavedSlice(False, 5)}
        file.append(SECOND)
        file.close()
        assert files.load() == SAVED, "it goes on behind what is whole"
    assert files.warnings == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda data: data[:50] + bytes((data[50] ^ 1,)) + data[51:],
            "it is damaged between bytes",
        ),
        (lambda data: b"\0" * 4 + data[4:], "it is damaged at byte 0"),
        (lambda data: data + b"\0" * 4096, "it is damaged at byte"),
        (lambda data: b"junk", "it has no header"),
        (lambda data: b"", "it has no header"),
        (lambda data: data[data.index(b"ondemand") + 40 :], "it is damaged at byte 0"),
        (lambda data: encode_batch(FIRST) + data, "it is no journal of holdings"),
        (lambda data: data + encode_header(Identity("h1", "s1")), "a batch that cannot be read"),
        (lambda data: encode_header(Identity("h2", "s1")), "it is of host 'h2', and this one"),
        (lambda data: data + encode_batch([SourceChanged("s2")]), "it is of another slice store"),
    ],
)
def test_what_cannot_be_used_is_told_once_and_begun_anew(files, spoil, reason) -> None:
    files.filled()
    files.path.write_bytes(spoil(files.path.read_bytes()))
    file = files.open()
    assert file.load() is None
    (warning,) = files.warnings
    assert reason in warning
    assert str(files.path) in warning
    file.append(FIRST)
    file.append(SECOND)
    assert files.load() == SAVED
    assert len(files.warnings) == 1


def test_a_newer_format_is_not_guessed_at(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ondemand.journal.FORMAT", 2)
    files.filled()
    monkeypatch.undo()
    assert files.load() is None
    assert "it is of format 2, and this release reads 1" in files.warnings[0]


def test_a_store_that_does_not_answer_is_compared_later(files: Files) -> None:
    files.filled()
    holdings = files.open(source=None).load()
    assert holdings is not None
    assert (holdings.identity, holdings.slices) == (Identity("h1", "s1"), SAVED)


def test_a_store_without_identity_is_trusted_in_nothing(files: Files) -> None:
    file = files.open(source="")
    file.load()
    file.append(FIRST)
    file.close()
    assert files.load(source="") is None
    assert "another slice store" in files.warnings[0]


def test_the_store_may_become_known_later(files: Files) -> None:
    """As long as it does not answer nothing can be held, so nothing is lost."""
    file = files.open(source=None)
    assert file.load() is None
    file.close()
    file = files.open(source=None)
    assert file.load() is None
    file.append([SourceChanged("s1"), *FIRST])
    file.append(SECOND)
    file.close()
    assert files.load() == SAVED
    assert files.warnings == []


_CHILD = """
import sys
from pathlib import Path
from controller_app.holdings_file import HoldingsFile
from controller_app.sqlite_store import SqliteStore
from ondemand.codec import encode_record
from ondemand.holdings import PartHeld, RecordHeld
file = HoldingsFile(Path(sys.argv[1]), host="h1", source="s1", compact_above=int(sys.argv[2]))
file.load()
file.append([PartHeld("nbr/v1/10.0.0.0", 1)])
for number in range(10**6):
    file.append([RecordHeld("nbr/v1/10.0.0.0", f"{number % 50}", number, b"x" * 100)])
    print(number, flush=True)
"""


@pytest.mark.parametrize("compact_above", [1 << 30, 20_000])
def test_kill_9_loses_nothing_that_was_appended(files: Files, compact_above: int) -> None:
    """In the second case the file is being made short all the time."""
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(files.path), str(compact_above)], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(3000)]
        child.send_signal(signal.SIGKILL)
        # Of a last line that is incomplete nothing is expected.
        last = int((b"".join(told) + child.stdout.read()).rpartition(b"\n")[0].split()[-1])
    slices = files.load()
    assert slices is not None
    versions = [version for version, _ in slices[SHARD].records.values()]
    found = max(versions)
    assert sorted(versions) == list(range(found - 49, found + 1)), "all 50 are of one moment"
    assert found >= last
    assert files.warnings == []


def test_the_file_is_made_short(files: Files) -> None:
    file = files.open(compact_above=20_000)
    file.load()
    file.append(FIRST)
    for number in range(5000):
        file.append([RecordHeld(SHARD, f"{number % 20}", number, b"x" * 100)])
    wait_until(lambda: threading.active_count() == 1 or not file._compacting.is_alive())
    file.append([SliceDropped(SG)])
    file.close()
    assert files.path.stat().st_size < 60_000, "5000 records were written, of 20 keys"
    slices = files.load()
    assert slices is not None
    assert set(slices) == {SHARD}
    assert sorted(v for v, _ in slices[SHARD].records.values()) == list(range(4980, 5000))
    assert files.path.stat().st_mode & 0o777 == 0o600


def test_what_comes_while_it_is_made_short_follows_in_order(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at each step of it, in turn."""
    reached, go_on = threading.Event(), threading.Event()

    def stop_at(target: object, name: str) -> None:
        original = getattr(target, name)

        def stopping(*args: object) -> object:
            if threading.current_thread().name == "holdings-file":
                result = original(*args)
                reached.set()
                assert go_on.wait(60)
                return result
            return original(*args)

        monkeypatch.setattr(target, name, stopping)

    number = 0
    expected = Holdings(Identity("h1", "s1"))

    def append(file: HoldingsFile) -> None:
        nonlocal number
        number += 1
        batch: list[Write] = [RecordHeld(SHARD, f"{number % 20}", number, b"x" * 100)]
        expected.apply(batch)
        file.append(batch)

    file = files.open(compact_above=5_000)
    file.load()
    file.append(FIRST)
    expected.apply(FIRST)
    for target, name in [
        (holdings_file, "_read"),
        (holdings_file, "encode_header"),
        (holdings_file, "_write"),
        (os, "fsync"),
    ]:
        with monkeypatch.context():
            stop_at(target, name)
            end = time.monotonic() + 20
            while not reached.is_set():
                assert time.monotonic() < end, name
                append(file)
                time.sleep(0.001)
            for _ in range(30):
                append(file)
            reached.clear()
            go_on.set()
            for _ in range(30):
                append(file)
            wait_until(lambda: not file._compacting.is_alive())
            monkeypatch.undo()
            go_on.clear()
            reached.clear()
        append(file)
        # Stopped from its beginning on: in the middle it may hold the lock.
        wait_until(lambda: not file._compacting.is_alive())
        holdings, _ = replay(files.path.read_bytes(), "test")
        assert holdings == expected
    assert files.warnings == []


def test_a_full_disk_ends_saving_and_leaves_no_file(files: Files) -> None:
    file = files.open()
    file.load()
    file.append(FIRST)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (files.path.stat().st_size + 20, hard))
        file.append(SECOND)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    (warning,) = files.warnings
    assert str(files.path) in warning
    assert "make room for it, and restart the agent" in warning
    assert not file.is_saving
    file.append(SECOND)
    assert list(files.path.parent.iterdir()) == []
    assert len(files.warnings) == 1
    assert files.load() is None


def test_failing_to_make_it_short_ends_saving(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    file = files.open(compact_above=1000)
    file.load()
    file.append(FIRST)
    monkeypatch.setattr(Path, "replace", fail)
    for number in range(100):
        file.append([RecordHeld(SHARD, "k", number, b"x" * 100)])
    wait_until(lambda: files.warnings)
    assert "No space left" in files.warnings[0]
    assert not file.is_saving
    file.append(SECOND)
    assert list(files.path.parent.iterdir()) == []
    assert len(files.warnings) == 1


def test_saving_that_ends_while_it_is_made_short_leaves_no_file(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    original = HoldingsFile._write_short

    def stopping(*args: object) -> int:
        size = original(*args)  # type: ignore[arg-type]
        reached.set()
        assert go_on.wait(10)
        return size

    monkeypatch.setattr(HoldingsFile, "_write_short", stopping)
    file = files.open(compact_above=100)
    file.load()
    file.append(FIRST)
    file.append([RecordHeld(SHARD, "k", 1, b"x" * 100)])
    assert reached.wait(10)
    os.close(file._fd)  # type: ignore[arg-type]
    read_only = os.open(files.path, os.O_RDONLY)
    file._fd = read_only
    file.append(SECOND)
    assert not file.is_saving
    go_on.set()
    file.close()
    assert list(files.path.parent.iterdir()) == []
    assert len(files.warnings) == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    files = Files(tmp_path / "none" / "holdings")
    file = files.open()
    assert file.load() is None
    file.append(FIRST)
    (warning,) = files.warnings
    assert f"mkdir -p {tmp_path / 'none'}" in warning


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """A folder in which this process, which is nobody special meanwhile, may not write."""
    folder = Path(tempfile.mkdtemp(prefix="holdings-"))
    folder.chmod(0o555)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(before)
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.parametrize("below", ["", "new/folder"])
def test_without_root_it_says_what_to_do(ordinary_user: Path, below: str) -> None:
    files = Files(ordinary_user / below / "holdings")
    assert files.load() is None
    (warning,) = files.warnings
    assert f"holdings are not saved in {files.path} (" in warning
    assert "run the agent as root, or set [state] holdings_file to a path" in warning
    assert "failed here" not in warning
    assert "mkdir" not in warning


def test_without_root_a_file_of_root_is_told_to_be_out_of_date(ordinary_user: Path) -> None:
    files = Files(ordinary_user / "holdings")
    me = os.geteuid()
    if os.getresuid()[0] != 0:
        pytest.skip("only root can make a file of root")
    os.seteuid(0)
    files.path.write_bytes(b"x")
    files.path.chmod(0o600)
    os.seteuid(me)
    assert files.load() is None
    (warning,) = files.warnings
    assert "(Permission denied)" in warning
    assert "run the agent as root, or set [state] holdings_file" in warning
    assert "it is out of date now, and could not be removed (Permission denied)" in warning


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "holdings").mkdir()
    files = Files(tmp_path / "holdings")
    assert files.load() is None
    assert str(files.path) in files.warnings[0]


def wait_until(holds) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


# -- all of it together ------------------------------------------------------------------------------


class Agents:
    """One agent after the other, with a cache, a file and a watch, without engine and switch."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "slices.db"
        self.files = Files(folder / "holdings")
        self.writer = SqliteStore(self.store, writer=True)
        self._open: list[SqliteStore] = [self.writer]

    def start(self) -> tuple[SliceCache, Recorder, HoldingsFile]:
        source = SqliteStore(self.store)
        self._open.append(source)
        identity = source.identity()
        file = self.files.open(source=identity)
        cache, recorder = SliceCache(1 << 20, saving=True), Recorder()
        watch = source.watch(recorder, identity)
        holdings = file.load()
        if holdings is None:
            cache.hold(SG)
            cache.apply(source.snapshot(SG))
            cache.put(source.get(SHARD, "ip/10.0.0.1"), 1)
            for name, version in cache.versions().items():
                watch.follow(name, version)
        else:
            for restored in cache.restore(holdings).slices:
                watch.follow(restored.slice, restored.version)
        file.append(cache.take_writes())
        return cache, recorder, file

    def publish(self, group: str, mac: int) -> None:
        neighbor = Neighbor(bytes((10, 0, 0, 1)), bytes((2, 0, 0, 0, 0, mac)), "n", "p", bytes(4))
        self.writer.publish(
            {
                SG: {"group": encode_record(Group("web", group))},
                SHARD: {neighbor.key: encode_record(neighbor), "ip/10.0.0.9": b"not asked for"},
            },
            replace_all=True,
        )

    def close(self) -> None:
        self.files.close()
        for store in self._open:
            store.close()


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    made = Agents(tmp_path)
    yield made
    made.close()


def holds(cache: SliceCache, group: str, mac: int) -> bool:
    neighbor = cache.neighbor("v1", bytes((10, 0, 0, 1)))
    return (
        cache.whole(SG) == {"group": Group("web", group)}
        and neighbor is not None
        and isinstance(neighbor.record, Neighbor)
        and neighbor.record.mac[5] == mac
    )


def test_a_restart_asks_for_what_changed_only(agents: Agents) -> None:
    agents.publish("first", 1)
    cache, _, _ = agents.start()
    assert holds(cache, "first", 1)
    agents.publish("second", 2)
    cache, recorder, _ = agents.start()
    assert holds(cache, "first", 1), "as it was"
    for event in recorder.wait_for(lambda events: len(events) == 2):
        assert isinstance(event, Delta)
        assert cache.apply(event).heal is None
    assert holds(cache, "second", 2)


def test_a_store_that_was_made_anew_meanwhile_is_read_anew(agents: Agents) -> None:
    agents.publish("first", 1)
    agents.start()
    for file in agents.store.parent.glob("slices.db*"):
        file.unlink()
    agents.publish("other", 3)
    cache, _, _ = agents.start()
    assert holds(cache, "other", 3)
    assert "another slice store" in agents.files.warnings[0]


def test_a_store_that_is_made_anew_is_followed_and_saved(agents: Agents) -> None:
    agents.publish("first", 1)
    cache, recorder, file = agents.start()
    for leftover in agents.store.parent.glob("slices.db*"):
        leftover.unlink()
    agents.publish("other", 3)
    recorder.wait_for(lambda _: recorder.of(SG) and recorder.of(SHARD))
    wait_until(lambda: apply_all(cache, recorder) or holds(cache, "other", 3))
    file.append(cache.take_writes())
    cache, _, _ = agents.start()
    assert holds(cache, "other", 3)
    assert agents.files.warnings == []


def apply_all(cache: SliceCache, recorder: Recorder) -> None:
    while recorder.events:
        event = recorder.events.pop(0)
        if not isinstance(event, SourceState):
            cache.apply(event)
