"""``ondemand doctor`` on the rules in a switch: whose they are, and what adopting the bridge would clear."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller_app.doctor_check import Machine, Status
from controller_app.doctor_rules import foreign_checks, owner_checks
from controller_app.encode import Encoder
from controller_app.foreign_rules import count_foreign
from controller_app.ovsdb_config import BridgeConfig
from controller_app.ovsdb_errors import ForeignRulesError
from controller_app.ovsdb_facts import BridgeFacts
from controller_app.switch_query import SwitchQueryError
from ondemand.pipeline import Pipeline
from ondemand.static_rules import frame_rules, owner_rule
from rule_cache.cookie import Cookies
from rule_cache.rule import Rule
from tests.support.flow_stats_bytes import entry_of
from tests.support.switch_server import SwitchServer

Entries = dict[int, tuple[int, bytes]]


def entries_of(pipeline: Pipeline, rules: list[Rule]) -> Entries:
    """As the switch tells of them, by cookie."""
    encoder, cookies = Encoder(pipeline), Cookies(3)
    found = {}
    for rule in rules:
        cookie = cookies.next(rule.shape.table)
        found[cookie] = (rule.shape.table, entry_of(encoder.add(rule, cookie)))
    return found


def rules_of(pipeline: Pipeline, host: str) -> Entries:
    return entries_of(pipeline, [*frame_rules(pipeline), owner_rule(pipeline, host)])


@pytest.fixture
def config(tmp_path: Path) -> BridgeConfig:
    return BridgeConfig(ovsdb=f"unix:{tmp_path}/db.sock")


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "br-int.mgmt"


# -- whose they are ----------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [0, 100])
def test_rules_of_another_hosts_agent_fail_as_run_does(
    config: BridgeConfig, socket_path: Path, base: int
) -> None:
    with SwitchServer(socket_path, rules_of(Pipeline(base), "h2")):
        (check,) = owner_checks(Machine(), config, "h1", base)
    assert (check.name, check.status) == ("owner", Status.FAIL)
    # The very sentence with which the agent gives up, and what it says to do.
    assert f"{check.found}: {check.mend}" == str(ForeignRulesError("br-int", "h1"))
    assert check.mend.startswith("correct [host] id")


def test_rules_of_the_own_agent_are_right(config: BridgeConfig, socket_path: Path) -> None:
    with SwitchServer(socket_path, rules_of(Pipeline(), "h1")):
        (check,) = owner_checks(Machine(), config, "h1", 0)
    assert (check.status, "host 'h1'" in check.found) == (Status.OK, True)


def test_rules_that_do_not_say_whose_they_are_are_not_told_of(
    config: BridgeConfig, socket_path: Path
) -> None:
    pipeline = Pipeline()
    with SwitchServer(socket_path, entries_of(pipeline, frame_rules(pipeline))):
        assert list(owner_checks(Machine(), config, "h1", 0)) == []


def test_a_switch_that_cannot_be_asked_is_told_elsewhere(
    config: BridgeConfig, socket_path: Path
) -> None:
    assert list(owner_checks(Machine(), config, "h1", 0)) == []
    with SwitchServer(socket_path, {}, "hang up"):
        assert list(owner_checks(Machine(), config, "h1", 0)) == []


# -- what adopting the bridge would clear ------------------------------------------------------------

#: As Open vSwitch tells of the rule that it makes where the fail mode is not secure.
NORMAL = bytes.fromhex(
    "00500000" + "00" * 44 + "0001000400000000000400180000000000000010fffffffa" + "00" * 8
)


def foreign(number: int, *, table: int = 0, cookie: int = 0x77000) -> tuple[int, tuple[int, bytes]]:
    """A rule of somebody else: as the default rule, but with a priority."""
    entry = bytearray(NORMAL)
    entry[12:14] = (100 + number).to_bytes(2, "big")
    entry[24:32] = (cookie + number).to_bytes(8, "big")
    return cookie + number, (table, bytes(entry))


def bridge(*targets: str) -> BridgeFacts:
    controllers = tuple((target, False) for target in targets)
    return BridgeFacts("br-int", "netdev", True, "secure", controllers)


@pytest.mark.parametrize("targets", [(), ("punix:/x", "ptcp:6634")])
def test_rules_of_others_are_counted_while_there_is_no_controller(
    config: BridgeConfig, socket_path: Path, targets: tuple[str, ...]
) -> None:
    entries = rules_of(Pipeline(), "h1") | dict(map(foreign, range(7)))
    with SwitchServer(socket_path, entries):
        (check,) = foreign_checks(Machine(), config, bridge(*targets))
    assert (check.name, check.status) == ("rules of others", Status.WARN)
    assert check.found.startswith("7 rules on bridge br-int, which has no controller yet")
    assert "clears all tables" in check.found


def test_with_a_controller_nothing_is_cleared(config: BridgeConfig, socket_path: Path) -> None:
    with SwitchServer(socket_path, dict(map(foreign, range(7)))) as server:
        assert list(foreign_checks(Machine(), config, bridge("tcp:127.0.0.1:6653"))) == []
    assert server.questions == []


def test_the_rule_of_open_vswitch_itself_is_nobodys(
    config: BridgeConfig, socket_path: Path
) -> None:
    with SwitchServer(socket_path, {0: (0, NORMAL)}):
        assert count_foreign(socket_path) == 0
        assert list(foreign_checks(Machine(), config, bridge())) == []
    socket_path.unlink()
    with SwitchServer(socket_path, {0: (0, NORMAL)} | dict([foreign(1)])):
        assert count_foreign(socket_path) == 1
        (check,) = foreign_checks(Machine(), config, bridge())
    assert check.found.startswith("1 rule on bridge br-int")


def test_the_same_without_a_cookie_but_with_a_priority_is_somebodys(socket_path: Path) -> None:
    _, entry = foreign(1)
    with SwitchServer(socket_path, {0: entry}):
        assert count_foreign(socket_path) == 1


def test_a_switch_that_refuses_is_an_error_for_the_agent_and_nothing_for_doctor(
    config: BridgeConfig, socket_path: Path
) -> None:
    with SwitchServer(socket_path, {}, "refuse hello"):
        with pytest.raises(SwitchQueryError, match="does not speak OpenFlow"):
            count_foreign(socket_path)
        assert list(foreign_checks(Machine(), config, bridge())) == []
