"""The ``slices`` commands: what they do, print and return."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller_app.cli_slices import slices
from controller_app.sqlite_store import SqliteStore
from tests.support.goal_states import goal_state, group, port, rule, subnet, vpc

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "two-subnets.yaml"


@pytest.fixture
def store(tmp_path):
    return tmp_path / "slices.db"


@pytest.fixture
def run(store):
    def run_(command, *arguments, code=0, store_path=None):
        result = CliRunner().invoke(
            slices, [command, "--store", str(store_path or store), *map(str, arguments)]
        )
        assert result.exit_code == code, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "Traceback" not in result.output
        return result

    return run_


@pytest.fixture
def run_json(run):
    def run_(*arguments, code=0):
        return json.loads(run(*arguments, "--json", code=code).stdout)

    return run_


@pytest.fixture
def state(tmp_path):
    def write(document, name="state.json"):
        path = tmp_path / name
        path.write_text(json.dumps(document))
        return path

    return write


def records(store_path, name):
    with SqliteStore(store_path) as store:
        return set(store.snapshot(name).records)


def versions(store_path):
    with SqliteStore(store_path) as store:
        return {one.name: one.version for one in store.summaries()}


class TestPublish:
    def test_the_example_is_published_once_and_then_there_is_nothing_to_do(self, run, store):
        first = run("publish", EXAMPLE)
        assert "36 records written in 15 slices" in first.stdout
        before = versions(store)
        again = run("publish", EXAMPLE)
        assert f"nothing to do: {store} holds this goal state already" in again.stdout
        assert versions(store) == before

    def test_json(self, run_json, store, state):
        path = state(goal_state(vpc()))
        found = run_json("publish", path)
        assert found["store"] == str(store)
        assert found["dry_run"] is False
        assert found["written"] == sum(one["added"] for one in found["slices"].values())
        assert found["slices"]["host/h1"]["version"] == versions(store)["host/h1"]
        assert run_json("publish", path)["slices"] == {}

    def test_only_what_differs_is_written(self, run_json, state):
        run_json("publish", state(goal_state(vpc())))
        moved = goal_state(vpc(ports=[port(10, security_groups=["g"], host="h2"), port(12)]))
        found = run_json("publish", state(moved))["slices"]
        counts = {
            name: (one["added"], one["changed"], one["removed"]) for name, one in found.items()
        }
        assert counts == {
            "host/h1": (1, 0, 2),
            "host/h2": (1, 0, 0),
            "nbr/v/10.0.0.0": (1, 1, 1),
        }

    def test_what_the_state_does_not_say_is_removed_unless_others_are_kept(self, run, store, state):
        other = {"id": "w", "subnets": [subnet(vni=7, cidrs=["10.9.0.0/16"], gateways=[])]}
        other["ports"] = [port(20, fixed_ips=["10.9.1.1"], host="h2")]
        run("publish", state(goal_state(vpc(), other)))
        run("publish", state(goal_state(vpc(ports=[port(10)]), hosts=[
            {"id": "h1", "tunnel_ip": "192.0.2.1"}
        ])), "--keep-others")  # fmt: skip
        assert records(store, "vpc/w") == {"subnet/s"}
        assert records(store, "nbr/w/10.9.1.0") == {"ip/10.9.1.1"}
        assert records(store, "host/h2") == {"port/vm20"}
        assert records(store, "nbr/v/10.0.0.0") == {"ip/10.0.0.10"}
        run("publish", state(goal_state(vpc(ports=[port(10)]))))
        assert records(store, "vpc/w") == set()
        assert records(store, "nbr/w/10.9.1.0") == set()
        assert records(store, "host/h2") == set()

    def test_keeping_others_removes_the_neighbors_that_a_vpc_has_lost(self, run, store, state):
        """The last neighbor of a block takes the block's slice out of the goal state."""
        far = subnet(cidrs=["10.0.0.0/8"], gateways=[])
        run(
            "publish",
            state(goal_state(vpc(subnets=[far], ports=[port(10, fixed_ips=["10.7.0.1"])]))),
        )
        assert records(store, "nbr/v/10.7.0.0") == {"ip/10.7.0.1"}
        run("publish", state(goal_state(vpc(subnets=[far]))), "--keep-others")
        assert records(store, "nbr/v/10.7.0.0") == set()

    def test_a_dry_run_tells_the_same_and_writes_nothing(self, run, run_json, store, state):
        path = state(goal_state(vpc()))
        told = run_json("publish", path, "--dry-run")
        assert told["dry_run"] is True
        assert not store.exists()
        assert "would be written" in run("publish", path, "--dry-run").stdout
        done = run_json("publish", path)
        assert told["written"] == done["written"]
        assert set(told["slices"]) == set(done["slices"])
        before = versions(store)
        removing = state(goal_state(), "other.json")
        told = run_json("publish", removing, "--dry-run")
        assert versions(store) == before
        done = run_json("publish", removing)
        assert {name: one["removed"] for name, one in told["slices"].items()} == {
            name: one["removed"] for name, one in done["slices"].items()
        }

    def test_a_wrong_goal_state_changes_nothing(self, run, store, state):
        run("publish", state(goal_state(vpc())))
        before = versions(store)
        path = state(goal_state(vpc(ports=[port(10, mac="x"), port(11, host="h7")])))
        result = run("publish", path, code=2)
        assert result.stdout == ""
        assert f"Error: {path}: 2 mistakes, nothing was published:" in result.stderr
        assert "vpcs[0].ports[0] (port 'vm10'): mac: 'x': not a MAC" in result.stderr
        assert "there is no host 'h7'" in result.stderr
        assert versions(store) == before

    def test_each_command_says_what_it_did_not_do(self, run, state):
        path = state(goal_state(vpc(ports=[port(10, mac="x")])))
        told = run("publish", path, "--dry-run", code=2).stderr
        assert f"Error: {path}: 1 mistake, so publishing would be refused:\n" in told
        told = run("diff", path, code=2).stderr
        assert f"Error: {path}: 1 mistake, so it was not compared:\n" in told

    def test_a_wrong_goal_state_creates_no_store(self, run, store, state):
        run("publish", state({"vpc": []}), code=2)
        assert not store.exists()

    def test_files_that_are_not_there(self, run, tmp_path):
        missing = tmp_path / "none.yaml"
        assert f"{missing}: cannot be read" in run("publish", missing, code=2).stderr
        away = tmp_path / "none" / "slices.db"
        assert "does not exist" in run("publish", EXAMPLE, code=2, store_path=away).stderr

    def test_a_file_that_is_no_store_is_left_alone(self, run, store):
        store.write_text("my notes\n" * 300)
        assert "is not an SQLite file" in run("publish", EXAMPLE, code=2).stderr
        assert store.read_text() == "my notes\n" * 300


