"""Meters in multipart replies."""

from __future__ import annotations

import struct

import pytest

from controller_app.decode import MalformedMessage
from controller_app.meter_stats import (
    Metered,
    meter_stats_reply,
    meter_stats_request,
    meters_reply,
    meters_request,
)


def reply(kind: int, *entries: bytes, more: bool = False) -> bytes:
    body = struct.pack(">HH4x", kind, int(more)) + b"".join(entries)
    return struct.pack(">BBHI", 4, 19, 8 + len(body), 7) + body


def config(meter: int, bands: int = 1) -> bytes:
    return struct.pack(">HHI", 8 + 16 * bands, 6, meter) + bytes(16 * bands)


def stats(meter: int, packets: int, *dropped: int) -> bytes:
    head = struct.pack(">IH6xIQQII", meter, 40 + 16 * len(dropped), 1, packets, 0, 9, 0)
    return head + b"".join(struct.pack(">QQ", count, 0) for count in dropped)


def test_the_requests_ask_for_all_meters() -> None:
    assert meters_request(7).hex() == "0412001800000007" + "000a000000000000" + "ffffffff00000000"
    assert (
        meter_stats_request(7).hex() == "0412001800000007" + "0009000000000000" + "ffffffff00000000"
    )


def test_meters_are_told_over_several_replies() -> None:
    assert meters_reply(reply(10, config(1), config(5, 0), more=True)) == ([1, 5], True)
    assert meters_reply(reply(10)) == ([], False)


def test_what_meters_have_seen() -> None:
    found, more = meter_stats_reply(reply(9, stats(1, 100, 40), stats(2, 7), stats(3, 9, 1, 2)))
    assert found == {1: Metered(100, 40), 2: Metered(7, 0), 3: Metered(9, 3)}
    assert not more


@pytest.mark.parametrize(
    "message",
    [
        reply(10)[:12],
        reply(9),
        reply(10, config(1)[:4]),
        reply(10, b"\0\4" + config(1)[2:]),
        reply(10, b"\0\x40" + config(1)[2:]),
    ],
    ids=["short", "another type", "cut", "shorter than its head", "longer than its message"],
)
def test_broken_lists_of_meters(message: bytes) -> None:
    with pytest.raises(MalformedMessage):
        meters_reply(message)


@pytest.mark.parametrize(
    "message",
    [reply(10), reply(9, stats(1, 1, 1)[:30]), reply(9, b"\0\0\0\1\0\x10" + stats(1, 1)[6:])],
    ids=["another type", "cut", "shorter than its head"],
)
def test_broken_statistics(message: bytes) -> None:
    with pytest.raises(MalformedMessage):
        meter_stats_reply(message)
