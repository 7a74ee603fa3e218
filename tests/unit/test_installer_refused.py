"""The switch's refusals come late: what has been sent meanwhile must not hide a rule that is not true.

The fake switch of the scenarios answers at once; here an error comes after the next change was sent.
"""

from __future__ import annotations

import pytest

from ondemand.installer import Installer
from ondemand.messages import Effects
from ondemand.pipeline import Pipeline
from ondemand.subjects import ResolveSubject
from rule_cache.cookie import Cookies
from rule_cache.rule import Rule

PIPELINE = Pipeline()
ZONE, TARGET = 1, bytes((10, 0, 0, 1))
SUBJECT = ResolveSubject(ZONE, TARGET)


class Switch:
    """Rules by cookie; those in ``refused`` were not done, and the error is on its way."""

    def __init__(self) -> None:
        self.rules: dict[int, Rule] = {}
        self.refused: list[int] = []
        self.refuses = False

    def send(self, effects: Effects) -> None:
        for cookie in effects.deletes:
            self.rules.pop(cookie, None)
        for cookie, rule in effects.adds:
            if self.refuses:
                self.refused.append(cookie)
                continue
            replaced = [c for c, old in self.rules.items() if old.key == rule.key]
            for old_cookie in replaced:
                del self.rules[old_cookie]
            self.rules[cookie] = rule


def answer(number: int) -> Rule:
    """Who has the address: rules with one match and another MAC each."""
    return PIPELINE.arp_reply.rule(zone=ZONE, target=TARGET, mac=bytes(5) + bytes([number]))


@pytest.fixture
def installer() -> Installer:
    return Installer(Cookies(1), max_rules=100, max_rules_per_owner=100)


@pytest.fixture
def switch(installer: Installer) -> Switch:
    """It has the first answer, and refuses all that comes from now on."""
    switch = Switch()
    install(installer, 1)
    switch.send(installer.take())
    assert len(switch.rules) == 1
    switch.refuses = True
    return switch


def install(installer: Installer, number: int) -> None:
    installer.install(answer(number), (), ZONE, SUBJECT, 0.0)


def hear_of_errors(installer: Installer, switch: Switch) -> None:
    for cookie in switch.refused:
        installer.rejected(cookie)
    switch.send(installer.take())


def agree(installer: Installer, switch: Switch) -> None:
    assert switch.rules == {entry.cookie: entry.rule for entry in installer.ledger}


def test_a_refused_change_takes_the_old_rule_along(installer: Installer, switch: Switch) -> None:
    install(installer, 2)
    switch.send(installer.take())
    hear_of_errors(installer, switch)
    agree(installer, switch)
    assert switch.rules == {}


def test_two_changes_refused_before_the_first_error_comes(
    installer: Installer, switch: Switch
) -> None:
    for number in (2, 3):
        install(installer, number)
        switch.send(installer.take())
    hear_of_errors(installer, switch)
    agree(installer, switch)


def test_a_change_refused_after_its_rule_was_deleted(installer: Installer, switch: Switch) -> None:
    install(installer, 2)
    switch.send(installer.take())
    (entry,) = installer.ledger
    installer.delete(entry)
    switch.send(installer.take())
    hear_of_errors(installer, switch)
    agree(installer, switch)


def test_a_second_change_that_is_done_makes_the_first_error_harmless(
    installer: Installer, switch: Switch
) -> None:
    install(installer, 2)
    switch.send(installer.take())
    switch.refuses = False
    install(installer, 3)
    switch.send(installer.take())
    hear_of_errors(installer, switch)
    agree(installer, switch)
    assert list(switch.rules.values()) == [answer(3)]
