"""Questions to a bridge's management socket: what is answered, and what can go wrong there."""

import socket

import pytest

from controller_app.encode import Encoder
from controller_app.rule_reader import RuleReader
from controller_app.switch_query import SwitchQuery, SwitchQueryError
from ondemand.pipeline import Pipeline
from rule_cache.cookie import MAGIC_MASK, MAGIC_VALUE, Cookies
from tests.support.flow_stats_bytes import entry_of
from tests.support.shape_samples import sample_rules
from tests.support.switch_server import SwitchServer

ALL_BITS = (1 << 64) - 1
PIPELINE = Pipeline()


def sample(per_shape=2):
    """Cookie -> rule."""
    cookies, seen, chosen = Cookies(3), set(), {}
    for rule in sample_rules(PIPELINE, per_shape=per_shape):
        if rule.key not in seen:
            seen.add(rule.key)
            chosen[cookies.next(rule.shape.table)] = rule
    return chosen


def entries_of(rules):
    encoder = Encoder(PIPELINE)
    return {
        cookie: (rule.shape.table, entry_of(encoder.add(rule, cookie)))
        for cookie, rule in rules.items()
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "br-int.mgmt"


def test_one_rule_by_its_cookie_with_what_it_did(path):
    rules = sample()
    cookie = list(rules)[7]
    with SwitchServer(path, entries_of(rules)) as server, SwitchQuery(path) as query:
        (entry,) = query.flows(cookie, ALL_BITS)
        assert query.flows(cookie + 1000, ALL_BITS) == []
    assert server.questions == [(0xFF, cookie, ALL_BITS), (0xFF, cookie + 1000, ALL_BITS)]
    assert (entry.cookie, entry.table) == (cookie, rules[cookie].shape.table)
    assert entry.priority == rules[cookie].shape.priority
    # As ``entry_of`` has them.
    assert (entry.age_s, entry.packet_count, entry.byte_count) == (7.0000005, 3, 180)
    assert RuleReader(PIPELINE).read(entry.data, 0, len(entry.data)) == rules[cookie]


def test_many_rules_come_whole_and_of_the_table_asked_for(path):
    rules = sample()
    reader = RuleReader(PIPELINE)
    with SwitchServer(path, entries_of(rules)), SwitchQuery(path) as query:
        found = query.flows(MAGIC_VALUE, MAGIC_MASK)
        of_location = query.flows(MAGIC_VALUE, MAGIC_MASK, 40)
        assert query.count(MAGIC_VALUE, MAGIC_MASK) == len(rules)
        assert query.count(MAGIC_VALUE, MAGIC_MASK, 40) == len(of_location)
    assert len(found) > 100
    assert {e.cookie: reader.read(e.data, 0, len(e.data)) for e in found} == rules
    assert {e.cookie for e in of_location} == {c for c, r in rules.items() if r.shape.table == 40}


@pytest.mark.parametrize(
    ("conduct", "sentence"),
    [
        ("hang up", "closed the connection"),
        ("be silent", "did not answer within 0.3 s; is ovs-vswitchd stuck?"),
        ("refuse", "refused the question (error type 1 code 4)"),
        ("refuse hello", "bridge 'br-int' does not speak OpenFlow 1.3"),
        ("talk nonsense", "is no OpenFlow switch: a message of 4 bytes"),
        ("cut", "is no OpenFlow switch: flow statistics with an entry of"),
    ],
)
def test_a_switch_that_misbehaves_is_one_sentence(path, conduct, sentence):
    with SwitchServer(path, entries_of(sample(1)), conduct) as server:
        questions = [lambda query: query.flows(MAGIC_VALUE, MAGIC_MASK)]
        if server.conduct != "cut":
            questions.append(lambda query: query.count(MAGIC_VALUE, MAGIC_MASK))
        for ask in questions:
            with SwitchQuery(path, timeout_s=0.3) as query, pytest.raises(SwitchQueryError) as told:
                ask(query)
            assert sentence in str(told.value)
            assert "\n" not in str(told.value)
            assert conduct == "refuse hello" or str(path) in str(told.value)


def connect(path):
    with pytest.raises(SwitchQueryError) as caught:
        SwitchQuery(path)
    return str(caught.value)


def test_a_bridge_that_is_not_there(tmp_path, path):
    for missing in (path, tmp_path / "none" / "br-int.mgmt"):
        said = connect(missing)
        assert f"{missing} is not there" in said
        # The mend, be it that it does not run or that it runs elsewhere.
        assert "systemctl start openvswitch-switch" in said
        assert "--switch unix:/DIRECTORY/br-int.mgmt" in said
    (tmp_path / "br-ext.mgmt").touch()
    assert f"no bridge 'br-int' in {tmp_path}; " in connect(path)
    assert "br-ext" in connect(path)
    assert "did you mean 'br-ext'?" in connect(tmp_path / "br-exr.mgmt")


def test_nobody_listens(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert "ovs-vswitchd does not run: systemctl start openvswitch-switch" in connect(path)


def test_no_permission(path, monkeypatch):
    class Refusing(socket.socket):
        def connect(self, _address):
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Refusing)
    assert connect(path) == f"no permission to ask the switch at {path}; run this as root"


def test_a_path_that_is_too_long_for_a_socket(tmp_path):
    assert "cannot be asked: " in connect(tmp_path / ("x" * 200))
