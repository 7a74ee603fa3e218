"""The fair cache against a plain model of it: lists, and sums made anew each time.

The model looks at the cache before and after each step and says who may have lost what.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ondemand.fair_cache import NOBODY, FairCache

MAX_BYTES = 100
#: Two ports, a third, and nobody.
OWNERS = (1, 2, 3, NOBODY)


class Model:
    """Accounts as lists of (key, size), the oldest use first; nobody's are one after the other."""

    def __init__(self) -> None:
        self.accounts: dict[int, list[tuple[str, int]]] = {}
        self.nobodys: list[list[tuple[str, int]]] = []

    def lists(self) -> list[list[tuple[str, int]]]:
        return [*self.nobodys, *self.accounts.values()]

    def list_of(self, key: str) -> list[tuple[str, int]] | None:
        return next((one for one in self.lists() if any(key == k for k, _ in one)), None)

    def total(self) -> int:
        return sum(size for one in self.lists() for _, size in one)

    def tidy(self) -> None:
        self.nobodys = [one for one in self.nobodys if one]
        self.accounts = {owner: one for owner, one in self.accounts.items() if one}

    def use(self, key: str) -> None:
        one = self.list_of(key)
        if one is not None:
            (entry,) = (entry for entry in one if entry[0] == key)
            one.remove(entry)
            one.append(entry)

    def payers(self, keep: str) -> list[list[tuple[str, int]]]:
        """Who may give up an entry now; more than one when several hold the same."""
        can = [one for one in self.lists() if [k for k, _ in one if k != keep]]
        nobodys = [one for one in can if any(one is n for n in self.nobodys)]
        if nobodys:
            return nobodys[:1]
        most = max(sum(size for _, size in one) for one in can)
        return [one for one in can if sum(size for _, size in one) == most]

    def put(self, key: str, size: int, owner: int, dropped: list[str]) -> None:
        """Enter an entry, with the drops that the cache chose, each of which must be a right one."""
        self.use(key)
        one = self.list_of(key)
        if one is not None and owner != NOBODY and any(one is n for n in self.nobodys):
            one.pop()
            self.tidy()
            one = None
        before = one[-1][1] if one is not None else 0
        for gone in dropped:
            assert self.total() + size - before > MAX_BYTES, "dropped without need"
            payers = self.payers(key)
            (payer,) = [payer for payer in payers if payer[0][0] == gone]
            if owner != NOBODY and one is None and not self.nobodys:
                own = sum(s for _, s in self.accounts.get(owner, []))
                assert sum(s for _, s in payer) >= own, "taken from who holds less"
            payer.pop(0)
            self.tidy()
        if one is not None:
            one[-1] = (key, size)
        elif owner != NOBODY:
            self.accounts.setdefault(owner, []).append((key, size))
        else:
            if not self.nobodys:
                self.nobodys.append([])
            self.nobodys[-1].append((key, size))
        assert self.total() <= MAX_BYTES

    def release(self, owner: int) -> None:
        if owner in self.accounts:
            self.nobodys.append(self.accounts.pop(owner))

    def remove(self, key: str) -> None:
        one = self.list_of(key)
        if one is not None:
            one[:] = [entry for entry in one if entry[0] != key]
            self.tidy()


_steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "use", "peek", "remove", "release"]),
        st.sampled_from("abcdefghijkl"),
        st.integers(1, 60),
        st.sampled_from(OWNERS),
    ),
    max_size=80,
)


@settings(max_examples=500)
@given(_steps)
def test_who_holds_most_gives_up_its_oldest(steps: list[tuple[str, str, int, int]]) -> None:
    cache: FairCache[str, tuple[str, int]] = FairCache(MAX_BYTES, lambda entry: entry[1])
    model = Model()
    for op, key, size, owner in steps:
        if op == "put":
            cache.put(key, (key, size), owner)
            model.put(key, size, owner, [gone for gone, _ in cache.dropped])
            assert all(entry == (gone, entry[1]) for gone, entry in cache.dropped)
            cache.dropped.clear()
        elif op == "use":
            held = model.list_of(key) is not None
            assert (cache.get(key) is not None) == held
            model.use(key)
        elif op == "peek":
            assert (cache.peek(key) is not None) == (model.list_of(key) is not None)
        elif op == "remove":
            assert (cache.pop(key) is not None) == (model.list_of(key) is not None)
            model.remove(key)
        else:
            cache.release_owner(owner)
            model.release(owner)
        assert cache.dropped == []
        assert cache.used_bytes == model.total() <= MAX_BYTES
        entries = sorted(entry for one in model.lists() for entry in one)
        assert sorted(entry for _, entry in cache.items()) == entries
        owners = {owner: sum(s for _, s in one) for owner, one in model.accounts.items()}
        if model.nobodys:
            owners[NOBODY] = sum(size for one in model.nobodys for _, size in one)
        assert cache.bytes_by_owner() == owners
        assert len(cache) == sum(map(len, model.lists()))


@given(
    st.lists(st.integers(1, 10), max_size=8),
    st.lists(st.integers(3, 10), min_size=40, max_size=80),
)
def test_a_flood_takes_nothing_from_who_holds_less(own: list[int], flood: list[int]) -> None:
    """Of a port that stays below half of the cache, nothing is lost to another one's flood."""
    cache: FairCache[str, int] = FairCache(MAX_BYTES, lambda size: size)
    held: list[int] = []
    for size in own:
        if sum(held) + size <= MAX_BYTES // 2 - 10:
            cache.put(f"own/{len(held)}", size, 1)
            held.append(size)
    for number, size in enumerate(flood):
        cache.put(f"flood/{number}", size, 2)
    assert [cache.peek(f"own/{number}") for number in range(len(held))] == held
    assert cache.used_bytes > MAX_BYTES - 10, "the rest is the flood's: nobody has a fixed share"
    assert cache.bytes_by_owner()[2] == cache.used_bytes - sum(held)
