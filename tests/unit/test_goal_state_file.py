"""Goal state as a file: what YAML and JSON may look like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller_app.goal_state_file import GoalStateFileError, load_goal_state, read_document
from ondemand.goal_problems import path_of
from ondemand.goal_state import compile_goal_state, encode_slices
from tests.support.goal_states import goal_state, vpc

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "two-subnets.yaml"


@pytest.fixture
def read(tmp_path):
    def read_(text, name="state.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return read_document(path)

    return read_


@pytest.fixture
def refuse(tmp_path):
    def refuse_(content, name="state.yaml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(GoalStateFileError) as caught:
            load_goal_state(path)
        assert str(path) in str(caught.value)
        assert caught.value.errors
        return str(caught.value).replace(str(path), "FILE")

    return refuse_


def test_yaml_and_json_say_the_same(tmp_path):
    document = read_document(EXAMPLE)
    path = tmp_path / "state.json"
    path.write_text(json.dumps(document))
    assert load_goal_state(path) == load_goal_state(EXAMPLE)


def test_loading_compiles_and_encodes(tmp_path):
    path = tmp_path / "state.json"
    path.write_text(json.dumps(goal_state(vpc())))
    assert load_goal_state(path) == encode_slices(compile_goal_state(goal_state(vpc())))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10:20:30:40:50:11", "10:20:30:40:50:11"),  # a number of base 60 in YAML 1.1
        ("02:00:00:00:00:01", "02:00:00:00:00:01"),
        ("no", "no"),
        ("on", "on"),
        ("012", "012"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("fd00::1", "fd00::1"),
        ("443", 443),
        ("-1", -1),
        ("0x10", 16),
        ("true", True),
        ("False", False),
        ("1.5", 1.5),
        ("1e3", "1e3"),
        ("~", None),
        ("", None),
        ("'443'", "443"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(read, text, value):
    found = read(f"key: {text}")
    assert found == {"key": value}
    assert type(found["key"]) is type(value)


def test_anchors_and_merges(read):
    text = "a: &x {k: 1, l: 2}\nb: {<<: *x, l: 3}\nc: *x\n"
    assert read(text) == {"a": {"k": 1, "l": 2}, "b": {"k": 1, "l": 3}, "c": {"k": 1, "l": 2}}


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("hosts: []\nvpcs: [\n", "a.yaml", "FILE:3: is no YAML: "),
        ("hosts: []\nvpcs:\n  - id: a\n   id: b\n", "a.yaml", "FILE:4: is no YAML: "),
        (
            "# A title\n\nSome words: and more: words\n",
            "README.md",
            "FILE:3: is no YAML: mapping values are not allowed in this context",
        ),
        ("hosts: []\n\nhosts: []\n", "a.yaml", "FILE:3: key 'hosts' is written twice"),
        ("vpcs:\n - {id: a, id: b}\n", "a.yaml", "FILE:2: key 'id' is written twice"),
        ("vpcs: []\n---\nvpcs: []\n", "a.yaml", "FILE:2: "),
        ("vpcs: !!python/object/apply:os.getpid []", "a.yaml", "FILE:1: could not determine"),
        ("? [1]\n: 2\n", "a.yaml", "FILE:1: found unhashable key"),
        ("vpcs: *nothing\n", "a.yaml", "FILE:1: is no YAML: found undefined alias"),
        ("a: \0", "a.yaml", "FILE: is no YAML: "),
        (b"vpcs: \xff", "a.yaml", "FILE: is no UTF-8 text (byte 6)"),
        ("", "a.yaml", "the goal state is empty: write 'vpcs: []'"),
        ("# nothing\n", "a.yaml", "the goal state is empty"),
        ("just text", "a.yaml", "top level: must be a mapping with hosts, vpcs, not a string"),
        ("1: 2", "a.yaml", "top level: unknown key 1; known here: hosts, vpcs"),
        ("vpcs: &a [*a]", "a.yaml", "vpcs[0]: must be a mapping"),
        ('{"vpcs": [}', "a.json", "FILE:1: is no JSON: Expecting value"),
        ('{\n"vpcs": [],\n"vpcs": []}', "a.json", "FILE: key 'vpcs' is written twice"),
        ("[" * 100_000, "a.json", "FILE: is nested too deeply"),
        ("vpcs: " + "[" * 20_000, "a.yaml", "nest"),
        ("", "a.json", "FILE:1: "),
    ],
)
def test_files_that_are_wrong(refuse, content, name, message):
    assert message in refuse(content, name)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(GoalStateFileError, match="cannot be read") as caught:
            load_goal_state(path)
        assert str(path) in str(caught.value)


def test_all_mistakes_of_a_file_are_told(refuse):
    message = refuse("hosts: [{id: a}]\nvpcs: [{}]\n")
    assert message.splitlines() == [
        "FILE: 2 mistakes:",
        "line 1: hosts[0] (host 'a'): tunnel_ip is missing",
        "line 2: vpcs[0]: id is missing",
    ]


WRONG = """\
# A comment counts.
hosts:
  - id: h1
    tunnel_ip: 192.0.2.1
