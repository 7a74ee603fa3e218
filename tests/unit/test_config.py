"""The configuration file: what it gives, its defaults, and each way in which it can be wrong."""

from __future__ import annotations

import logging
import math
import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest

from controller_app.config import ConfigError, load_config
from controller_app.config_example import effective, effective_json, example, toml
from controller_app.config_file import parse
from controller_app.config_keys import KEYS, TABLES, Kind
from controller_app.log_limit import Warner
from controller_app.logs import LogConfig
from controller_app.ovsdb_config import BridgeConfig
from controller_app.source_factory import OPENERS, open_source
from controller_app.sqlite_store import SqliteStore
from ondemand.settings import Settings, SettingsError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "agent.toml"

SHORTEST = """
[host]
id = "host-1"
tunnel_ip = "192.0.2.11"
[source]
file = "slices.db"
"""


@pytest.fixture
def write(tmp_path):
    def write_(text, *, start=SHORTEST):
        path = tmp_path / "agent.toml"
        path.write_text(start + text, encoding="utf-8")
        return path

    return write_


def problems_of(path):
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    return caught.value.problems


def test_what_is_left_out_has_its_default(write, tmp_path):
    config = load_config(write(""))
    assert (config.host_id, config.tunnel_ip) == ("host-1", bytes([192, 0, 2, 11]))
    assert config.bridge == BridgeConfig()
    assert config.settings == Settings()
    assert config.source_kind == "sqlite"
    assert config.source_file == tmp_path / "slices.db"
    assert config.source_poll_s == 0.005
    assert config.log == LogConfig()
    assert (config.metrics_file, config.metrics_s) == (None, 10.0)


def test_every_key_reaches_the_configuration(write, tmp_path):
    text = """
poll_ms = 20
[bridge]
name = "br-x"
ovsdb = "tcp:127.0.0.1:6640"
datapath_type = "netdev"
tunnel_port = "vx0"
tunnel_local_ip = "192.0.2.11"
tunnel_dst_port = 4790
controller = "unix:/run/openvswitch/ondemand.sock"
take_over = true
[rules]
match = "connection"
table_base = 100
verdict_idle_s = 61
location_idle_s = 121
responder_idle_s = 122
deny_s = 11
outage_deny_s = 3
[limits]
switch_table_rules = 700
max_connections_per_port = 9
max_rules = 1000
max_rules_per_port = 500
meter_rate = 0
meter_burst = 1
admission_rate = 2
admission_burst = 3
flood_rate = 5
flood_burst = 6
quarantine_max_s = 0
max_parked = 4
max_parked_per_port = 4
park_s = 1
neighbor_cache_bytes = 65536
neighbor_idle_s = 30
[log]
level = "debug"
format = "json"
file = "/var/log/x.log"
[metrics]
snapshot_file = "metrics.json"
interval_s = 1
"""
    config = load_config(write(text))
    assert config.bridge == BridgeConfig(
        bridge="br-x",
        ovsdb="tcp:127.0.0.1:6640",
        datapath_type="netdev",
        tunnel_port="vx0",
        tunnel_local_ip="192.0.2.11",
        tunnel_dst_port=4790,
        controller="unix:/run/openvswitch/ondemand.sock",
        take_over=True,
    )
    assert config.settings == Settings(
        match_connection=True,
        table_base=100,
        verdict_idle_s=61,
        location_idle_s=121,
        responder_idle_s=122,
        deny_s=11,
        outage_deny_s=3,
        max_rules=1000,
        max_rules_per_port=500,
        meter_rate=0,
        meter_burst=1,
        admission_rate=2,
        admission_burst=3,
        flood_rate=5,
        flood_burst=6,
        quarantine_max_s=0,
        max_parked=4,
        max_parked_per_port=4,
        park_s=1,
        neighbor_cache_bytes=65536,
        neighbor_idle_s=30,
    )
    assert (config.switch_table_rules, config.max_connections_per_port) == (700, 9)
    assert config.log == LogConfig("debug", "json", Path("/var/log/x.log"))
    assert (config.metrics_file, config.metrics_s) == (tmp_path / "metrics.json", 1.0)
    assert config.source_poll_s == 0.02


def test_an_ipv6_tunnel_address_is_taken(write):
    path = write("", start=SHORTEST.replace("192.0.2.11", "2001:db8::1"))
    assert len(load_config(path).tunnel_ip) == 16


def test_a_share_that_is_not_given_is_no_more_than_the_whole(write):
    settings = load_config(write("[limits]\nmax_rules = 200\nmax_parked = 16\n")).settings
    assert (settings.max_rules_per_port, settings.max_parked_per_port) == (200, 16)


# -- the table of keys -------------------------------------------------------------------------------


