"""The cookie: who owns a rule, and which one it is.

::

    63           48 47      40 39              32 31                          0
    +--------------+----------+------------------+-----------------------------+
    | 0x0d5e       | round    | table            | serial                      |
    +--------------+----------+------------------+-----------------------------+

The upper 16 bits say that the rule is ours, so that another controller's rules on the same bridge are
never touched. The *round* is one start of the agent, so that rules of an earlier start can be told
apart. The serial is new each time a rule is sent, also when the rule itself is the same: a
flow-removed message that was on its way can then never be taken for the newer rule.
"""

from __future__ import annotations

MAGIC = 0x0D5E
MAGIC_VALUE = MAGIC << 48
MAGIC_MASK = 0xFFFF << 48
ROUNDS = 256


def is_ours(cookie: int) -> bool:
    return cookie >> 48 == MAGIC


def round_of(cookie: int) -> int:
    return (cookie >> 40) & 0xFF


def table_of(cookie: int) -> int:
    return (cookie >> 32) & 0xFF


def serial_of(cookie: int) -> int:
    return cookie & 0xFFFFFFFF


class Cookies:
    """Gives out cookies of one round. 2**32 serials outlast any rule's life."""

    __slots__ = ("_prefix", "_serial", "round_number")

    def __init__(self, round_number: int) -> None:
        self.start_round(round_number)

    def start_round(self, round_number: int) -> None:
        """Give out cookies of another round from now on."""
        if not 0 <= round_number < ROUNDS:
            raise ValueError(f"round {round_number} is not in 0..{ROUNDS - 1}")
        self.round_number = round_number
        self._prefix = MAGIC_VALUE | round_number << 40
        self._serial = 0

    def next(self, table: int) -> int:
        self._serial = serial = (self._serial + 1) & 0xFFFFFFFF
        return self._prefix | table << 32 | serial
