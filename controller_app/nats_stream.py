"""The stream that holds slices: how it is made, what one that is there must have, and what the server says.

The API of JetStream is described in the documentation of NATS (nats.io) and its architecture decision
records; error codes stand in ``server/errors.json`` of nats-server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from controller_app.nats_subjects import Subjects

STREAM_NOT_FOUND: Final = 10059
MESSAGE_NOT_FOUND: Final = 10037
STREAM_NAME_IN_USE: Final = 10058
#: The second is what a cluster of newer servers says while another commit is on its way.
WRONG_LAST_SEQUENCE: Final = frozenset({10071, 10164})

#: What a stream must have; replicas, placement and limits are whoever's who made it.
_NEEDED: Final = ("subjects", "allow_direct", "allow_rollup_hdrs", "republish")


def stream_config(subjects: Subjects) -> dict[str, Any]:
    """How a stream is made."""
    return {
        "name": subjects.stream,
        "subjects": [subjects.logs, subjects.parts, subjects.versions],
        "retention": "limits",
        # When a limit is set and reached, refuse what is new instead of losing what is old.
        "discard": "new",
        "storage": "file",
        "num_replicas": 1,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_msg_size": -1,
        "max_msgs_per_subject": -1,
        "max_age": 0,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "republish": {"src": subjects.logs, "dest": subjects.lives},
    }


def config_problem(subjects: Subjects, answer: Mapping[str, Any]) -> str | None:
    """Why the stream that STREAM.INFO answers of cannot hold slices, None when it can."""
    found = answer.get("config")
    if not isinstance(found, dict):
        return "the server does not say how it is made"
    needed = stream_config(subjects)
    for key in _NEEDED:
        if not _agrees(found.get(key), needed[key]):
            return f"its {key} is {json.dumps(found.get(key))} and not {json.dumps(needed[key])}"
    return None


def _agrees(found: object, needed: object) -> bool:
    """Servers of later releases may tell more of a thing than was asked for."""
    if isinstance(found, dict) and isinstance(needed, dict):
        return all(found.get(key) == value for key, value in needed.items())
    return found == needed


def error_code(answer: Mapping[str, Any]) -> int:
    """The error code in an answer of the API, 0 when it is no error."""
    error = answer.get("error")
    if not isinstance(error, dict):
        return 0
    return int(error.get("err_code") or error.get("code") or 1)


def error_text(answer: Mapping[str, Any]) -> str:
    error = answer.get("error")
    return str(error.get("description")) if isinstance(error, dict) else "no reason given"


#: What is to be done about a refusal, by what the server says of it (``server/errors.json``).
_MENDS: Final = (
    (
        ("maximum bytes exceeded", "maximum messages exceeded", "maximum messages per subject"),
        "the stream is full; raise its limits with 'nats stream edit', or remove slices",
    ),
    (
        ("insufficient storage", "insufficient resources", "resource limits exceeded", "no space"),
        "the server is full; raise max_file_store in its configuration, or give it a larger disk",
    ),
    (
        ("message size exceeds",),
        "raise max_msg_size of the stream with 'nats stream edit'",
    ),
)


def mend_of(answer: Mapping[str, Any]) -> str:
    """What is to be done about an error, to be put behind it; "" when that is not known."""
    said = error_text(answer).lower()
    for texts, mend in _MENDS:
        if any(text in said for text in texts):
            return f": {mend}"
    return ""
