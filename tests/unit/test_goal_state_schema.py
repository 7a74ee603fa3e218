"""The JSON schema of a goal state and the model that reads it know the same shape."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml

from controller_app.goal_state_file import read_document
from ondemand.goal_model import (
    GoalInput,
    GroupInput,
    HostInput,
    PairInput,
    PortInput,
    RouteInput,
    RouterInput,
    RuleInput,
    SubnetInput,
    VpcInput,
)
from ondemand.goal_state import GoalStateError, compile_goal_state
from tests.support.goal_states import goal_state, group, port, rule, subnet, vpc

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "goal-state.schema.json").read_text())
SHAPES = {
    "host": HostInput,
    "vpc": VpcInput,
    "subnet": SubnetInput,
    "router": RouterInput,
    "route": RouteInput,
    "security_group": GroupInput,
    "rule": RuleInput,
    "pair": PairInput,
    "port": PortInput,
}


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


def test_every_mapping_has_its_shape():
    mappings = {name for name, what in SCHEMA["$defs"].items() if what.get("type") == "object"}
    assert mappings == set(SHAPES)


@pytest.mark.parametrize(
    ("schema", "shape"),
    [(SCHEMA, GoalInput), *((SCHEMA["$defs"][name], shape) for name, shape in SHAPES.items())],
)
def test_the_same_keys_are_known_and_the_same_are_required(schema, shape):
    fields = msgspec.structs.fields(shape)
    assert set(schema["properties"]) == {field.name for field in fields}
    assert set(schema.get("required", [])) == {field.name for field in fields if field.required}
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_examples_pass(validator, path):
    document = read_document(path)
    validator.validate(document)
    assert compile_goal_state(document)


@pytest.mark.parametrize(
    "document",
    [
        {},
        goal_state(vpc()),
        goal_state({"id": "v"}),
        goal_state(vpc(security_groups=[group(rule(protocol=47, id=None, ports=None))])),
        goal_state(vpc(security_groups=[group(rule(protocol="tcp", ports="1-2"))])),
        goal_state(vpc(security_groups=[group(rule(remote_prefix="::/0", remote_group=None))])),
        goal_state(vpc(ports=[port(10, allowed_address_pairs=[{"ip": "::1", "mac": None}])])),
        goal_state(vpc(ports=[port(10, port_security=False)])),
    ],
)
def test_sound_documents_pass_both(validator, document):
    validator.validate(document)
    compile_goal_state(document)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"vpc": []},
        goal_state({}),
        goal_state({"id": "a/b"}),
        goal_state(vpc(subnets=[subnet(vni=0)])),
        goal_state(vpc(subnets=[subnet(vni="7")])),
        goal_state(vpc(subnets=[subnet(cidrs=[])])),
        goal_state(vpc(subnets=[subnet(cidrs=["10.0.0.0"], gateways=[])])),
        goal_state(vpc(subnets=[subnet(gateway="10.0.0.1")])),
        goal_state(vpc(routers=[{"id": "r", "subnets": ["s", "s"]}])),
        goal_state(vpc(routers=[{"id": "r", "routes": [{"to": "::/0"}]}])),
        goal_state(vpc(security_groups=[group(rule(direction="in"))])),
        goal_state(vpc(security_groups=[group(rule(protocol="tpc"))])),
        goal_state(vpc(security_groups=[group(rule(protocol=256))])),
        goal_state(vpc(security_groups=[group(rule(protocol="tcp", ports=65536))])),
        goal_state(vpc(security_groups=[group(rule(protocol="tcp", ports="a"))])),
        goal_state(
            vpc(security_groups=[group(rule(remote_group="g", remote_prefix="10.0.0.0/8"))])
        ),
        goal_state(vpc(ports=[port(10, mac="01:00:00:00:00:00")])),
        goal_state(vpc(ports=[port(10, mac="fa:16:3e:00:00")])),
        goal_state(vpc(ports=[port(10, fixed_ips=["10.0.0.0/24"])])),
        goal_state(vpc(ports=[port(10, fixed_ips="10.0.0.10")])),
        goal_state(vpc(ports=[port(10, port_security=False, security_groups=["g"])])),
        goal_state(vpc(ports=[port(10, colour="red")])),
        goal_state(vpc(), hosts=[{"id": "h1", "tunnel_ip": "here"}]),
    ],
)
def test_bad_documents_fail_both(validator, document):
    assert not validator.is_valid(document)
    with pytest.raises(GoalStateError):
        compile_goal_state(document)


def test_the_documents_in_the_description_pass_both(validator):
    text = (ROOT / "docs" / "goal-state.md").read_text()
    blocks = [part.partition("```")[0] for part in text.split("```yaml\n")[1:]]
    assert blocks
    for block in blocks:
        document = yaml.safe_load(block)
        validator.validate(document)
        assert compile_goal_state(document)


def test_the_description_names_every_key():
    text = (ROOT / "docs" / "goal-state.md").read_text()
    for shape in (GoalInput, *SHAPES.values()):
        for field in msgspec.structs.fields(shape):
            assert f"`{field.name}`" in text
