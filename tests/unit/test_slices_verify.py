"""``ondemand slices verify``: what an agent has saved, against what the source has."""

from __future__ import annotations

import json
import threading

import pytest
from click.testing import CliRunner

from controller_app.cli_slices import slices
from controller_app.holdings_file import HoldingsFile
from controller_app.slice_verify import VerifyError, verify_holdings
from controller_app.sqlite_store import SqliteStore
from ondemand.codec import encode_record
from ondemand.holdings import (
    PartHeld,
    RecordDropped,
    RecordHeld,
    SliceDropped,
    SourceChanged,
    VersionMoved,
    WholeHeld,
)
from ondemand.records import Group

HOST, SG, BLOCK = "host/h1", "sg/a", "nbr/v/10.0.0.0"


def group(name):
    return encode_record(Group(id="a", name=name))


class Site:
    """A store, and the file of an agent that holds what it has."""

    def __init__(self, folder):
        self.path = folder / "h1.holdings"
        self.store_path = folder / "slices.db"
        self.store = SqliteStore(self.store_path, writer=True)
        self.store.write(HOST, {"port/p": b"port"})
        self.store.write(SG, {"group": group("one"), "rule/x": b"x"})
        self.store.write(BLOCK, {"ip/10.0.0.1": b"1", "ip/10.0.0.2": b"2"})
        self.file = HoldingsFile(self.path, host="h1", source=self.store.identity())
        self.file.load()
        for name in (HOST, SG):
            found = self.store.snapshot(name)
            self.file.append([WholeHeld(name, found.version, dict(found.records))])
        version = self.version(BLOCK)
        self.file.append(
            [
                PartHeld(BLOCK, version),
                RecordHeld(BLOCK, "ip/10.0.0.1", version, b"1"),
                RecordHeld(BLOCK, "ip/10.0.0.9", version, None),
            ]
        )

    def version(self, name):
        return self.store.snapshot(name).version

    def verify(self, *, wait_s=0.0, host="h1"):
        return verify_holdings(self.path, self.store, host=host, wait_s=wait_s)

    def differences(self):
        """Each difference in one tuple: slice, what, key."""
        found = []
        for one in self.verify().differences:
            if one.has_other_version:
                found.append((one.name, "version", one.held_version))
            for what in ("missing", "differing", "gone", "appeared"):
                found += [(one.name, what, key) for key in getattr(one, what)]
        return found

    def close(self):
        self.file.close()
        self.store.close()


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.close()


def test_what_is_equal_is_summed_up(site):
    found = site.verify()
    assert (found.differences, found.moving) == ((), ())
    assert (found.host, found.slices, found.records, found.absences) == ("h1", 3, 4, 1)
    assert found.payload_bytes == len(group("one")) + len(b"port" + b"x" + b"1")
    assert found.file_bytes == site.path.stat().st_size


def test_a_change_that_the_agent_never_got(site):
    held = site.version(SG)
    site.store.write(SG, {"group": group("two"), "rule/x": None, "rule/y": b"y"})
    assert site.differences() == [
        (SG, "version", held),
        (SG, "missing", "rule/y"),
        (SG, "differing", "group"),
        (SG, "gone", "rule/x"),
    ]


def test_records_that_differ_at_the_same_version(site):
    version = site.version(SG)
    site.file.append([RecordHeld(SG, "rule/x", version, b"other")])
    assert site.differences() == [(SG, "differing", "rule/x")]


def test_of_a_block_only_what_is_held_counts(site):
    version = site.store.write(BLOCK, {"ip/10.0.0.2": b"another", "ip/10.0.0.3": b"3"})
    site.file.append([VersionMoved(BLOCK, version)])
    assert site.differences() == []
    version = site.store.write(BLOCK, {"ip/10.0.0.1": None, "ip/10.0.0.9": b"9"})
    site.file.append([VersionMoved(BLOCK, version)])
    assert site.differences() == [
        (BLOCK, "gone", "ip/10.0.0.1"),
        (BLOCK, "appeared", "ip/10.0.0.9"),
    ]
    site.file.append([RecordDropped(BLOCK, "ip/10.0.0.1"), RecordDropped(BLOCK, "ip/10.0.0.9")])
    assert site.differences() == []


def test_a_version_that_the_source_has_not_reached(site):
    ahead = site.version(SG) + 1
    site.file.append([VersionMoved(SG, ahead)])
    assert site.differences() == [(SG, "version", ahead)]


def test_a_slice_that_the_source_never_had_is_equal_when_it_is_empty(site):
    site.file.append([WholeHeld("sg/new", 5, {})])
    assert site.differences() == []
    site.file.append([RecordHeld("sg/new", "rule/x", 6, b"x")])
    assert site.differences() == [("sg/new", "gone", "rule/x")]


def test_the_hosts_own_slice_must_be_held(site):
    site.file.append([SliceDropped(SG)])
    assert site.differences() == []
    site.file.append([SliceDropped(HOST)])
    assert site.differences() == [(HOST, "version", None), (HOST, "missing", "port/p")]


def test_a_change_on_its_way_is_waited_for(site):
    version = site.store.write(SG, {"group": group("two")})
    assert [one.name for one in site.verify().differences] == [SG]
    later = threading.Timer(
        0.3, site.file.append, [[RecordHeld(SG, "group", version, group("two")),
                                 VersionMoved(SG, version)]]
    )  # fmt: skip
    later.start()
    assert site.verify(wait_s=20.0).differences == ()
    later.join()


