"""``ondemand explain``: what becomes of a packet, and why."""

from __future__ import annotations

from pathlib import Path

import click

from controller_app.cli_support import CommandError, errors_to_exit, print_json
from controller_app.explain import explain
from controller_app.explain_flow import FlowError
from controller_app.explain_store import ExplainError
from controller_app.explain_text import json_of, text_of
from controller_app.sqlite_store import SqliteStore


@click.command("explain")
@click.option(
    "--store",
    "store_path",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The slice store, an SQLite file.",
)
@click.option("--port", "port_id", required=True, metavar="ID", help="The port that sends.")
@click.option(
    "--host", metavar="HOST", help="Where the port is bound; by default, where the store has it."
)
@click.option(
    "--match",
    type=click.Choice(["service", "connection"]),
    default="service",
    show_default=True,
    help="What verdict rules match, as in [rules] of the agent's configuration.",
)
@click.option(
    "--reply",
    is_flag=True,
    help="The packet answers one that came in; it is judged like the connection that it belongs to.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
@click.argument("flow", metavar="FLOW")
def command(
    store_path: Path,
    port_id: str,
    host: str | None,
    match: str,
    flow: str,
    *,
    reply: bool,
    as_json: bool,
) -> None:
    """Say what becomes of a packet that a port sends, and why.

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

    \b
    Examples, after ondemand slices publish examples/two-subnets.yaml --store slices.db:
      ondemand explain --store slices.db --port web-1 'tcp,nw_dst=10.0.2.10,tp_dst=5432'
      ondemand explain --store slices.db --port web-1 'icmp6,ipv6_dst=fd00:1::11'
      ondemand explain --store slices.db --port database-1 --reply \\
          'tcp,nw_dst=10.0.1.10,tp_src=5432'
      ondemand explain --store slices.db --port web-1 'arp,arp_tpa=10.0.1.1'

    Exit code: 0 allowed, 1 denied, 2 error.
    """  # noqa: D301 - click reads the \b
    try:
        with errors_to_exit(), SqliteStore(store_path) as store:
            found = explain(
                store,
                port_id,
                flow,
                host=host,
                match_connection=match == "connection",
                reply=reply,
            )
    except (FlowError, ExplainError) as error:
        raise CommandError(str(error)) from error
    if as_json:
        print_json(json_of(found))
    else:
        click.echo(text_of(found))
    click.get_current_context().exit(0 if found.denial is None else 1)
