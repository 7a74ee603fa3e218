"""The experiments: registry, command, goal states, and what is read from switches."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import mininet_topos.experiment
from controller_app import cli
from mininet_topos import conduct
from mininet_topos.agent_lab import is_of_zone
from mininet_topos.cli_experiment import command
from mininet_topos.errors import LabError
from mininet_topos.experiment import load_experiment, run_experiment
from mininet_topos.experiment_lab import Tracked, is_on_demand, parse_conntrack
from mininet_topos.experiment_migrate import match_and_actions, rewritten_seen
from mininet_topos.experiment_ovs_restart import beside_seen
from mininet_topos.experiment_registry import EXPERIMENTS
from mininet_topos.experiment_state import OPEN, Goal, Station, member_address
from mininet_topos.policy_cut_state import flow_specs
from mininet_topos.promises import Seen, check
from mininet_topos.trials import Phase
from ondemand.addresses import parse_ip
from ondemand.codec import decode_record
from ondemand.slices import SourceError, neighbor_slice
from tests.support.flows import flow_seen

ROOT = Path(__file__).resolve().parents[2]
TUNNELS = {"h1": "192.0.2.1", "h2": "192.0.2.2"}


# Registry and command -------------------------------------------------------------------------------


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_experiment_promises_something_under_names_of_its_own(name, quick):
    shown = load_experiment(name).performance(quick=quick)
    names = [promise.name for phase in shown.phases for promise in phase.promises]
    assert len(names) == len(set(names)) > 3
    assert names[-1] == "their logs"
    assert shown.headline
    # A reader of the table of the short form is told how it differs from the full one.
    assert bool(shown.note) == quick
    assert "full form" in shown.note or not quick


def test_the_short_form_says_whether_its_promises_are_wider():
    notes = {name: load_experiment(name).performance(quick=True).note for name in EXPERIMENTS}
    wider = {name for name, note in notes.items() if "wider than those of the full form" in note}
    same = {name for name, note in notes.items() if "promised is the same as in the full" in note}
    assert wider == {"flood", "restart"}
    assert same == EXPERIMENTS.keys() - wider
    text = CliRunner().invoke(command, ["--help"], terminal_width=120).output
    assert "With --quick the promises of flood and restart are wider than in the full form" in text


def test_the_short_form_of_migrate_promises_no_way_back():
    for quick in (False, True):
        shown = load_experiment("migrate").performance(quick=quick)
        themes = {promise.theme for phase in shown.phases for promise in phase.promises}
        assert ("Move back to h1" in themes) == (not quick)
        assert ("and back" in shown.headline) == (not quick)
        assert ("does not move back" in shown.note) == quick


def test_the_help_lists_each_experiment_in_one_line():
    text = CliRunner().invoke(command, ["--help"], terminal_width=120).output
    for name, entry in EXPERIMENTS.items():
        assert f"  {name}" in text
        assert entry.summary in text
        assert "\n" not in entry.summary
    assert "How to read the table" in text


def test_the_help_needs_no_lab():
    code = "import sys, mininet_topos.cli_experiment; sys.exit('mininet' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("code", [0, 1])
def test_the_exit_code_is_the_experiments(code, monkeypatch, tmp_path):
    asked = []

    def run(name, **options):
        asked.append((name, options))
        return code

    monkeypatch.setattr(mininet_topos.experiment, "run_experiment", run)
    path = tmp_path / "x.json"
    result = CliRunner().invoke(command, ["migrate", "--quick", "--json", str(path)])
    assert result.exit_code == code
    options = {"quick": True, "json_file": path, "keep": False, "source": "sqlite"}
    assert asked == [("migrate", options)]


@pytest.mark.parametrize("error", [LabError("no switch"), SourceError("no store")])
def test_an_error_is_exit_2_and_one_sentence(error, monkeypatch):
    def run(name, **_options):
        raise error

    monkeypatch.setattr(mininet_topos.experiment, "run_experiment", run)
    result = CliRunner().invoke(command, ["migrate"])
    assert result.exit_code == 2
    assert str(error) in result.output


def test_an_experiment_that_breaks_the_file_needs_one():
    result = CliRunner().invoke(command, ["source-outage", "--source", "nats"])
    assert result.exit_code == 2
    assert "run it with --source sqlite" in result.output


def test_an_unknown_experiment_is_exit_2():
    result = CliRunner().invoke(command, ["restrat"])
    assert result.exit_code == 2
    assert "there is no experiment 'restrat'; did you mean 'restart'?" in result.output
    result = CliRunner().invoke(command, ["xyz"])
    assert result.exit_code == 2
    assert "there is no experiment 'xyz'; there are policy-cut, migrate, " in result.output


def test_without_a_name_the_names_are_told_in_one_line():
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 2
    assert "\t" not in result.output
    assert f"It is one of {', '.join(EXPERIMENTS)}" in result.output.splitlines()[-1]


def test_ctrl_c_is_exit_130(monkeypatch):
    def run(name, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(mininet_topos.experiment, "run_experiment", run)
    point = importlib.metadata.EntryPoint(
        "experiment", "mininet_topos.cli_experiment:command", cli.ENTRY_POINT_GROUP
    )
    monkeypatch.setattr(cli, "_plugins", lambda: {"experiment": point})
    result = CliRunner().invoke(cli.cli, ["experiment", "migrate"])
    assert (result.exit_code, result.stderr.strip()) == (130, "ondemand: interrupted")


class NoLab:
    """Stands for ``ExperimentLab``."""

    def __init__(self, progress):
        self.agents, self.vms, self.measurements = {1: None}, {}, []
        self.fabric = type("Fabric", (), {"run": type("Run", (), {"directory": "/tmp/kept"})()})()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.mark.parametrize("ok", [True, False])
def test_an_experiment_ends_with_0_only_if_all_held(ok, monkeypatch, tmp_path, capsys):
    def performance(*, quick):
        trials = [
            check("Theme", "one", "promised", lambda _: Seen(ok=True, text="")),
            check("Theme", "two", "promised", lambda _: Seen(ok, "looked at")),
        ]
        return conduct.Performance(
            headline="Nothing.",
            lab=NoLab,
            phases=[Phase("a phase", tuple(trials))],
            explain=("a", "icmp"),
            note="it was short" if quick else "",
        )

    monkeypatch.setattr(conduct, "missing_requirements", list)
    monkeypatch.setattr(conduct, "sweep", lambda: None)
    module = type("Module", (), {"performance": staticmethod(performance)})
    monkeypatch.setattr(mininet_topos.experiment, "load_experiment", lambda name: module)
    path = tmp_path / "x.json"
    assert run_experiment("migrate", quick=True, json_file=path, keep=False) == (0 if ok else 1)
    out = capsys.readouterr().out
    assert f"Note: it was short.\n{1 + ok} of 2 checks held" in out
    assert '"experiment": "migrate"' in path.read_text()
    assert '"quick": true' in path.read_text()


# Goal states ----------------------------------------------------------------------------------------

GOAL = Goal(
    stations=(
        Station("a", 1, 11, groups=("open", "crowd")),
        Station("b", 2, 12),
        Station("new", 2, 13, "back"),
    ),
    groups={"open": OPEN, "crowd": ()},
    absent=frozenset({"new"}),
)


def neighbor(goal, name, family=0):
    ip = parse_ip(goal.station(name).ips[family])
    slice_name, key = neighbor_slice("lab", ip), f"ip/{goal.station(name).ips[family]}"
    payload = goal.payloads(TUNNELS).get(slice_name, {}).get(key)
    return None if payload is None else decode_record(slice_name, key, payload)


def test_a_goal_says_where_everybody_is():
    assert neighbor(GOAL, "a").host == parse_ip("192.0.2.1")
    assert neighbor(GOAL, "a", 1).host == parse_ip("192.0.2.1")
    assert neighbor(GOAL.moved("a", 2), "a").host == parse_ip("192.0.2.2")
    assert neighbor(GOAL, "new") is None
    assert neighbor(GOAL.known("new"), "new") is not None


def test_a_goal_says_who_is_in_which_group():
    assert set(neighbor(GOAL, "a").groups) == {"open", "crowd"}
    assert neighbor(GOAL.with_groups("a", ("open",)), "a").groups == ("open",)


def test_a_goal_can_lack_rules():
    whole, fewer = GOAL.payloads(TUNNELS), GOAL.without(["open-in-v4"]).payloads(TUNNELS)
    assert len(whole["sg/open"]) == len(fewer["sg/open"]) + 1
    assert {name for name in whole if whole[name] != fewer[name]} == {"sg/open"}


def test_synthetic_members_are_neighbors_of_their_group():
    goal = Goal(GOAL.stations, GOAL.groups, members=300, member_groups=("crowd",))
    payloads = goal.payloads(TUNNELS)
    found = [
        decode_record(name, key, payload)
        for name, records in payloads.items()
        if name.startswith("nbr/")
        for key, payload in records.items()
        if key.startswith("ip/10.64.")
    ]
    assert len(found) == 300
    assert {record.groups for record in found} == {("crowd",)}
    assert {record.ip for record in found} >= {parse_ip(member_address(n)) for n in (0, 255, 299)}


def test_policy_cut_has_streams_of_each_kind_in_each_place():
    for quick in (False, True):
        names = [spec.name for spec in flow_specs(quick=quick)]
        assert len(names) == len(set(names))
        for kind in ("kept", "rule"):
            for way in ("received", "begun"):
                for place in ("local", "VXLAN"):
                    for protocol in ("TCP", "UDP"):
                        wanted = f"{kind} {way} {place} {protocol} "
                        assert any(name.startswith(wanted) for name in names)


# What switches show ---------------------------------------------------------------------------------


def test_conntrack_entries_are_told_apart_by_zone_and_original_tuple():
    text = (
        "tcp,orig=(src=10.0.1.21,dst=10.0.1.11,sport=43726,dport=82),reply=(src=10.0.1.11,"
        "dst=10.0.1.21,sport=82,dport=43726),zone=2,mark=77,protoinfo=(state=ESTABLISHED)\n"
        "udp,orig=(src=fd00:1::1,dst=fd00:1::2,sport=1,dport=2),reply=(src=fd00:1::2)\n"
        "nonsense\n"
    )
    assert parse_conntrack(text) == {
        Tracked(2, "tcp,orig=(src=10.0.1.21,dst=10.0.1.11,sport=43726,dport=82)"): 77,
        Tracked(0, "udp,orig=(src=fd00:1::1,dst=fd00:1::2,sport=1,dport=2)"): 0,
    }


def location(tunnel, ip="10.0.1.31"):
    return match_and_actions(
        f"cookie=0x1, table=40, idle_timeout=120, send_flow_rem priority=100,ip,nw_dst={ip} "
        f"actions=set_field:0x1389->tun_id,set_field:{tunnel}->tun_dst,output:1"
    )


def test_location_rules_are_rewritten_in_place_or_not_at_all():
    tunnels = ("192.0.2.1", "192.0.2.2")
    old, new = dict([location("192.0.2.1")]), dict([location("192.0.2.2")])
    elsewhere = dict([location("192.0.2.2", "10.0.1.32")])
    assert list(old) == ["priority=100,ip,nw_dst=10.0.1.31"]
    assert rewritten_seen(old, new, tunnels).ok
    for before, after in ((old, old), (old, elsewhere), (old, {}), ({}, {}), (new, new)):
        assert not rewritten_seen(before, after, tunnels).ok


def test_only_a_rule_with_a_timeout_came_with_traffic():
    assert is_on_demand("cookie=0x1, table=30, idle_timeout=60, priority=100,ip actions=drop")
    assert not is_on_demand("cookie=0x1, table=30, priority=0 actions=CONTROLLER:65535")


def test_the_switchs_own_pause_is_no_fault_of_the_agents():
    bare = [flow_seen("bare TCP IPv4", longest_gap_s=1.0)]
    assert beside_seen([flow_seen(longest_gap_s=1.1)], bare).ok
    assert not beside_seen([flow_seen(longest_gap_s=1.3)], bare).ok
    assert not beside_seen([flow_seen(error="reset")], bare).ok
    assert not beside_seen([flow_seen(echoed=0)], bare).ok
    assert not beside_seen([flow_seen()], []).ok


def test_rules_of_a_port_are_told_by_its_zone():
    assert is_of_zone("table=80, priority=100,ip,reg7=0x2 actions=drop", 2)
    assert is_of_zone("table=0, in_port=3 actions=set_field:0x2->reg6,resubmit(,10)", 2)
    for other in ("reg7=0x21 actions=drop", "reg5=0x2 actions=drop", "reg6=0x1 actions=drop"):
        assert not is_of_zone(f"table=80, priority=100,ip,{other}", 2)