vpcs:
  - id: blue
    colour: blue
    subnets:
      - {id: s, vni: 100, cidrs: [10.0.1.0/24]}
      - id: t
        cidrs:
          - 10.0.2.0/24
          - 10.0.3.300/24
        vni: 0
    security_groups:
      - id: web
        rules:
          - direction: ingress
            protocol: udpp
            ports: 70000
          - {direction: egress, protocol: tcp, ports: "9-1"}
    ports:
      - &first
        id: "it's (port 'x'): a"
        host: h1
        subnet: s
        mac: x
        fixed_ips: [10.0.1.11]
        security_groups: [web]
      - <<: *first
        id: b
        fixed_ips:
          - 10.0.1.12
          - 10.0.9.1
"""


def test_each_mistake_has_its_line(refuse):
    found = refuse(WRONG).splitlines()[1:]
    said = [
        ("line 7: ", "unknown key 'colour'"),
        ("line 14: ", "vni 0 is not in 1..16777215"),
        ("line 13: ", "cidrs[1]: '10.0.3.300/24': not an IP prefix"),
        ("line 19: ", "protocol 'udpp' is none of"),
        ("line 20: ", "ports 70000 must be"),
        ("line 21: ", "ports '9-1' must be"),
        ("line 23: ", "is no identifier"),
        # What a merge brings in is where it is written; what replaces it is where that is.
        ("line 27: ", "vpcs[0].ports[1] (port 'b'): mac: 'x'"),
        ("line 34: ", "fixed_ips[1]: 10.0.9.1 lies outside subnet 's'"),
    ]
    assert len(found) == len(said)
    for line, (head, mistake) in zip(found, said, strict=True):
        assert line.startswith(head + "vpcs[0]")
        assert mistake in line


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("top level", ()),
        ("top level: hosts", ("hosts",)),
        ("hosts[3]", ("hosts", 3)),
        ("vpcs[0] (vpc 'a'): subnets", ("vpcs", 0, "subnets")),
        (
            "vpcs[0].security_groups[1] (security group 'web').rules[2] (rule 'x'): remote_group",
            ("vpcs", 0, "security_groups", 1, "rules", 2, "remote_group"),
        ),
        (
            """vpcs[0].ports[1] (port "it's ('a') b"): fixed_ips[0]""",
            ("vpcs", 0, "ports", 1, "fixed_ips", 0),
        ),
        ("hosts[0] (host " + repr("'\").x") + "): tunnel_ip", ("hosts", 0, "tunnel_ip")),
    ],
)
def test_a_place_is_a_path(place, path):
    assert path_of(place) == path


def test_mistakes_of_json_have_no_line(refuse):
    assert "\nvpcs[0]: id is missing" in refuse('{"vpcs": [{}]}', "state.json")
