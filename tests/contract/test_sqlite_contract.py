"""The SQLite store keeps the contract of a source of slices."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller_app.sqlite_file import StoreOptions
from controller_app.sqlite_store import SqliteStore
from tests.contract.backend import Backend
from tests.contract.source_contract import SourceContract


class SqliteBackend(Backend):
    """One file; every reader and writer opens it for itself, as separate processes would."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "slices.db"
        self._away = folder / "away.db"
        self._options = StoreOptions(tombstones_per_slice=20)
        self._stores: list[SqliteStore] = []
        self.publisher().publish({}, replace_all=False)

    def source(self) -> SqliteStore:
        return self._open(writer=False)

    def publisher(self) -> SqliteStore:
        return self._open(writer=True)

    def _open(self, *, writer: bool) -> SqliteStore:
        store = SqliteStore(self._path, writer=writer, options=self._options)
        self._stores.append(store)
        return store

    def forget_history(self, name: str) -> None:
        keys = [f"forgotten/{number}" for number in range(25)]
        publisher = self.publisher()
        publisher.write(name, dict.fromkeys(keys, b"x"))
        publisher.write(name, dict.fromkeys(keys))

    def lose(self) -> None:
        self._path.rename(self._away)

    def restore(self) -> None:
        self._away.rename(self._path)

    def make_anew(self) -> None:
        for file in self._path.parent.glob(self._path.name + "*"):
            file.unlink()
        self.publisher().publish({}, replace_all=False)

    def close(self) -> None:
        for store in self._stores:
            store.close()


@pytest.fixture
def backend(tmp_path):
    made = SqliteBackend(tmp_path)
    yield made
    made.close()


class TestSqlite(SourceContract):
    pass
