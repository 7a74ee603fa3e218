"""How flows under load are judged: each judge holds on what is promised and fails on what is not."""

import pytest

from mininet_topos.flow_seen import (
    CUT_S,
    RTO_MIN_S,
    back_seen,
    cut_seen,
    first_retry_seen,
    goes_on_seen,
    lives_seen,
    no_loss_seen,
    of,
    within_seen,
)
from tests.support.flows import flow_seen

PUBLISHED_S = 100.0
RESET = {"error": "Connection reset by peer"}


def test_a_cut_comes_soon_and_without_a_reset():
    soon = flow_seen(last_s=PUBLISHED_S + CUT_S - 0.01)
    assert cut_seen([soon], PUBLISHED_S).ok
    assert "last byte 490 ms after the publish began" in cut_seen([soon], PUBLISHED_S).text
    started = cut_seen([soon], PUBLISHED_S, since="the agent was started")
    assert "last byte 490 ms after the agent was started" in started.text
    before = flow_seen(last_s=PUBLISHED_S - 0.01)
    assert "no byte after the publish began" in cut_seen([before], PUBLISHED_S).text
    assert cut_seen([flow_seen(first_s=None, last_s=None, echoed=0)], PUBLISHED_S).ok
    for bad in (flow_seen(last_s=PUBLISHED_S + CUT_S + 0.1), flow_seen(last_s=100.0, **RESET)):
        assert not cut_seen([soon, bad], PUBLISHED_S).ok
    assert cut_seen([flow_seen(last_s=100.9)], PUBLISHED_S, bound_s=1.0).ok


@pytest.mark.parametrize(
    "bad",
    [
        {"longest_gap_s": RTO_MIN_S},
        {"retransmissions": 1},
        {"far_retransmissions": 1},
        {"echoed": 0},
        RESET,
    ],
)
def test_going_on_means_that_tcp_noticed_nothing(bad):
    assert goes_on_seen([flow_seen(), flow_seen(longest_gap_s=RTO_MIN_S - 0.01)]).ok
    assert not goes_on_seen([flow_seen(), flow_seen(**bad)]).ok


def test_what_broke_is_named():
    text = goes_on_seen([flow_seen("db TCP IPv6", **RESET), flow_seen()]).text
    assert "not: db TCP IPv6 (Connection reset by peer)" in text


@pytest.mark.parametrize("bad", [{"lost": 1}, {"echoed": 0}])
def test_one_lost_datagram_is_too_many(bad):
    assert no_loss_seen([flow_seen(protocol="udp")]).ok
    assert not no_loss_seen([flow_seen(), flow_seen(protocol="udp", **bad)]).ok


@pytest.mark.parametrize("bad", [{"echoed": 0}, RESET])
def test_living_means_an_echo_and_no_reset(bad):
    assert lives_seen([flow_seen(longest_gap_s=9.0, retransmissions=5)]).ok
    assert not lives_seen([flow_seen(), flow_seen(**bad)]).ok


@pytest.mark.parametrize("bad", [{"first_s": 100.6}, {"first_s": None}, RESET])
def test_coming_back_has_a_bound(bad):
    assert back_seen([flow_seen(first_s=100.4)], PUBLISHED_S, 0.5).ok
    assert not back_seen([flow_seen(first_s=100.4), flow_seen(**bad)], PUBLISHED_S, 0.5).ok


def test_each_end_of_a_connection_may_send_again_once():
    once = flow_seen(retransmissions=1, far_retransmissions=1)
    assert first_retry_seen([once]).ok
    for bad in ({"retransmissions": 2}, {"far_retransmissions": 2}, {"echoed": 0}, RESET):
        assert not first_retry_seen([once, flow_seen(**bad)]).ok


def test_what_never_came_about_was_not_in_time():
    assert within_seen("ping", 0.9, 1.0).ok
    assert within_seen("ping", 0.9, 1.0).text == "ping after 900 ms"
    assert not within_seen("ping", 1.1, 1.0).ok
    assert not within_seen("ping", None, 1.0).ok


def test_where_no_flow_was_looked_at_nothing_holds():
    assert not cut_seen([], 0.0).ok
    assert not goes_on_seen([]).ok
    assert not no_loss_seen([]).ok
    assert not lives_seen([]).ok
    assert not back_seen([], 0.0, 1.0).ok
    assert not first_retry_seen([]).ok


def test_flows_are_chosen_by_whole_words_and_protocol():
    flows = [flow_seen("rule begun TCP IPv4"), flow_seen("rules UDP IPv4", protocol="udp")]
    assert of(flows, "rule") == flows[:1]
    assert of(flows, protocol="udp") == flows[1:]
    assert of(flows, "begun", "IPv6") == []
