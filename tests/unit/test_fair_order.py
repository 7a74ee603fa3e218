"""Packet-ins by turns of their ports."""

from __future__ import annotations

from controller_app.fair_order import Place, in_turns


def buffer(*ports: int) -> tuple[bytes, list[Place]]:
    """Messages of 40 bytes that tell these ports."""
    buf = b"".join(bytes(32) + port.to_bytes(4, "big") + bytes(4) for port in ports)
    return buf, [(at, at + 40) for at in range(0, len(buf), 40)]


def order(*ports: int) -> list[tuple[int, int]]:
    """(port, number of the message) in the order of handling."""
    buf, places = buffer(*ports)
    return [(ports[start // 40], start // 40) for start, _ in in_turns(buf, places)]


def test_one_of_each_port_in_turn() -> None:
    assert order(1, 1, 1, 1, 2, 3, 3) == [
        (1, 0),
        (2, 4),
        (3, 5),
        (1, 1),
        (3, 6),
        (1, 2),
        (1, 3),
    ]


def test_of_one_port_the_order_stays() -> None:
    assert [number for _, number in order(*[7] * 20)] == list(range(20))
    assert order() == []


def test_nothing_is_lost_or_doubled() -> None:
    ports = [number * number % 7 for number in range(200)]
    assert sorted(number for _, number in order(*ports)) == list(range(200))