def test_each_kind_of_source_can_be_opened(write, tmp_path):
    kinds = next(key.choices for key in KEYS if (key.table, key.name) == ("source", "kind"))
    assert set(OPENERS) == set(kinds)
    config = load_config(write('kind = "sqlite"\n'))
    with SqliteStore(config.source_file, writer=True) as store:
        store.write("sg/g", {"k": b"1"})
    source = open_source(config)
    try:
        assert source.get("sg/g", "k").payload == b"1"
    finally:
        source.close()
    with pytest.raises(KeyError):
        open_source(replace(config, source_kind="other"))


def test_every_setting_of_the_engine_is_a_key():
    names = {key.name for key in KEYS if key.table in ("rules", "limits")}
    others = {"match", "switch_table_rules", "max_connections_per_port"}
    assert names == set(Settings.names()) - {"match_connection"} | others


def test_the_switch_takes_all_the_rules_of_the_agent_and_those_that_are_always_there(write):
    assert load_config(write("")).switch_table_rules == Settings().max_rules + 10_000
    text = "[limits]\nmax_rules = 777\nmax_rules_per_port = 70\n"
    assert load_config(write(text)).switch_table_rules == 10_777
    assert load_config(write(text + "switch_table_rules = 100\n")).switch_table_rules == 100


def test_every_field_of_the_bridge_is_a_key():
    names = {key.name for key in KEYS if key.table == "bridge"}
    assert names == {field.name for field in fields(BridgeConfig)} - {"bridge"} | {"name"}


SETTING_KEYS = [key for key in KEYS if key.name in Settings.names()]


@pytest.mark.parametrize("key", SETTING_KEYS, ids=lambda key: key.name)
def test_the_table_has_the_range_and_default_of_the_engine(key):
    shares = {"max_rules_per_port": "max_rules", "max_parked_per_port": "max_parked"}
    whole = {shares[key.name]: key.high} if key.name in shares else {}
    small = {share: key.low for share, of in shares.items() if of == key.name}
    if key.name == "max_rules":
        small = {"max_rules_per_port": 10}
    assert getattr(Settings(), key.name) == key.default
    for value in (key.low, key.high):
        assert getattr(Settings(**{key.name: value}, **whole, **small), key.name) == value
    step = 0.001 if key.kind is Kind.NUMBER else 1
    for value in (key.low - step, key.high + step):
        with pytest.raises(SettingsError, match=key.name):
            Settings(**{key.name: value}, **whole, **small)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.place)
def test_a_key_is_declared_soundly(key):
    assert key.table in TABLES
    assert key.help.endswith(".")
    assert key.required != (key.default is not None) or not key.required
    value = key.sample if key.default is None else key.default
    text = f"[{key.table}]\n{key.name} = {toml(value)}\n"
    assert parse(text, "sample").values == {(key.table, key.name): value}
    if key.kind is Kind.INTEGER and key.name != "tunnel_dst_port":
        assert key.unit or key.name == "table_base"


# -- the example -------------------------------------------------------------------------------------


def test_the_example_is_what_the_generator_writes():
    assert EXAMPLE.read_text(encoding="utf-8") == example(), (
        "write it again: ondemand config --example > examples/agent.toml"
    )


def test_the_example_loads_and_changes_no_default():
    config = load_config(EXAMPLE)
    assert (config.settings, config.bridge, config.log) == (Settings(), BridgeConfig(), LogConfig())


