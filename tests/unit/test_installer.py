"""What is sent for a rule that is installed, renewed, replaced or deleted."""

from __future__ import annotations

import pytest

from ondemand.installer import RESEND_AFTER_S, Installer
from ondemand.messages import Follow, SetMeter
from ondemand.subjects import ResolveSubject
from rule_cache.cookie import Cookies
from rule_cache.fields import Field
from rule_cache.rule import Arg, Eq, Output, Rule, Shape

_MATCH = (Eq(Field.REG6, Arg("zone")), Eq(Field.IP_PROTO, Arg("proto")))
ALLOW = Shape("allow", 30, 100, _MATCH, (Output(Arg("port")),))
DENY = Shape("deny", 30, 100, _MATCH, ())
LATE = Shape("late", 20, 100, _MATCH, ())
SUBJECT = ResolveSubject(1, b"\x0a\0\0\x01")


def _installer(max_rules: int = 10, max_rules_per_owner: int = 5) -> Installer:
    return Installer(Cookies(1), max_rules=max_rules, max_rules_per_owner=max_rules_per_owner)


def _deny(proto: int) -> Rule:
    return Rule(DENY, (1, proto), hard_timeout=10)


def _allow(proto: int) -> Rule:
    return Rule(ALLOW, (1, proto, 9), idle_timeout=60)


def _install(
    installer: Installer,
    rule: Rule,
    tags: tuple[str, ...] = ("a",),
    *,
    now_s: float = 0.0,
    missed_table: int = -1,
) -> None:
    installer.install(rule, tags, 1, SUBJECT, now_s, missed_table)


def _cookie(installer: Installer, rule: Rule) -> int:
    entry = installer.ledger.find(rule.key)
    assert entry is not None
    return entry.cookie


def _delete(installer: Installer, rule: Rule) -> None:
    entry = installer.ledger.find(rule.key)
    assert entry is not None
    installer.delete(entry)


def test_a_new_rule_is_sent_and_remembered() -> None:
    installer = _installer()
    _install(installer, _deny(6))
    entry = installer.ledger.find(_deny(6).key)
    assert entry is not None
    assert installer.effects.adds == [(entry.cookie, _deny(6))]
    assert installer.effects.deletes == []
    assert (entry.tags, entry.owner, entry.subject) == (("a",), 1, SUBJECT)


@pytest.mark.parametrize("missed_table", [-1, 30, 40])
def test_a_rule_that_is_there_is_not_sent_again(missed_table: int) -> None:
    installer = _installer()
    _install(installer, _deny(6))
    _install(installer, _deny(6), now_s=RESEND_AFTER_S - 0.01, missed_table=missed_table)
    assert len(installer.effects.adds) == 1


def test_a_rule_that_is_there_takes_new_tags() -> None:
    installer = _installer()
    _install(installer, _deny(6), ("a", "b"))
    _install(installer, _deny(6), ("b", "c"))
    assert len(installer.effects.adds) == 1
    assert [installer.ledger.has_tag(tag) for tag in "abc"] == [False, True, True]


def test_a_rule_that_a_packet_missed_though_it_should_be_there_is_sent_again() -> None:
    installer = _installer()
    _install(installer, _deny(6))
    _install(installer, _deny(6), now_s=RESEND_AFTER_S, missed_table=40)
    assert len(installer.effects.adds) == 1, "the packet missed in another table"
    _install(installer, _deny(6), now_s=RESEND_AFTER_S, missed_table=30)
    (old, _), (new, _) = installer.effects.adds
    assert new != old
    assert installer.ledger.get(old) is None, "the switch may still tell of its removal"
    assert len(installer.ledger) == 1
    assert installer.effects.deletes == [], "an add replaces by itself"


def test_another_answer_replaces_the_rule() -> None:
    installer = _installer()
    _install(installer, _deny(6))
    _install(installer, _allow(6), ("b",))
    assert [rule for _, rule in installer.effects.adds] == [_deny(6), _allow(6)]
    assert installer.effects.deletes == []
    assert [entry.rule for entry in installer.ledger] == [_allow(6)]


def test_other_timeouts_make_another_rule() -> None:
    installer = _installer()
    _install(installer, _deny(6))
    _install(installer, Rule(DENY, (1, 6), hard_timeout=11))
    assert len(installer.effects.adds) == 2
    assert len(installer.ledger) == 1


