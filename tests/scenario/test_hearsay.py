"""After a restart: what the saved holdings lack may have been published meanwhile, and is no reason to warn."""

from __future__ import annotations

from ondemand.engine import CONFIRM_S
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import add_port, office


def warned(lab: Lab) -> list[str]:
    return [one for one in lab.here.warnings if "is plugged, but" in one]


def wait(lab: Lab, seconds: float) -> None:
    for _ in range(round(seconds / 0.5) + 1):
        lab.advance(0.5)


def test_a_port_published_and_plugged_while_no_agent_ran(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    lab.here.kill_agent()
    add_port(lab.cloud, "new", "red", 99)
    lab.publish()
    lab.here.plugged["new"] = 77
    lab.here.switch.add_port(77)
    # Its interface is told before the source is heard.
    lab.here.start_agent()
    wait(lab, CONFIRM_S + 1)
    assert "new" in lab.here.engine.world.ports
    assert warned(lab) == []


def test_a_port_that_was_never_published_is_warned_of_once(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    lab.here.kill_agent()
    lab.here.plugged["stranger"] = 77
    lab.here.start_agent()
    assert warned(lab) == []
    wait(lab, CONFIRM_S + 1)
    assert len(warned(lab)) == 1
    assert "iface-id 'stranger' is plugged" in warned(lab)[0]
    wait(lab, CONFIRM_S + 1)
    assert len(warned(lab)) == 1


def test_while_the_source_is_away_nothing_is_confirmed(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    lab.here.kill_agent()
    lab.here.plugged["stranger"] = 77
    lab.here.feed.lose("gone")
    lab.here.start_agent()
    wait(lab, 4 * CONFIRM_S)
    assert warned(lab) == []
    lab.here.feed.come_back()
    lab.here.deliver()
    wait(lab, CONFIRM_S + 1)
    assert len(warned(lab)) == 1


def test_without_saved_holdings_it_is_said_as_soon_as_the_slice_is_here(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    lab.here.kill_agent()
    lab.here.plugged["stranger"] = 77
    lab.here.start_agent(fresh=True)
    assert len(warned(lab)) == 1
