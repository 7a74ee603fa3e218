"""Packets that wait for a record."""

from __future__ import annotations

import pytest

from ondemand.messages import PacketIn
from ondemand.verdict import Need
from ondemand.waiting_room import WaitingRoom

NEED, OTHER = Need("nbr/v1/10.0.0.0", "ip/10.0.0.1"), Need("vpc/v1", "")


def _room(max_parked: int = 4, max_per_port: int = 3) -> WaitingRoom:
    return WaitingRoom(max_parked=max_parked, max_per_port=max_per_port, park_s=2.0)


def _packet() -> PacketIn:
    return PacketIn(table=30, in_port=1, data=b"")


def _park(room: WaitingRoom, need: Need, zone: int, now_s: float = 0.0) -> PacketIn | None:
    packet = _packet()
    return packet if room.park(need, packet, zone, now_s) else None


def test_those_who_wait_for_a_record_leave_together_in_order() -> None:
    room = _room()
    first, second, other = _park(room, NEED, 1), _park(room, NEED, 2), _park(room, OTHER, 1)
    assert len(room) == 3
    assert room.release(NEED) == [first, second]
    assert (len(room), room.waits_for(NEED), room.waits_for(OTHER)) == (1, False, True)
    assert room.release(NEED) == []
    assert room.release(OTHER) == [other]
    assert len(room) == 0


def test_the_first_that_waits_is_told_from_the_next() -> None:
    room = _room()
    assert not room.waits_for(NEED)
    _park(room, NEED, 1)
    assert room.waits_for(NEED)


def test_the_source_is_asked_once_for_all_who_wait() -> None:
    room = _room()
    _park(room, NEED, 1)
    assert room.must_ask(NEED, 0.0)
    _park(room, NEED, 2)
    assert not room.must_ask(NEED, 1.9)
    assert room.must_ask(OTHER, 1.9), "another record is another question"


def test_a_source_that_did_not_answer_is_asked_again() -> None:
    room = _room()
    _park(room, NEED, 1)
    room.must_ask(NEED, 0.0)
    _park(room, NEED, 2, now_s=1.0)
    room.expire(2.0)
    assert room.must_ask(NEED, 2.0)
    assert not room.must_ask(NEED, 3.9)


def test_when_the_source_is_back_all_that_was_asked_and_is_waited_for_is_asked_again() -> None:
    room = _room()
    assert room.ask_again(0.0) == []
    for need in (NEED, OTHER):
        _park(room, need, 1)
        room.must_ask(need, 0.0)
    room.release(OTHER)
    assert room.ask_again(1.5) == [NEED]
    assert not room.must_ask(NEED, 3.4), "it was asked at 1.5"
    assert room.must_ask(NEED, 3.5)


@pytest.mark.parametrize("end", ["answered", "too late", "port gone"])
def test_when_nobody_waits_any_more_the_next_one_asks(end: str) -> None:
    room = _room()
    _park(room, NEED, 1)
    room.must_ask(NEED, 0.0)
    if end == "answered":
        room.release(NEED)
    elif end == "too late":
        room.expire(2.0)
    else:
        room.drop_zone(1)
    assert room.must_ask(NEED, 0.1)


def test_a_port_has_a_bound_of_its_own() -> None:
    room = _room(max_parked=10, max_per_port=2)
    assert [_park(room, NEED, 1) is not None for _ in range(3)] == [True, True, False]
    assert _park(room, OTHER, 1) is None
    assert _park(room, NEED, 2) is not None, "another port still has room"
    room.release(NEED)
    assert _park(room, OTHER, 1) is not None, "room is given back"


def test_the_room_has_a_bound() -> None:
    room = _room(max_parked=2, max_per_port=2)
    assert [_park(room, NEED, zone) is not None for zone in (1, 2, 3)] == [True, True, False]
    assert len(room) == 2
    assert not room.waits_for(OTHER)


def test_a_refused_packet_is_not_waiting() -> None:
    room = _room(max_parked=1, max_per_port=1)
    _park(room, NEED, 1)
    assert _park(room, OTHER, 2) is None
    assert not room.waits_for(OTHER)


def test_a_packet_leaves_when_its_deadline_has_passed() -> None:
    room = _room()
    _park(room, NEED, 1, now_s=0.0)
    late = _park(room, NEED, 2, now_s=1.0)
    _park(room, OTHER, 3, now_s=0.5)
    assert room.expire(1.9) == {}
    assert room.expire(2.0) == {NEED: [1]}
    assert len(room) == 2
    assert room.expire(2.9) == {OTHER: [3]}
    assert not room.waits_for(OTHER)
    assert room.release(NEED) == [late]


def test_a_packet_that_left_too_late_gives_its_room_back() -> None:
    room = _room(max_parked=1, max_per_port=1)
    _park(room, NEED, 1)
    room.expire(2.0)
    assert _park(room, NEED, 1, now_s=2.0) is not None


def test_what_a_port_has_waiting_goes_with_the_port() -> None:
    room = _room()
    _park(room, NEED, 1)
    kept = _park(room, NEED, 2)
    _park(room, OTHER, 1)
    assert room.drop_zone(1) == 2
    assert room.drop_zone(1) == 0
    assert (len(room), room.waits_for(OTHER)) == (1, False)
    assert room.release(NEED) == [kept]
