"""A damaged goal state is refused with its mistakes or is sound after all; nothing else happens."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controller_app.goal_state_file import read_document
from ondemand.codec import decode_record
from ondemand.goal_state import GoalStateError, compile_goal_state, encode_slices

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "two-subnets.yaml"

junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70_000),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(["front", "back", "web", "host-1", "main", "web-1", "tcp", "icmp", "80-90"]),
    st.sampled_from(["10.0.1.10", "10.0.1.1", "10.0.0.0/8", "::/0", "fd00:1::10", "IPv6"]),
    st.just("fa:16:3e:00:01:0a"),
    st.just([]),
    st.just({}),
    st.lists(st.text(max_size=3), max_size=2),
    st.dictionaries(st.text(max_size=3) | st.integers(), st.integers(), max_size=2),
)


@functools.cache
def example() -> Any:
    return read_document(EXAMPLE)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = []
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += places(value, (*path, key))
    return found


PLACES = places(example())


def parent_of(document: Any, place: tuple[Any, ...]) -> Any:
    """What holds ``place``; None when an earlier change took it away."""
    for step in place[:-1]:
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return None
    return document if isinstance(document, dict | list) else None


@st.composite
def damaged(draw):
    document = copy.deepcopy(example())
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.sampled_from(PLACES))
        parent, key = parent_of(document, place), place[-1]
        if parent is None:
            continue
        change = draw(st.sampled_from(["replace", "remove", "add", "repeat"]))
        if isinstance(parent, list):
            if change == "add":
                parent.append(draw(junk))
            elif isinstance(key, int) and key < len(parent):
                if change == "replace":
                    parent[key] = draw(junk)
                elif change == "remove":
                    del parent[key]
                else:
                    parent.append(copy.deepcopy(parent[key]))
        elif change == "add":
            parent[draw(st.text(max_size=4) | st.integers())] = draw(junk)
        elif change == "remove":
            parent.pop(key, None)
        else:
            parent[key] = draw(junk)
    return document


@given(damaged())
def test_a_damaged_document_gives_mistakes_or_records_that_readers_accept(document):
    before = copy.deepcopy(document)
    try:
        slices = compile_goal_state(document)
    except GoalStateError as error:
        errors = error.errors
    else:
        errors = ()
        for name, payloads in encode_slices(slices).items():
            for key, payload in payloads.items():
                assert decode_record(name, key, payload) == slices[name][key]
    assert document == before
    assert all(error.strip() and "\n" not in error for error in errors)
    assert len(set(errors)) == len(errors)


@given(st.randoms(use_true_random=False))
def test_the_order_of_lists_changes_nothing(rng):
    """Except that of subnets in a router and addresses in a port, which are ordered."""
    document = copy.deepcopy(example())
    rng.shuffle(document["hosts"])
    for vpc in document["vpcs"]:
        for name in ("subnets", "routers", "security_groups", "ports"):
            rng.shuffle(vpc[name])
        for group in vpc["security_groups"]:
            rng.shuffle(group["rules"])
        for port in vpc["ports"]:
            rng.shuffle(port.get("security_groups", []))
    assert compile_goal_state(document) == compile_goal_state(example())
