"""Rules on the bridge that no agent made, and when Open vSwitch clears them.

Open vSwitch clears all tables of a bridge when its first controller is set and when its last one is
removed, and without a controller also when its fail mode changes (observed on OVS 3.1). Listeners
(ptcp:, punix:) are no controllers. So an agent that adopts a bridge without a controller clears it,
whatever is in it; later it leaves alone what others add.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from controller_app.ovsdb_controller import LISTENERS
from controller_app.switch_query import FlowEntry, SwitchQuery
from rule_cache.cookie import MAGIC_MASK, MAGIC_VALUE

#: Seconds to wait for the switch.
TIMEOUT_S: Final = 3.0
#: Of more rules than this the one that Open vSwitch makes by itself is not looked for.
MAX_READ: Final = 1000
_ALL_BITS: Final = 0xFFFFFFFFFFFFFFFF
#: From "match" on, the rule of a bridge whose fail mode is not secure: all packets to the port NORMAL.
_NORMAL: Final = bytes.fromhex(
    "0001000400000000"  # matches all
    "0004001800000000"  # OFPIT_APPLY_ACTIONS
    "00000010fffffffa"  # OFPAT_OUTPUT to OFPP_NORMAL
)
_BEFORE_MATCH: Final = 48


def will_be_cleared(targets: Iterable[str]) -> bool:
    """Whether a controller would be the first one on a bridge that has these."""
    return all(target.startswith(LISTENERS) for target in targets)


def count_foreign(management: Path, *, timeout_s: float = TIMEOUT_S) -> int:
    """How many rules on a bridge are of neither an agent nor Open vSwitch itself.

    Raises:
        SwitchQueryError: the bridge cannot be asked at its management socket.
    """
    with SwitchQuery(management, timeout_s=timeout_s) as query:
        found = query.count(0, 0) - query.count(MAGIC_VALUE, MAGIC_MASK)
        # The answer comes in one go, during which the userspace datapath forwards nothing.
        if found and query.count(0, _ALL_BITS, 0) <= MAX_READ:
            found -= any(map(_is_default, query.flows(0, _ALL_BITS, 0)))
        return max(found, 0)


def _is_default(entry: FlowEntry) -> bool:
    return entry.priority == 0 and entry.data[_BEFORE_MATCH:].startswith(_NORMAL)


def rules(count: int) -> str:
    return f"{count} rule{'' if count == 1 else 's'}"


__all__ = ["count_foreign", "rules", "will_be_cleared"]