class TestDiff:
    def test_no_difference(self, run, run_json):
        run("publish", EXAMPLE)
        assert "no difference" in run("diff", EXAMPLE).stdout
        assert run_json("diff", EXAMPLE) == {"differs": False, "slices": {}}

    def test_differences_are_shown_and_give_1(self, run, run_json, state, store):
        web = rule(id="web", protocol="tcp", ports=80)
        run("publish", state(goal_state(vpc(security_groups=[group(web)]))))
        before = versions(store)
        changed = vpc(
            security_groups=[group(web | {"ports": "80-90"}, rule(id="ping", protocol="icmp"))],
            ports=[port(10, security_groups=["g"])],
        )
        path = state(goal_state(changed))
        lines = [line.split() for line in run("diff", path, code=1).stdout.splitlines()]
        assert ["~", "sg/g", "rule/web", "ports=80", "->", "80-90"] in lines
        assert ["+", "sg/g", "rule/ping"] in [line[:3] for line in lines]
        assert ["-", "host/h1", "port/vm11"] in [line[:3] for line in lines]
        assert lines[-1] == ["4", "records", "in", "3", "slices", "differ"]
        found = run_json("diff", path, code=1)
        assert found["differs"] is True
        assert set(found["slices"]) == {"host/h1", "nbr/v/10.0.0.0", "sg/g"}
        group_diff = found["slices"]["sg/g"]
        assert group_diff["changed"]["rule/web"]["from"]["ports"] == 80
        assert group_diff["changed"]["rule/web"]["to"]["ports"] == "80-90"
        assert set(group_diff["added"]) == {"rule/ping"}
        assert found["slices"]["host/h1"]["removed"]["port/vm11"]["mac"] == "fa:16:3e:00:00:0b"
        assert versions(store) == before

    def test_keep_others(self, run, state):
        run("publish", EXAMPLE)
        path = state(goal_state(hosts=[]))
        assert "36 records" in run("diff", path, code=1).stdout
        run("diff", path, "--keep-others")

    def test_errors_give_2(self, run, state, store):
        assert "does not exist: create it" in run("diff", EXAMPLE, code=2).stderr
        assert not store.exists()
        run("publish", EXAMPLE)
        run("diff", state({"hosts": 1}), code=2)


