"""``ondemand explain --rule`` and ``--rules``: rules that a running switch holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click

from controller_app.cli_support import console, print_json, table
from controller_app.config import AgentConfig
from controller_app.explain_hosts import ExplainError, Store
from controller_app.explain_rule import RuleExplainer, RuleExplanation
from controller_app.explain_rule_text import age_text, brief_json, rule_json, rule_text
from controller_app.explain_rules_list import RuleList, list_rules
from controller_app.explain_switch import (
    SwitchReader,
    SwitchView,
    find_rule,
    host_of_switch,
    parse_cookie,
)
from controller_app.ovsdb_config import BridgeConfig
from controller_app.switch_query import SwitchQuery
from controller_app.vswitchd_control import run_directory
from ondemand.pipeline import Pipeline
from ondemand.settings import Settings

_NUMBERS: Final = ("packets", "age")


@dataclass(frozen=True, slots=True)
class SwitchChoice:
    """Which switch is asked, and what is known of its agent; None: not said.

    Attributes:
        socket: a management socket, with or without "unix:" in front.
        match_connection: what verdict rules match.
    """

    config: AgentConfig | None = None
    bridge: str | None = None
    socket: str | None = None
    host: str | None = None
    table_base: int | None = None
    match_connection: bool | None = None

    def path(self) -> Path:
        """The management socket."""
        if self.socket is not None:
            path = self.socket.removeprefix("unix:")
            if ":" in path.partition("/")[0]:
                raise ExplainError(
                    f"--switch {self.socket} is no socket of this machine; use unix:/path/BRIDGE.mgmt"
                )
            return Path(path)
        configured = None if self.config is None else self.config.bridge
        bridge = self.bridge or (BridgeConfig().bridge if configured is None else configured.bridge)
        if "/" in bridge:
            raise ExplainError(f"--bridge {bridge} is a path; use --switch unix:{bridge}")
        folder = run_directory("" if configured is None else configured.ovsdb)
        return folder / f"{bridge}.mgmt"

    def settings(self) -> Settings:
        """The agent's settings, as far as they are known."""
        known = Settings() if self.config is None else self.config.settings
        changes: dict[str, Any] = {}
        if self.table_base is not None:
            changes["table_base"] = self.table_base
        if self.match_connection is not None:
            changes["match_connection"] = self.match_connection
        return replace(known, **changes)


def explain_rule(store: Store, choice: SwitchChoice, cookie_text: str, *, as_json: bool) -> int:
    """Explain the rule with this cookie; 0 when it is true today, 1 when it is not.

    Raises:
        ExplainError: there is nothing to explain.
        SwitchQueryError: the switch cannot be asked.
        SourceError: the store cannot be read.
    """
    cookie = parse_cookie(cookie_text)
    with _asked(choice) as reader:
        entry, rule = find_rule(reader, cookie, f"the switch at {choice.path()}")
        with_epochs = reader.has_epochs(rule)
        view, explainer = _view(store, choice, reader, with_epochs=with_epochs)
    found = explainer.explain(entry, rule)
    if as_json:
        print_json(rule_json(found, view))
    else:
        click.echo(rule_text(found, view))
    return 0 if found.is_true else 1


def explain_rules(
    store: Store, choice: SwitchChoice, *, port_id: str | None, limit: int, as_json: bool
) -> int:
    """List rules that traffic made; 0 when all that are listed are true today, 1 otherwise.

    Raises:
        ExplainError, SwitchQueryError, SourceError: as ``explain_rule``.
    """
    with _asked(choice) as reader:
        view, explainer = _view(store, choice, reader)
        found = list_rules(reader, view, explainer, limit=limit, port_id=port_id)
    if as_json:
        print_json(_list_json(found, view))
    else:
        _print_list(found, view, limit=limit, port_id=port_id)
    all_true = all(one.is_true for one in found.rules) and not found.unreadable
    return 0 if all_true else 1


@contextmanager
def _asked(choice: SwitchChoice) -> Iterator[SwitchReader]:
    try:
        pipeline = Pipeline(choice.settings().table_base)
    except ValueError as error:
        raise ExplainError(str(error)) from error
    with SwitchQuery(choice.path()) as query:
        yield SwitchReader(query, pipeline)


def _view(
    store: Store, choice: SwitchChoice, reader: SwitchReader, *, with_epochs: bool = False
) -> tuple[SwitchView, RuleExplainer]:
    served = reader.served_ports(with_epochs=with_epochs)
    config = choice.config
    host = choice.host or (None if config is None else config.host_id)
    view = SwitchView(
        store,
        host_of_switch(store, served, host),
        served,
        tunnel_ip=None if config is None else config.tunnel_ip,
    )
    is_known = config is not None or choice.match_connection is not None
    settings = choice.settings()
    return view, RuleExplainer(reader.pipeline, view, settings, match_is_known=is_known)


def _print_list(found: RuleList, view: SwitchView, *, limit: int, port_id: str | None) -> None:
    if found.rules:
        rows = table("cookie", "port or subnet", "what", "packets", "age", "true", numbers=_NUMBERS)
        for one in found.rules:
            rows.add_row(*_row(one))
        console().print(rows)
    else:
        whose = "" if port_id is None else f" for port {port_id}"
        click.echo(f"the switch holds no rule that traffic made{whose}")
    for sentence in found.unreadable:
        click.echo(f"not understood: {sentence}")
    for problem in dict.fromkeys(view.problems):
        click.echo(f"warning: {problem}")
    if found.has_more:
        click.echo(
            f"{limit} rules are shown; the tables that traffic fills hold {found.held:,}. --limit"
            " N shows more, --port ID those of one port, --rule COOKIE one in full"
        )


def _row(one: RuleExplanation) -> tuple[str, ...]:
    subnet = "-" if one.subnet is None else f"({one.subnet})"
    return (
        f"0x{one.entry.cookie:016x}",
        subnet if one.port is None else one.port,
        one.what,
        f"{one.entry.packet_count:,}",
        age_text(one.entry.age_s),
        "yes" if one.is_true else f"NO: {one.sentence}",
    )


def _list_json(found: RuleList, view: SwitchView) -> dict[str, Any]:
    return {
        "host": view.host,
        "rules": [brief_json(one) for one in found.rules],
        "not_understood": list(found.unreadable),
        "has_more": found.has_more,
        "rules_in_tables": found.held,
        "warnings": list(dict.fromkeys(view.problems)),
    }
