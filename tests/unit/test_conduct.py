"""What demo and experiments make of their observations: outcomes, report, JSON, exit code."""

import json
import threading
import time

import pytest

from mininet_topos import conduct, demo
from mininet_topos.errors import LabError, LabUnavailableError
from mininet_topos.promises import Measurement, Outcome, Promise, Seen, Trial, all_of, check
from mininet_topos.report import Report, ReportError, check_place
from mininet_topos.screen import check_table, measurement_table
from mininet_topos.trials import Phase, run_phase, run_trial
from ondemand.slices import SourceError

GOOD = Promise("Reachable", "ping", "answered")
BAD = Promise("Denied", "port 81", "dropped")


def outcome(promise, *, ok, text="seen"):
    return Outcome(promise, Seen(ok, text), 0.25)


def report(*outcomes, promises=(GOOD, BAD), measurements=()):
    return Report(promises, outcomes, measurements, 12.4, {"hosts": 3})


# Exit code and summary ------------------------------------------------------------------------------


def test_all_held_is_exit_0():
    held = report(outcome(GOOD, ok=True), outcome(BAD, ok=True))
    assert held.exit_code == 0
    assert held.summary == "2 of 2 checks held, 12 s"


def test_one_that_did_not_hold_is_exit_1_and_named():
    broken = report(outcome(GOOD, ok=True), outcome(BAD, ok=False))
    assert broken.exit_code == 1
    assert broken.summary == "1 of 2 checks held, 12 s; not: port 81"


def test_one_that_nobody_looked_at_is_exit_1_and_named():
    short = report(outcome(GOOD, ok=True))
    assert short.exit_code == 1
    assert short.summary == "1 of 2 checks held, 12 s; not: port 81 (not looked at)"


def test_nothing_looked_at_is_exit_1():
    assert report(promises=()).exit_code == 1


# JSON -----------------------------------------------------------------------------------------------


def test_the_document_has_every_promise_and_measurement(tmp_path):
    path = tmp_path / "demo.json"
    measured = Measurement("ping", "ms", {"first packet": 1.23456, "later packets": 0.2})
    report(outcome(BAD, ok=False, text="connected"), measurements=[measured]).write(path)
    assert json.loads(path.read_text()) == {
        "format": 1,
        "held": False,
        "seconds": 12.4,
        "hosts": 3,
        "checks": [
            {
                "theme": "Reachable",
                "name": "ping",
                "promised": "answered",
                "seen": "not looked at",
                "ok": False,
                "seconds": None,
            },
            {
                "theme": "Denied",
                "name": "port 81",
                "promised": "dropped",
                "seen": "connected",
                "ok": False,
                "seconds": 0.25,
            },
        ],
        "measurements": [
            {
                "name": "ping",
                "unit": "ms",
                "values": {"first packet": 1.2346, "later packets": 0.2},
            }
        ],
    }


def test_held_in_the_document_means_exit_0():
    held = report(outcome(GOOD, ok=True), outcome(BAD, ok=True))
    assert held.document()["held"] is True
    assert [one["ok"] for one in held.document()["checks"]] == [True, True]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ReportError, match="no directory"):
        check_place(tmp_path / "missing" / "demo.json")
    with pytest.raises(ReportError, match="is a directory"):
        check_place(tmp_path)
    check_place(tmp_path / "demo.json")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ReportError, match="cannot be written"):
        report().write(tmp_path)


# The table ------------------------------------------------------------------------------------------


def test_the_table_groups_by_theme():
    later = Promise("Reachable", "TCP", "connects")
    table = check_table([outcome(GOOD, ok=True), outcome(BAD, ok=False), outcome(later, ok=True)])
    names = [str(cell) for cell in table.columns[1].cells]
    assert names == ["Reachable", "ping", "TCP", "Denied", "port 81"]
    assert [str(cell) for cell in table.columns[0].cells] == ["", "ok", "ok", "", "FAILED"]


def test_figures_are_shown_with_what_they_are_of():
    table = measurement_table(
        [Measurement("ping", "ms", {"first": 1.234}), Measurement("held", "records", {"h1": 1200})]
    )
    assert list(table.columns[1].cells) == ["first 1.23 ms", "h1 1,200 records"]


# Trials ----------------------------------------------------------------------------------------


