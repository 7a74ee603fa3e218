"""The cookie's layout, and who gives cookies out."""

from __future__ import annotations

import pytest

from rule_cache.cookie import (
    MAGIC,
    MAGIC_MASK,
    MAGIC_VALUE,
    ROUNDS,
    Cookies,
    is_ours,
    round_of,
    serial_of,
    table_of,
)


def test_the_parts_of_a_cookie_are_where_the_layout_says() -> None:
    cookies = Cookies(0xA5)
    assert cookies.next(30) == 0x0D5E_A51E_0000_0001
    cookie = cookies.next(40)
    assert (round_of(cookie), table_of(cookie), serial_of(cookie)) == (0xA5, 40, 2)


def test_each_cookie_is_new() -> None:
    cookies = Cookies(1)
    assert len({cookies.next(table) for table in (0, 30, 30, 255, 0) * 100}) == 500


@pytest.mark.parametrize("round_number", [0, 1, ROUNDS - 1])
def test_a_cookie_of_any_round_is_ours(round_number: int) -> None:
    cookie = Cookies(round_number).next(90)
    assert is_ours(cookie)
    assert cookie & MAGIC_MASK == MAGIC_VALUE
    assert round_of(cookie) == round_number
    assert cookie < 1 << 64


@pytest.mark.parametrize("cookie", [0, 1, MAGIC, (MAGIC + 1) << 48, (MAGIC - 1) << 48, 2**64 - 1])
def test_cookies_of_others_are_not_ours(cookie: int) -> None:
    assert not is_ours(cookie)


@pytest.mark.parametrize("round_number", [-1, ROUNDS, 1 << 20])
def test_a_round_outside_its_bits_is_refused(round_number: int) -> None:
    with pytest.raises(ValueError, match=rf"round {round_number} is not in 0\.\.255"):
        Cookies(round_number)


def test_the_serial_wraps_inside_its_bits() -> None:
    cookies = Cookies(255)
    cookies._serial = 0xFFFFFFFE
    last, first = cookies.next(90), cookies.next(90)
    assert serial_of(last) == 0xFFFFFFFF
    assert (serial_of(first), table_of(first), round_of(first)) == (0, 90, 255)