class TestShow:
    def test_all_slices(self, run, run_json, state):
        run("publish", state(goal_state(vpc())))
        text = run("show").stdout
        assert text.splitlines()[0].split() == ["slice", "version", "records", "bytes"]
        assert text.splitlines()[-1] == "4 slices, 6 records"
        found = {one["name"]: one["records"] for one in run_json("show")["slices"]}
        assert found == {"host/h1": 2, "nbr/v/10.0.0.0": 2, "sg/g": 1, "vpc/v": 1}

    def test_one_slice(self, run, run_json, state, store):
        web = rule(id="web", protocol="tcp", ports="80-90", remote_prefix="10.0.0.0/8")
        run(
            "publish",
            state(goal_state(vpc(security_groups=[group(web, name="Größe [b]x[/b] :a:")]))),
        )
        text = run("show", "sg/g").stdout
        assert "name=Größe [b]x[/b] :a:" in text
        assert "ports=80-90  remote_prefix=10.0.0.0/8" in text
        found = run_json("show", "sg/g")
        assert found["version"] == versions(store)["sg/g"]
        assert found["records"]["rule/web"] == {
            "type": "SecurityRule",
            "id": "web",
            "direction": "ingress",
            "ethertype": "IPv4",
            "protocol": "tcp",
            "ports": "80-90",
            "remote_prefix": "10.0.0.0/8",
            "remote_group": None,
        }

    def test_one_record(self, run, run_json, state):
        run("publish", state(goal_state(vpc())))
        arguments = ("show", "nbr/v/10.0.0.0", "--key", "ip/10.0.0.10")
        assert "fa:16:3e:00:00:0a" in run(*arguments).stdout
        record = run_json(*arguments)["record"]
        assert record == {
            "type": "Neighbor",
            "ip": "10.0.0.10",
            "mac": "fa:16:3e:00:00:0a",
            "subnet": "s",
            "port": "vm10",
            "host": "192.0.2.1",
            "groups": ["g"],
        }

    def test_a_record_that_readers_will_refuse_is_shown_with_the_reason(self, run, run_json, store):
        with SqliteStore(store, writer=True) as written:
            written.write("sg/g", {"rule/x": b"\x01"})
        assert "error=not decodable" in run("show", "sg/g").stdout
        assert "not decodable" in run_json("show", "sg/g")["records"]["rule/x"]["error"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("sg/gg",), "has no slice 'sg/gg'; did you mean 'sg/g'?"),
            (("what",), "'what' is no slice name"),
            (("host/h1", "--key", "port/vm1"), "has no record 'port/vm1'; did you mean 'port/vm1"),
            (("--key", "x"), "--key needs the SLICE"),
        ],
    )
    def test_what_is_not_there_gives_2(self, run, state, arguments, message):
        run("publish", state(goal_state(vpc())))
        assert message in run("show", *arguments, code=2).stderr

    def test_an_address_that_looks_alike_is_not_proposed(self, run, state):
        run("publish", state(goal_state(vpc())))
        told = run("show", "nbr/v/10.0.0.0", "--key", "ip/10.0.0.12", code=2).stderr
        assert "slice 'nbr/v/10.0.0.0' has no record 'ip/10.0.0.12'" in told
        assert "did you mean" not in told

    def test_bad_stores_give_2(self, run, store):
        assert "does not exist" in run("show", code=2).stderr
        with sqlite3.connect(store) as db:
            db.execute("CREATE TABLE t (x)")
        db.close()
        assert "another program" in run("show", code=2).stderr


@pytest.mark.parametrize("command", [[], ["publish"], ["diff"], ["show"], ["watch"], ["verify"]])
def test_help_teaches_with_examples(command):
    result = CliRunner().invoke(slices, [*command, "--help"], prog_name="ondemand slices")
    assert result.exit_code == 0
    assert "\b" not in result.output
    assert "  ondemand slices " in result.output
    if command:
        assert "Exit code:" in result.output
        assert "--json" in result.output


def test_help_says_what_each_command_does_with_the_slices_of_others():
    def words(command):
        found = CliRunner().invoke(slices, [command, "--help"], prog_name="ondemand slices")
        return " ".join(found.output.split())

    assert "Leave slices alone that STATE does not name" in words("publish")
    assert "--keep-others Do not count slices that STATE does not name." in words("diff")
    assert "nbr/VPC/mac-N" in words("show")


def test_help_is_asked_for_in_two_ways_also_without_the_command_above():
    for command in ([], ["publish"], ["watch"], ["verify"]):
        short, long = (
            CliRunner().invoke(slices, [*command, option], prog_name="ondemand slices")
            for option in ("-h", "--help")
        )
        assert (short.exit_code, short.output) == (0, long.output)


def test_a_missing_store_option_is_told():
    result = CliRunner().invoke(slices, ["show"])
    assert result.exit_code == 2
    assert "--store" in result.stderr