def test_a_slice_that_goes_on_changing_is_no_difference_when_the_agent_keeps_up(site):
    """It has reached what the source was at first, whenever it is looked at."""
    begun, stop = threading.Event(), threading.Event()
    behind = site.version(SG)

    def change():
        nonlocal behind
        while not stop.is_set():
            version = site.store.write(SG, {"rule/x": str(behind).encode()})
            # What is written down is what was before.
            site.file.append([VersionMoved(SG, behind)])
            behind = version
            begun.set()
            stop.wait(0.01)

    thread = threading.Thread(target=change)
    thread.start()
    begun.wait()
    try:
        found = site.verify(wait_s=1.0)
    finally:
        stop.set()
        thread.join()
    assert (found.differences, found.moving) == ((), (SG,))


def test_half_a_frame_at_the_end_is_an_append_under_way(site):
    whole = site.path.read_bytes()
    site.file.append([VersionMoved(SG, 99)])
    site.path.write_bytes(site.path.read_bytes()[:-1])
    assert site.verify().differences == ()
    assert len(whole) < site.path.stat().st_size


class TestNothingCanBeCompared:
    def test_there_is_no_file(self, site):
        site.path.unlink()
        with pytest.raises(VerifyError, match=r"there are no saved holdings .* its log says"):
            site.verify()

    @pytest.mark.parametrize("at", [3, 30, -40])
    def test_the_file_is_damaged(self, site, at):
        data = bytearray(site.path.read_bytes())
        data[at] ^= 1
        site.path.write_bytes(data)
        with pytest.raises(VerifyError, match=r"h1\.holdings .* damaged at|damaged between"):
            site.verify()

    def test_the_file_is_something_else(self, site):
        site.path.write_text("my notes\n" * 100)
        with pytest.raises(VerifyError, match="nothing can be compared"):
            site.verify()

    def test_it_is_of_another_host(self, site):
        with pytest.raises(VerifyError, match="is of host 'h1', and not of 'h2'"):
            site.verify(host="h2")
        assert site.verify(host=None).host == "h1"

    def test_it_is_of_another_store(self, site, tmp_path):
        with SqliteStore(tmp_path / "other.db", writer=True) as other:
            other.write(HOST, {"port/p": b"port"})
            with pytest.raises(VerifyError, match="give the store that the agent of h1 follows"):
                verify_holdings(site.path, other, host="h1", wait_s=0.0)
            # The agent learns of it a moment later.
            site.file.append([SourceChanged(other.identity())])
            found = other.snapshot(HOST)
            site.file.append([WholeHeld(HOST, found.version, dict(found.records))])
            assert verify_holdings(site.path, other, host="h1", wait_s=0.0).differences == ()


# The command ----------------------------------------------------------------------------------------


def run(*arguments, code=0):
    result = CliRunner().invoke(slices, ["verify", "--wait", "0", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


class TestCommand:
    @pytest.fixture
    def config(self, site, tmp_path):
        path = tmp_path / "agent.toml"
        path.write_text(
            '[host]\nid = "h1"\ntunnel_ip = "192.0.2.1"\n[source]\nfile = "slices.db"\n'
            '[state]\nholdings_file = "h1.holdings"\n',
            encoding="utf-8",
        )
        return path

    def test_equal_is_0(self, site, config):
        text = run("--config", config).stdout
        assert "host h1 holds 3 slices, 4 records, 1 known absence" in text
        assert text.endswith(f"no difference: that is what {site.store_path} has\n")
        found = json.loads(run("--config", config, "--json").stdout)
        assert (found["equal"], found["slices"], found["records"]) == (True, 3, 4)
        assert found["differences"] == {}

    def test_different_is_1(self, site, config):
        held = site.version(SG)
        version = site.store.write(SG, {"group": group("two")})
        lines = [
            " ".join(line.split()) for line in run("--config", config, code=1).stdout.splitlines()
        ]
        assert f"behind sg/a version {held} -> {version}" in lines
        assert "differs sg/a group name=one -> two" in lines
        assert lines[-1] == f"1 slice not as in {site.store_path}"
        found = json.loads(run("--config", config, "--json", code=1).stdout)
        assert found["equal"] is False
        one = found["differences"][SG]
        assert (one["held_version"], one["source_version"]) == (held, version)
        assert one["differing"]["group"]["held"]["name"] == "one"
        assert one["differing"]["group"]["source"]["name"] == "two"

    def test_a_file_and_a_store_are_enough(self, site):
        place = ("--holdings", site.path, "--store", site.store_path)
        run(*place)
        assert "not of 'h2'" in run(*place, "--host", "h2", code=2).stderr

    def test_errors_are_2(self, site, config, tmp_path):
        assert "give --config, or --holdings and --store" in run(code=2).stderr
        assert "no.toml" in run("--config", tmp_path / "no.toml", code=2).stderr
        config.write_text(config.read_text().replace("h1.holdings", ""))
        assert "saves no holdings" in run("--config", config, code=2).stderr
        none = tmp_path / "none.db"
        told = run("--holdings", site.path, "--store", none, code=2).stderr
        assert "does not exist" in told
