"""The benchmark of changes runs and counts right. Nothing here says how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import change
from benchmarks.expanded import Allow, Local, difference, local_rules


def test_each_change_is_seen_in_traffic_and_messages_do_not_depend_on_the_group(
    lab_machine: None, tmp_path: Path
) -> None:
    result_file = tmp_path / "result.json"

    code = change.main(["--members", "20,200", "--repetitions", "1", "--json", str(result_file)])

    assert code == 0
    result = json.loads(result_file.read_text())
    assert result["parameters"] == {"members": [20, 200], "repetitions": 1, "source": "sqlite"}
    seen = [(one["who"], one["change"], one["in_use"]) for one in result["changes"]]
    assert sorted(seen) == sorted(
        (who, what, in_use) for who in change.WHO for what in change.CHANGES for in_use in (20, 200)
    )
    for one in result["changes"]:
        assert one["ms"] is not None
        assert one["made_ms"] > 0
    assert len(result["summary"]) == len(seen)
    messages = {
        (one["who"], one["change"], one["members"]): one["messages"] for one in result["messages"]
    }
    for who in change.WHO:
        for what in ("member left", change.AGAIN):
            assert messages[who, what, 20] == messages[who, what, 200]
            assert messages[who, what, 20]["flow_mod"] > 0
    for members in (20, 200):
        # A rule of the expanded form is one for each member, and those with a VM are members too.
        assert messages[change.EXPANDED, "rule added", members]["flow_mod"] == members + 2
        assert messages[change.EXPANDED, "member left", members]["flow_mod"] == 2
        assert messages[change.AGENTS, "moved", members] == {"flow_mod": 1}


def test_the_expanded_form_differs_by_one_rule_for_each_member_and_security_rule() -> None:
    def of(*remotes: str) -> dict[str, str]:
        allows = (Allow("ingress", 80, remotes), Allow("egress", None, remotes))
        return local_rules(Local("10.0.0.2", "02:00:00:00:00:02", 5, allows))

    before, after = of("10.0.0.3", "10.0.0.4"), of("10.0.0.4")

    lines = difference(before, after)

    assert len(lines) == 2
    assert all(line.startswith("delete_strict table=") for line in lines)
    assert all("=10.0.0.3" in line for line in lines)
    assert difference(after, after) == []
    assert sorted(line.split()[0] for line in difference(after, before)) == ["add", "add"]


@pytest.mark.parametrize(
    "arguments",
    [["--members", "200,20"], ["--members", "0"], ["--repetitions", "0"], ["--source", "paper"]],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        change.main(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err