def test_what_had_to_make_room_is_deleted_in_the_switch() -> None:
    installer = _installer(max_rules_per_owner=1)
    _install(installer, _deny(6))
    ((cookie, _),) = installer.take().adds
    _install(installer, _deny(17))
    assert installer.take().deletes == [cookie]


def test_a_deleted_rule_is_gone_here_and_there() -> None:
    installer = _installer()
    _install(installer, _deny(6))
    cookie = _cookie(installer, _deny(6))
    installer.take()
    _delete(installer, _deny(6))
    effects = installer.take()
    assert (effects.deletes, effects.adds) == ([cookie], [])
    assert len(installer.ledger) == 0


def test_all_rules_of_a_port_go_with_the_port() -> None:
    installer = _installer()
    for proto in (6, 17):
        _install(installer, _deny(proto))
    installer.install(_deny(1), (), 2, SUBJECT, 0.0)
    cookies = [cookie for cookie, _ in installer.take().adds]
    installer.delete_owned(1)
    installer.delete_owned(1)
    assert installer.take().deletes == cookies[:2]
    assert [entry.owner for entry in installer.ledger] == [2]


# -- before it was sent, and when the switch says no -------------------------------------------------


def test_what_is_taken_is_not_taken_again() -> None:
    installer = _installer()
    _install(installer, _deny(6))
    assert len(installer.take().adds) == 1
    assert not installer.take()


def test_a_rule_that_goes_before_it_was_sent_is_never_sent() -> None:
    """Deletes are sent before adds: a delete of it would come too early."""
    installer = _installer()
    _install(installer, _deny(6))
    _install(installer, _deny(17))
    _delete(installer, _deny(6))
    effects = installer.take()
    assert [rule for _, rule in effects.adds] == [_deny(17)]
    assert effects.deletes == []


def test_an_unsent_rule_that_had_to_make_room_is_never_sent() -> None:
    installer = _installer(max_rules_per_owner=1)
    _install(installer, _deny(6))
    _install(installer, _deny(17))
    effects = installer.take()
    assert ([rule for _, rule in effects.adds], effects.deletes) == ([_deny(17)], [])


def test_of_two_unsent_answers_only_the_last_is_sent() -> None:
    installer = _installer()
    _install(installer, _deny(6))
    _install(installer, _allow(6))
    effects = installer.take()
    assert ([rule for _, rule in effects.adds], effects.deletes) == ([_allow(6)], [])


def test_an_unsent_rule_that_goes_takes_the_one_that_it_was_to_replace_along() -> None:
    installer = _installer()
    _install(installer, _deny(6))
    old = _cookie(installer, _deny(6))
    installer.take()
    _install(installer, _allow(6))
    _install(installer, Rule(ALLOW, (1, 6, 8), idle_timeout=60))
    _delete(installer, _allow(6))
    effects = installer.take()
    assert (effects.adds, effects.deletes) == ([], [old])


def test_a_replaced_rule_that_was_sent_is_not_deleted() -> None:
    installer = _installer()
    _install(installer, _deny(6))
    installer.take()
    _install(installer, _allow(6))
    second = _cookie(installer, _allow(6))
    installer.take()
    _install(installer, _deny(6))
    installer.take()
    _delete(installer, _deny(6))
    effects = installer.take()
    assert second not in effects.deletes
    assert len(effects.deletes) == 1


def test_a_refused_rule_is_forgotten_and_what_it_was_to_replace_goes() -> None:
    installer = _installer()
    _install(installer, _deny(6))
    old = _cookie(installer, _deny(6))
    installer.take()
    _install(installer, _allow(6))
    new = _cookie(installer, _allow(6))
    installer.take()
    installer.rejected(new)
    assert installer.take().deletes == [old]
    assert len(installer.ledger) == 0
    installer.rejected(new)
    assert not installer.take()


def test_a_refused_rule_that_replaced_nothing_deletes_nothing() -> None:
    installer = _installer()
    _install(installer, _deny(6))
    cookie = _cookie(installer, _deny(6))
    installer.take()
    installer.rejected(cookie)
    assert not installer.take()
    assert len(installer.ledger) == 0


def test_a_refused_static_rule_is_sent_again_when_it_is_set_again() -> None:
    installer = _installer()
    installer.set_static("port vm1", [_deny(6), _deny(17)])
    (cookie, _), (_, _) = installer.take().adds
    installer.rejected(cookie)
    assert [rule for _, rule in installer.static_rules()] == [_deny(17)]
    installer.set_static("port vm1", [_deny(6), _deny(17)])
    assert [rule for _, rule in installer.take().adds] == [_deny(6)]


