"""The benchmark of new ports runs and counts right. Nothing here says how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import provision
from benchmarks.provision_lab import PEERS


def test_a_new_port_is_served_and_its_rules_do_not_grow_with_the_vpc(
    lab_machine: None, tmp_path: Path
) -> None:
    result_file = tmp_path / "result.json"

    code = provision.main(
        [
            *("--ports", "1,3", "--neighbors", "100,2000", "--repetitions", "1"),
            *("--json", str(result_file)),
        ]
    )

    assert code == 0
    result = json.loads(result_file.read_text())
    assert result["parameters"] == {
        "ports": [1, 3],
        "neighbors": [100, 2000],
        "repetitions": 1,
        "source": "sqlite",
    }
    found = {(one["who"], one["ports"], one["neighbors"]): one for one in result["ports"]}
    assert len(found) == len(result["ports"]) == len(result["summary"]) == 12
    for one in found.values():
        assert one["served_ms"] > 0
        assert one["interface_ms"] > 0
    for ports in (1, 3):
        few, many = (found[provision.EXPANDED, ports, n] for n in (100, 2000))
        # One for each neighbor and each address of the peer; six are the port's, one the tunnel's.
        assert [few["flow_mods"], many["flow_mods"]] == [n + PEERS + 7 for n in (100, 2000)]
        assert [few["rules"], many["rules"]] == [few["flow_mods"], many["flow_mods"]]
        few, many = (found[provision.NEXT, ports, n] for n in (100, 2000))
        assert few["flow_mods"] == many["flow_mods"] == 7
        assert [few["rules"], many["rules"]] == [n + PEERS + 7 for n in (100, 2000)]
        few, many = (found[provision.AGENTS, ports, n] for n in (100, 2000))
        assert few["flow_mods"] is many["flow_mods"] is None
        # Rules of the VPC's addresses are those that traffic asked for, at most one more each time.
        assert abs(many["rules"] - few["rules"]) < PEERS


@pytest.mark.parametrize(
    "arguments",
    [["--ports", "50,1"], ["--ports", "501"], ["--neighbors", "0"], ["--repetitions", "0"]],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        provision.main(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err