def test_an_experiment_tells_of_each_of_its_promises():
    both = Trial((GOOD, BAD), lambda lab: (Seen(ok=True, text=lab), Seen(ok=False, text="b")))
    found = run_trial(both, "lab")
    assert [(one.promise, one.seen.ok) for one in found] == [(GOOD, True), (BAD, False)]
    assert found[0].seen.text == "lab"


@pytest.mark.parametrize("error", [LabError("no route"), SourceError("locked")])
def test_what_cannot_be_looked_at_did_not_hold(error):
    def look(_lab):
        raise error

    found = run_trial(Trial((GOOD, BAD), look), None)
    assert [one.seen.ok for one in found] == [False, False]
    assert str(error) in found[0].seen.text


def test_an_experiment_that_forgets_a_promise_is_a_mistake():
    with pytest.raises(ValueError, match="zip"):
        run_trial(Trial((GOOD, BAD), lambda _: (Seen(ok=True, text=""),)), None)


def test_one_bad_observation_of_several_is_enough():
    assert all_of(Seen(ok=True, text="a"), Seen(ok=True, text="b")) == Seen(ok=True, text="a; b")
    assert not all_of(Seen(ok=True, text="a"), Seen(ok=False, text="b")).ok


def test_outcomes_keep_the_order_of_promises_and_are_told_one_at_a_time():
    told, inside = [], threading.Lock()

    def slow(number):
        def look(_lab):
            time.sleep(0.02 * (3 - number))
            return Seen(ok=True, text=str(number))

        return check("theme", str(number), "", look)

    def tell(one):
        assert inside.acquire(blocking=False)
        time.sleep(0.005)
        told.append(one.promise.name)
        inside.release()

    phase = Phase("title", tuple(slow(number) for number in range(4)), workers=4)
    assert [one.seen.text for one in run_phase(phase, None, tell)] == list("0123")
    assert sorted(told) == list("0123")
    assert [promise.name for promise in phase.promises] == list("0123")


# The demo as a whole, on a lab that is none -------------------------------------------------------------------


class NoLab:
    """Stands for ``DemoLab``."""

    def __init__(self, *, with_fleet, progress):
        self.with_fleet = with_fleet
        self.agents, self.vms, self.measurements = {}, {}, []
        self.fabric = type("Fabric", (), {"run": type("Run", (), {"directory": "/tmp/kept"})()})()
        progress("starting nothing")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the demo with these trials; returns (exit code, JSON document)."""
    monkeypatch.setattr(conduct, "missing_requirements", list)
    monkeypatch.setattr(conduct, "sweep", lambda: None)
    monkeypatch.setattr(demo, "DemoLab", NoLab)

    def run(*trials):
        monkeypatch.setattr(demo, "phases", lambda *_: [Phase("a phase", trials)])
        path = tmp_path / "demo.json"
        code = demo.run_demo(demo.DemoOptions(json_file=path))
        return code, json.loads(path.read_text())

    return run


def seen(name, *, ok):
    return check("Theme", name, "promised", lambda _: Seen(ok, f"{name} was looked at"))


def test_the_demo_ends_with_0_only_if_all_held(run, capsys):
    code, document = run(seen("one", ok=True), seen("two", ok=True))
    assert (code, document["held"]) == (0, True)
    assert "2 of 2 checks held" in capsys.readouterr().out


def test_the_demo_ends_with_1_if_one_did_not_hold(run, capsys):
    code, document = run(seen("one", ok=True), seen("two", ok=False))
    assert (code, document["held"]) == (1, False)
    assert [one["ok"] for one in document["checks"]] == [True, False]
    out = capsys.readouterr().out
    assert "FAILED  two" in out
    assert "1 of 2 checks held" in out
    assert "kept in /tmp/kept" in out


def test_the_demo_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(conduct, "missing_requirements", lambda: ["something"])
    monkeypatch.setattr(conduct.os, "geteuid", lambda: 1000)
    with pytest.raises(LabUnavailableError, match="needs root: use sudo"):
        demo.run_demo(demo.DemoOptions())
    monkeypatch.setattr(conduct.os, "geteuid", lambda: 0)
    monkeypatch.setattr(conduct.shutil, "which", lambda name: None if name == "mnexec" else name)
    with pytest.raises(LabUnavailableError, match=r"\(mnexec\): run 'make setup', .* mininet$"):
        demo.run_demo(demo.DemoOptions())
    monkeypatch.setattr(conduct.shutil, "which", lambda name: name)
    with pytest.raises(LabUnavailableError, match="cannot run here: something"):
        demo.run_demo(demo.DemoOptions())
