"""The ledger of installed rules; the property test has its bounds in depth."""

from __future__ import annotations

import pytest

from rule_cache.cookie import Cookies, table_of
from rule_cache.fields import Field
from rule_cache.ledger import Ledger
from rule_cache.rule import Arg, Eq, Output, Rule, Shape

_MATCH = (Eq(Field.REG6, Arg("zone")), Eq(Field.IP_PROTO, Arg("proto")))
ALLOW = Shape("allow", 30, 100, _MATCH, (Output(Arg("port")),))
DENY = Shape("deny", 30, 100, _MATCH, ())


def _ledger(max_rules: int = 10, max_rules_per_owner: int = 5) -> Ledger:
    return Ledger(Cookies(1), max_rules=max_rules, max_rules_per_owner=max_rules_per_owner)


def _deny(proto: int, zone: int = 1) -> Rule:
    return DENY.rule(zone=zone, proto=proto)


def test_a_rule_is_found_by_cookie_by_key_and_by_tag() -> None:
    ledger = _ledger()
    cookie, evicted = ledger.add(_deny(6), ("a", "b"), 1, "subject", 2.5)
    entry = ledger.get(cookie)
    assert entry is not None
    assert (entry.rule, entry.tags, entry.owner) == (_deny(6), ("a", "b"), 1)
    assert (entry.subject, entry.sent_s, entry.cookie) == ("subject", 2.5, cookie)
    assert evicted == []
    assert ledger.find(_deny(6).key) is entry
    assert ledger.find(_deny(17).key) is None
    assert ledger.cookies_with("b") == {cookie}
    assert table_of(cookie) == 30


def test_an_allow_replaces_the_deny_of_the_same_match() -> None:
    ledger = _ledger()
    old, _ = ledger.add(_deny(6), ("a",), 1, None, 0.0)
    new, evicted = ledger.add(ALLOW.rule(zone=1, proto=6, port=9), ("b",), 2, None, 1.0)
    assert new != old
    assert evicted == [], "the switch replaces it by itself"
    assert ledger.get(old) is None
    assert (len(ledger), ledger.owned(1), ledger.owned(2)) == (1, 0, 1)
    assert (ledger.has_tag("a"), ledger.has_tag("b")) == (False, True)


def test_over_its_share_an_owner_loses_its_oldest() -> None:
    ledger = _ledger(max_rules=10, max_rules_per_owner=2)
    mine = [ledger.add(_deny(proto), (), 1, None, 0.0)[0] for proto in (1, 2)]
    other, _ = ledger.add(_deny(9), (), 2, None, 0.0)
    newest, evicted = ledger.add(_deny(3), (), 1, None, 0.0)
    assert evicted == [mine[0]]
    assert ledger.cookies_of_owner(1) == [mine[1], newest]
    assert ledger.cookies_of_owner(2) == [other]
    assert sum(ledger.evictions.values()) == 1


def test_over_the_whole_bound_the_biggest_owner_loses_its_oldest() -> None:
    ledger = _ledger(max_rules=5, max_rules_per_owner=5)
    ledger.add(_deny(9), (), 4, None, 0.0)
    flood = [ledger.add(_deny(proto), (), 1, None, 0.0)[0] for proto in (1, 2, 3)]
    ledger.add(_deny(4), (), 2, None, 0.0)
    _, evicted = ledger.add(_deny(5), (), 3, None, 0.0)
    assert evicted == [flood[0]]
    assert [ledger.owned(owner) for owner in (1, 2, 3, 4)] == [2, 1, 1, 1]


def test_an_owner_of_one_rule_may_replace_it() -> None:
    ledger = _ledger(max_rules=1, max_rules_per_owner=1)
    first, _ = ledger.add(_deny(1), ("a",), 1, None, 0.0)
    _, evicted = ledger.add(_deny(2), ("b",), 1, None, 0.0)
    assert evicted == [first]
    assert (len(ledger), ledger.owned(1), ledger.has_tag("a")) == (1, 1, False)


def test_a_renewed_rule_at_the_bound_evicts_nobody() -> None:
    ledger = _ledger(max_rules=2, max_rules_per_owner=2)
    ledger.add(_deny(1), (), 1, None, 0.0)
    ledger.add(_deny(2), (), 1, None, 0.0)
    _, evicted = ledger.add(_deny(1), (), 1, None, 5.0)
    assert evicted == []
    assert (len(ledger), ledger.evictions.total()) == (2, 0)


def test_a_removed_rule_is_gone_everywhere() -> None:
    ledger = _ledger()
    cookie, _ = ledger.add(_deny(6), ("a",), 1, None, 0.0)
    entry = ledger.remove(cookie)
    assert entry is not None
    assert entry.cookie == cookie
    assert ledger.remove(cookie) is None
    assert (len(ledger), list(ledger), ledger.cookies_of_owner(1)) == (0, [], [])
    assert not ledger.has_tag("a")


def test_new_tags_take_the_place_of_the_old() -> None:
    ledger = _ledger()
    cookie, _ = ledger.add(_deny(6), ("a", "b"), 1, None, 0.0)
    entry = ledger.get(cookie)
    assert entry is not None
    ledger.retag(entry, ("b", "c"))
    assert entry.tags == ("b", "c")
    assert [ledger.has_tag(tag) for tag in "abc"] == [False, True, True]


def test_clear_forgets_the_rules_and_their_tags() -> None:
    ledger = _ledger()
    cookie, _ = ledger.add(_deny(6), ("a",), 1, None, 0.0)
    ledger.clear()
    assert (len(ledger), ledger.owned(1), ledger.has_tag("a")) == (0, 0, False)
    assert ledger.find(_deny(6).key) is None
    again, _ = ledger.add(_deny(6), ("a",), 1, None, 0.0)
    assert again != cookie, "a flow-removed message of before must find nothing"


@pytest.mark.parametrize(("whole", "share"), [(10, 0), (10, 11), (0, 0), (10, -1)])
def test_bounds_that_make_no_sense_are_refused(whole: int, share: int) -> None:
    with pytest.raises(ValueError, match=rf"max_rules_per_owner {share} is not in 1\.\.max_rules"):
        _ledger(whole, share)
