"""``ondemand explain``: what becomes of a packet, and why; or why a rule is in the switch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from controller_app.cli_support import HELP, CommandError, errors_to_exit, print_json
from controller_app.config import AgentConfig, ConfigError, load_config
from controller_app.explain import explain
from controller_app.explain_flow import FlowError
from controller_app.explain_hosts import ExplainError, Store
from controller_app.explain_text import json_of, text_of
from controller_app.source_factory import SliceStore, open_source, open_store
from controller_app.switch_query import SwitchQueryError


@click.command("explain", context_settings=HELP)
@click.option(
    "--store",
    "place",
    metavar="FILE|URL",
    help="The slice store: an SQLite file, or nats://HOST:PORT[/STREAM]; by default, that of --config.",
)
@click.option(
    "--port",
    "port_id",
    metavar="ID",
    help="The port that sends; with --rules, list the rules of this port only.",
)
@click.option(
    "--host",
    metavar="HOST",
    help="Where the port is bound, or which host's switch it is; by default, as the store has it.",
)
@click.option(
    "--match",
    type=click.Choice(["service", "connection"]),
    help="What verdict rules match, as in [rules] of the agent's configuration.  [default: service]",
)
@click.option(
    "--reply",
    is_flag=True,
    help="The packet answers one that came in; it is judged like the connection that it belongs to.",
)
@click.option(
    "--rule", "cookie", metavar="COOKIE", help="Explain the rule of the switch with this cookie."
)
@click.option(
    "--rules", "lists_rules", is_flag=True, help="List the rules of the switch that traffic made."
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    metavar="N",
    help="Most rules that --rules lists; 0: all.",
)
@click.option("--bridge", metavar="NAME", help="The bridge to ask.  [default: br-int]")
@click.option(
    "--switch",
    metavar="unix:/PATH",
    help="Its management socket, when it is not BRIDGE.mgmt in Open vSwitch's run directory.",
)
@click.option(
    "--table-base",
    type=int,
    metavar="N",
    help="The first table of the agent, as in its configuration.  [default: 0]",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The agent's configuration, for all that is not said here: store, host, bridge, rules.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
@click.argument("flow", metavar="[FLOW]", required=False)
def command(
    *,
    place: str | None,
    port_id: str | None,
    host: str | None,
    match: str | None,
    flow: str | None,
    cookie: str | None,
    limit: int,
    bridge: str | None,
    switch: str | None,
    table_base: int | None,
    config_path: Path | None,
    reply: bool,
    lists_rules: bool,
    as_json: bool,
) -> None:
    """Say what becomes of a packet that a port sends, or why a rule is in the switch.

    FLOW is the packet in the syntax of ovs-ofctl: protocol and fields. Each decision on its way is
    shown with all that it reads, in order, then the OpenFlow rules that the agents would install.
    No switch and no agent is asked: the code that decides in the agent runs here, on the store.

    What FLOW leaves out is what the VM would choose: its own MAC and first fixed IP, a client port,
    an echo request, and as dl_dst what ARP or neighbor discovery answers.

    \b
    Fields:
      tcp udp sctp icmp ip, tcp6 udp6 sctp6 icmp6 ipv6, arp, nw_proto=NUMBER
      dl_src dl_dst, nw_src nw_dst, ipv6_src ipv6_dst, arp_spa arp_tpa, nd_target
      tp_src tp_dst (also tcp_dst, udp_dst, ...), icmp_type icmp_code

    With --rule, the rule comes from the switch (as root; the agent is not asked and need not run):
    what it does, the decision that made it, whether that decision would be the same today, and what
    would remove it. COOKIE is what ovs-ofctl dump-flows shows. --rules lists all of them.

    \b
    Examples, after ondemand slices publish examples/two-subnets.yaml --store slices.db:
      ondemand explain --store slices.db --port web-1 'tcp,nw_dst=10.0.2.10,tp_dst=5432'
      ondemand explain --store slices.db --port web-1 'icmp6,ipv6_dst=fd00:1::11'
      ondemand explain --store slices.db --port database-1 --reply \\
          'tcp,nw_dst=10.0.1.10,tp_src=5432'
      ondemand explain --store slices.db --port web-1 'arp,arp_tpa=10.0.1.1'
      ondemand explain --store slices.db --rules --port web-1
      ondemand explain --store slices.db --rule 0x0d5e011e00000123
      ondemand explain --config /etc/ondemand/agent.toml --rules --json

    Exit code: 0 allowed, or each rule shown is true today; 1 denied, or one is not; 2 error.
    """  # noqa: D301 - click reads the \b
    _check_question(port_id, flow, cookie, lists_rules=lists_rules, reply=reply)
    if flow is not None and (bridge or switch or table_base is not None):
        raise click.UsageError("--bridge, --switch and --table-base go with --rule and --rules")
    if bridge and switch:
        raise click.UsageError("--switch names the socket of one bridge; leave out --bridge")
    try:
        config = None if config_path is None else load_config(config_path)
        with errors_to_exit(), _open(place, config) as store:
            if flow is not None and port_id is not None:
                if match is None and config is not None:
                    match = "connection" if config.settings.match_connection else "service"
                code = _packet(
                    store,
                    port_id,
                    flow,
                    host=host,
                    match_connection=match == "connection",
                    reply=reply,
                    tunnel_ips={} if config is None else {config.host_id: config.tunnel_ip},
                    as_json=as_json,
                )
            else:
                from controller_app.cli_explain_rule import (
                    SwitchChoice,
                    explain_rule,
                    explain_rules,
                )

                choice = SwitchChoice(
                    config=config,
                    bridge=bridge,
                    socket=switch,
                    host=host,
                    table_base=table_base,
                    match_connection=None if match is None else match == "connection",
                )
                if cookie is not None:
                    code = explain_rule(store, choice, cookie, as_json=as_json)
                else:
                    code = explain_rules(
                        store, choice, port_id=port_id, limit=limit, as_json=as_json
                    )
    except (ConfigError, FlowError, ExplainError, SwitchQueryError) as error:
        raise CommandError(str(error)) from error
    click.get_current_context().exit(code)


def _check_question(
    port_id: str | None,
    flow: str | None,
    cookie: str | None,
    *,
    lists_rules: bool,
    reply: bool,
) -> None:
    """One question at a time: a packet, a rule, or all rules."""
    asked = [
        name
        for name, is_asked in (
            ("FLOW", flow is not None),
            ("--rule", cookie is not None),
            ("--rules", lists_rules),
        )
        if is_asked
    ]
    if len(asked) > 1:
        raise click.UsageError(f"ask one thing at a time, not {' and '.join(asked)}")
    if not asked:
        raise click.UsageError("missing argument 'FLOW', or --rule COOKIE, or --rules")
    if flow is not None and port_id is None:
        raise click.UsageError("missing option '--port', the port that sends")
    if cookie is not None and port_id is not None:
        raise click.UsageError("--port does not go with --rule, which tells its port itself")
    if flow is None and reply:
        raise click.UsageError("--reply goes with FLOW")


def _open(place: str | None, config: AgentConfig | None) -> SliceStore:
    if place is not None:
        return open_store(place)
    if config is None:
        raise click.UsageError("missing option '--store', or --config with the agent's")
    return open_source(config)


def _packet(
    store: Store,
    port_id: str,
    flow: str,
    *,
    host: str | None,
    match_connection: bool,
    reply: bool,
    tunnel_ips: Mapping[str, bytes],
    as_json: bool,
) -> int:
    found = explain(
        store,
        port_id,
        flow,
        host=host,
        match_connection=match_connection,
        reply=reply,
        tunnel_ips=tunnel_ips,
    )
    if as_json:
        print_json(json_of(found))
    else:
        click.echo(text_of(found))
    return 0 if found.denial is None else 1
