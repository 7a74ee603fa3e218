"""The ledger against a plain list: bounds, who is evicted, and the tag index."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from rule_cache.cookie import Cookies, serial_of, table_of
from rule_cache.fields import Field, Value
from rule_cache.ledger import Ledger
from rule_cache.rule import Arg, Eq, Output, Rule, Shape
from rule_cache.tags import Tag

#: Two shapes of one slot, so that their rules replace each other, and one of another.
_MATCH = (Eq(Field.REG6, Arg("zone")), Eq(Field.IPV4_DST, Arg("remote")))
SHAPES = (
    Shape("allow", 30, 100, _MATCH, (Output(Arg("port")),)),
    Shape("deny", 30, 100, _MATCH, ()),
    Shape("other", 40, 100, _MATCH, ()),
)
MAX_RULES, MAX_PER_OWNER = 8, 4
OWNERS = 4
TAGS = ("a", "b", "c")


@dataclass
class Known:
    """A rule as the model has it."""

    cookie: int
    rule: Rule
    owner: int
    tags: tuple[Tag, ...]


@dataclass(frozen=True)
class Step:
    what: str
    shape: int
    zone: int
    owner: int
    tags: tuple[Tag, ...]


steps = st.builds(
    Step,
    what=st.sampled_from(("add",) * 8 + ("remove", "remove", "retag", "clear")),
    shape=st.integers(0, 2),
    zone=st.integers(1, 12),
    owner=st.integers(1, OWNERS),
    # A tag may be named twice: a decision lists what it read, as often as it read it.
    tags=st.lists(st.sampled_from(TAGS), max_size=3).map(tuple),
)


class Model:
    def __init__(self) -> None:
        self.ledger = Ledger(Cookies(7), max_rules=MAX_RULES, max_rules_per_owner=MAX_PER_OWNER)
        #: Oldest first.
        self.rules: list[Known] = []
        self.evictions = 0
        self.cookies: set[int] = set()

    def add(self, step: Step) -> None:
        shape = SHAPES[step.shape]
        values: dict[str, Value] = {"zone": step.zone, "remote": b"\x0a\0\0\x01", "port": 5}
        rule = shape.rule(**{name: values[name] for name in shape.args})
        self.rules = [known for known in self.rules if known.rule.key != rule.key]
        owned = Counter(known.owner for known in self.rules)
        cookie, evicted = self.ledger.add(rule, step.tags, step.owner, step, 1.5)
        full = owned[step.owner] >= MAX_PER_OWNER or len(self.rules) >= MAX_RULES
        assert len(evicted) == full
        for gone in evicted:
            victim = next(known for known in self.rules if known.cookie == gone)
            if owned[step.owner] >= MAX_PER_OWNER:
                assert victim.owner == step.owner, "over its share, an owner pays itself"
            else:
                assert owned[victim.owner] == max(owned.values()), "who holds most pays"
            oldest = next(known for known in self.rules if known.owner == victim.owner)
            assert victim is oldest
            self.rules.remove(victim)
            self.evictions += 1
        assert cookie not in self.cookies, "a cookie is never given out twice"
        assert table_of(cookie) == shape.table
        self.cookies.add(cookie)
        self.rules.append(Known(cookie, rule, step.owner, step.tags))

    def run(self, step: Step) -> None:
        known = self.rules[step.zone % len(self.rules)] if self.rules else None
        if step.what == "add":
            self.add(step)
        elif step.what == "clear":
            self.ledger.clear()
            self.rules.clear()
        elif known is None:
            assert self.ledger.remove(serial_of(step.zone)) is None
        elif step.what == "remove":
            entry = self.ledger.remove(known.cookie)
            assert entry is not None
            assert entry.rule == known.rule
            assert self.ledger.remove(known.cookie) is None
            self.rules.remove(known)
        else:
            entry = self.ledger.get(known.cookie)
            assert entry is not None
            self.ledger.retag(entry, step.tags)
            known.tags = step.tags

    def check(self) -> None:
        ledger = self.ledger
        assert len(ledger) == len(self.rules) <= MAX_RULES
        assert [entry.cookie for entry in ledger] == [known.cookie for known in self.rules]
        assert ledger.evictions.total() == self.evictions
        for owner in range(1, OWNERS + 1):
            mine = [known.cookie for known in self.rules if known.owner == owner]
            assert ledger.cookies_of_owner(owner) == mine
            assert ledger.owned(owner) == len(mine) <= MAX_PER_OWNER
        for tag in TAGS:
            tagged = {known.cookie for known in self.rules if tag in known.tags}
            assert ledger.cookies_with(tag) == tagged
            assert ledger.has_tag(tag) == bool(tagged)
        for known in self.rules:
            entry = ledger.find(known.rule.key)
            assert entry is ledger.get(known.cookie)
            assert entry is not None
            assert (entry.rule, entry.owner, entry.tags) == (known.rule, known.owner, known.tags)


@settings(max_examples=200)
@given(st.lists(steps, min_size=15, max_size=60))
def test_the_ledger_is_a_bounded_list_of_rules(todo: list[Step]) -> None:
    model = Model()
    for step in todo:
        model.run(step)
        model.check()