def test_every_key_of_the_example_may_be_used_as_it_stands(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(re.sub(r"(?m)^#(\w+ = )", r"\1", example()), encoding="utf-8")
    given = tomllib.loads(path.read_text(encoding="utf-8"))
    assert {(table, name) for table in given for name in given[table]} == {
        (key.table, key.name) for key in KEYS
    }
    assert load_config(path).settings == Settings()


def test_what_is_in_force_is_a_configuration_too(write, tmp_path):
    path = write("[limits]\nmax_rules = 777\nmax_rules_per_port = 70\n")
    values = parse(path.read_text(encoding="utf-8"), "x").values
    again = tmp_path / "again.toml"
    again.write_text(effective(values), encoding="utf-8")
    assert load_config(again) == load_config(path)
    assert "max_rules = 777\n" in effective(values)
    assert "max_parked = 4096  # default" in effective(values)
    assert effective_json(values)["limits"]["max_rules"] == 777
    assert effective_json(values)["log"]["file"] is None


# -- mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[limit]\n", "[limit] is no table of this file; did you mean 'limits'?"),
        ("[xyz]\n", "[xyz] is no table of this file; the tables are [host], "),
        ("[limits]\nmax_rule = 3\n", "[limits] max_rule is no key of this table; did you mean 'max_rules'?"),
        ("[rules]\nmax_rules = 300\n", "[rules] max_rules is no key of this table; it is [limits] max_rules"),
        ("[log]\nzzz = 300\n", "[log] zzz is no key of this table; its keys are level, format, file"),
        ("[bridge]\ntake_over = 1\n", "[bridge] take_over = 1 must be true or false"),
        ("[limits]\nmeter_rate = true\n", "[limits] meter_rate = true must be a whole number"),
        ("[limits]\nmeter_rate = 1.5\n", "[limits] meter_rate = 1.5 must be a whole number"),
        ("[limits]\npark_s = '2'\n", '[limits] park_s = "2" must be a number'),
        ("[limits]\npark_s = nan\n", "[limits] park_s = nan is not in 0.01 .. 60 seconds"),
        ("[limits]\npark_s = inf\n", "[limits] park_s = inf is not in 0.01 .. 60 seconds"),
        ("[rules]\ntable_base = 164\n", "[rules] table_base = 164 is not in 0 .. 163"),
        ("[rules]\nmatch = 'conection'\n", "did you mean 'connection'?"),
        ("[log]\nlevel = 2024-01-01\n", '[log] level = "2024-01-01" must be a string'),
        ("[log]\nfile = ''\n", "[log] file = '' is no path of a file"),
        ("[limits]\nmax_parked = 4\nmax_parked_per_port = 5\n", "[limits] max_parked_per_port = 5 exceeds max_parked = 4"),
        ("[bridge]\nname = 'a bridge'\n", "[bridge] name = 'a bridge' is no device name"),
        ("[bridge]\nname = 'x'\ntunnel_port = 'x'\n", "[bridge] tunnel_port = 'x' is the bridge"),
        ("[bridge]\novsdb = '127.0.0.1'\n", "[bridge] ovsdb = '127.0.0.1' is no address"),
        ("[bridge]\ncontroller = 'tcp:192.0.2.1:6653'\n", "can be reached from other hosts"),
        ("[bridge]\ncontroller = 'tcp:[::]:6653'\n", "can be reached from other hosts"),
        ("[bridge]\ntunnel_dst_port = 0\n", "[bridge] tunnel_dst_port = 0 is not in 1 .. 65535"),
        ("[bridge]\ntunnel_local_ip = 'x'\n", "[bridge] tunnel_local_ip = "),
    ],
)  # fmt: skip
def test_one_mistake_is_one_clear_sentence(write, text, sentence):
    problems = problems_of(write(text))
    assert len(problems) == 1, problems
    assert sentence in problems[0]
    assert "\n" not in problems[0]


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        ("", "[host] id is missing"),
        (SHORTEST.replace("[source]", "[log]"), "[source] file is missing"),
        (SHORTEST.replace('"host-1"', '"a/b"'), "[host] id 'a/b' is no identifier"),
        (SHORTEST.replace("192.0.2.11", "192.0.2.300"), "[host] tunnel_ip = '192.0.2.300': not an IP"),
        (SHORTEST.replace("192.0.2.11", "224.0.0.1"), "is no address of one host"),
        (SHORTEST.replace("192.0.2.11", "::"), "is no address of one host"),
        ('id = "x"' + SHORTEST, "id stands outside of any table; it is [host] id"),
        ("surplus = 1" + SHORTEST, "surplus is no key of this file; the tables are"),
        ("host = 3\n[source]\nfile = 'x'", "[host] is a table; write its keys below a line [host]"),
    ],
)  # fmt: skip
def test_what_must_be_there_is_checked(write, start, sentence):
    assert any(sentence in problem for problem in problems_of(write("", start=start)))


def test_all_mistakes_of_a_file_are_told_at_once(write):
    text = """
[limits]
max_rule = 3
park_s = "x"
[bridge]
name = "a bridge"
ovsdb = "nowhere"
[log]
level = "loud"
"""
    path = write(text, start="[host]\nid = 'a b'\n")
    problems = problems_of(path)
    for piece in ("max_rule", "park_s", "name", "ovsdb", "level", "tunnel_ip", "file", "'a b'"):
        assert sum(piece in problem for problem in problems) >= 1, piece
    with pytest.raises(ConfigError, match=f"has {len(problems)} mistakes:\n"):
        load_config(path)


def test_no_toml_is_told_with_its_place(write):
    assert re.search(r"no TOML: .*line 7", problems_of(write("[log\n"))[0])


def test_a_file_that_is_not_there_says_how_to_write_one(tmp_path):
    assert "ondemand config --example" in problems_of(tmp_path / "none.toml")[0]


def test_a_folder_and_foreign_bytes_are_told(tmp_path):
    assert "cannot be read" in problems_of(tmp_path)[0]
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# \xe9\n")
    assert "no UTF-8" in problems_of(path)[0]


def test_a_table_holds_only_numbers_in_its_range():
    key = next(key for key in KEYS if key.name == "park_s")
    assert key.holds(0.01)
    assert not key.holds(0.009)
    assert not key.holds(math.nan)


def test_warnings_of_the_agent_go_through_a_limit(write, caplog):
    warn = load_config(write("")).warner(logging.getLogger("controller_app.test"))
    assert isinstance(warn, Warner)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            warn("the same")
    assert 0 < len(caplog.records) < 20