def test_a_rule_that_the_switch_dropped_is_forgotten() -> None:
    installer = _installer()
    _install(installer, _deny(6))
    installer.take()
    _install(installer, _allow(6))
    cookie = _cookie(installer, _allow(6))
    installer.take()
    entry = installer.removed(cookie)
    assert entry is not None
    assert entry.rule == _allow(6)
    assert installer.removed(cookie) is None
    assert len(installer.ledger) == 0
    installer.rejected(cookie)
    assert not installer.take(), "what it replaced went long ago"


def test_static_rules_too_are_withdrawn_before_they_are_sent() -> None:
    installer = _installer()
    late = LATE.rule(zone=1, proto=0)
    installer.set_static("port vm1", [_deny(6), late], late=frozenset({"late"}))
    installer.set_static("port vm1", [_allow(6)])
    effects = installer.take()
    assert [rule for _, rule in effects.adds] == [_allow(6)]
    assert (effects.after_barrier, effects.deletes) == ([], [])


# -- rules that are always there ---------------------------------------------------------------------


def test_static_rules_are_sent_once() -> None:
    installer = _installer()
    installer.set_static("port vm1", [_deny(6), _deny(17)])
    sent = list(installer.effects.adds)
    assert [rule for _, rule in sent] == [_deny(6), _deny(17)]
    installer.set_static("port vm1", [_deny(17), _deny(6)])
    assert installer.effects.adds == sent
    assert sorted(installer.static_rules()) == sorted(sent)
    assert len(installer.ledger) == 0, "they are on nobody's account"


def test_only_what_differs_is_sent() -> None:
    installer = _installer()
    installer.set_static("port vm1", [_deny(6), _deny(17)])
    (_, _), (old, _) = installer.take().adds
    installer.set_static("port vm1", [_allow(6), _deny(1)])
    effects = installer.take()
    assert [rule for _, rule in effects.adds] == [_allow(6), _deny(1)]
    assert effects.deletes == [old], "the rule with the same match is replaced"
    assert {str(rule) for _, rule in installer.static_rules()} == {
        str(_allow(6)),
        str(_deny(1)),
    }


def test_late_rules_wait_behind_the_barrier() -> None:
    installer = _installer()
    late = LATE.rule(zone=1, proto=0)
    installer.set_static("port vm1", [late, _deny(6)], late=frozenset({"late"}))
    assert [rule for _, rule in installer.effects.adds] == [_deny(6)]
    assert [rule for _, rule in installer.effects.after_barrier] == [late]


def test_static_rules_of_one_name_do_not_touch_those_of_another() -> None:
    installer = _installer()
    installer.set_static("port vm1", [_deny(6)])
    installer.set_static("port vm2", [_deny(17)])
    (cookie, _), (_, _) = installer.take().adds
    installer.set_static("port vm1", [])
    assert installer.take().deletes == [cookie]
    assert [rule for _, rule in installer.static_rules()] == [_deny(17)]
    installer.set_static("port vm3", [])
    assert len(installer.static_rules()) == 1


def test_when_the_switch_lost_its_rules_nothing_is_remembered_and_nothing_of_it_is_sent() -> None:
    installer = _installer()
    installer.set_static("frame", [LATE.rule(zone=1, proto=0)])
    _install(installer, _deny(6))
    _install(installer, _deny(17))
    installer.take()
    _install(installer, _allow(6))
    _install(installer, _deny(1))
    _delete(installer, _deny(1))
    _delete(installer, _deny(17))
    installer.effects.meters.append(SetMeter(1, 10, 10))
    installer.effects.packet_outs.append((1, 0, b""))
    installer.effects.requests.append(Follow("vpc/v1", None))
    installer.effects.warnings.append("a sentence")
    installer.lost()
    effects = installer.effects
    assert (effects.requests, effects.warnings) == ([Follow("vpc/v1", None)], ["a sentence"])
    assert (effects.adds, effects.deletes) == ([], [])
    assert (effects.meters, effects.packet_outs) == ([], [])
    assert (len(installer.ledger), installer.static_rules()) == (0, [])
    installer.set_static("frame", [LATE.rule(zone=1, proto=0)])
    assert len(installer.effects.adds) == 1, "it is sent again"
