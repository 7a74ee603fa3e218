"""A plain os-ken app, as its tutorials write them: a learning switch with one exact rule per flow.

It has no policy and no conntrack. It is what people compare with when they say that a controller in
Python is slow.

    python -m benchmarks.stock_app --port PORT
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import Any

from os_ken import cfg
from os_ken.base import app_manager
from os_ken.controller import ofp_event
from os_ken.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.lib.packet import ethernet, ipv4, packet, tcp, udp
from os_ken.ofproto import ofproto_v1_3

IDLE_TIMEOUT_S = 60


class StockApp(app_manager.OSKenApp):
    """A learning switch for OpenFlow 1.3."""

    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]  # noqa: RUF012 - os-ken wants this very attribute

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.port_of: dict[int, dict[str, int]] = {}

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def switch_features(self, event: Any) -> None:
        """Send what no rule knows to the controller."""
        datapath = event.msg.datapath
        parser, ofproto = datapath.ofproto_parser, datapath.ofproto
        actions = [parser.OFPActionOutput(ofproto.OFPP_CONTROLLER, ofproto.OFPCML_NO_BUFFER)]
        self._add_rule(datapath, 0, parser.OFPMatch(), actions, idle_timeout=0)

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def packet_in(self, event: Any) -> None:
        """Learn the source, install a rule for the flow, send the packet on."""
        message = event.msg
        datapath = message.datapath
        parser, ofproto = datapath.ofproto_parser, datapath.ofproto
        in_port = message.match["in_port"]
        parsed = packet.Packet(message.data)
        frame = parsed.get_protocol(ethernet.ethernet)
        ports = self.port_of.setdefault(datapath.id, {})
        ports[frame.src] = in_port
        out_port = ports.get(frame.dst, ofproto.OFPP_FLOOD)
        actions = [parser.OFPActionOutput(out_port)]
        if out_port != ofproto.OFPP_FLOOD:
            self._add_rule(
                datapath, 1, self._match(parser, in_port, frame, parsed), actions, IDLE_TIMEOUT_S
            )
        datapath.send_msg(
            parser.OFPPacketOut(
                datapath=datapath,
                buffer_id=ofproto.OFP_NO_BUFFER,
                in_port=in_port,
                actions=actions,
                data=message.data,
            )
        )

    @staticmethod
    def _match(parser: Any, in_port: int, frame: Any, parsed: Any) -> Any:
        fields = {"in_port": in_port, "eth_src": frame.src, "eth_dst": frame.dst}
        ip = parsed.get_protocol(ipv4.ipv4)
        if ip is not None:
            fields |= {
                "eth_type": frame.ethertype,
                "ipv4_src": ip.src,
                "ipv4_dst": ip.dst,
                "ip_proto": ip.proto,
            }
            for name, kind in (("tcp", tcp.tcp), ("udp", udp.udp)):
                transport = parsed.get_protocol(kind)
                if transport is not None:
                    fields |= {
                        f"{name}_src": transport.src_port,
                        f"{name}_dst": transport.dst_port,
                    }
        return parser.OFPMatch(**fields)

    @staticmethod
    def _add_rule(
        datapath: Any, priority: int, match: Any, actions: list[Any], idle_timeout: int
    ) -> None:
        parser, ofproto = datapath.ofproto_parser, datapath.ofproto
        instructions = [parser.OFPInstructionActions(ofproto.OFPIT_APPLY_ACTIONS, actions)]
        datapath.send_msg(
            parser.OFPFlowMod(
                datapath=datapath,
                priority=priority,
                match=match,
                instructions=instructions,
                idle_timeout=idle_timeout,
            )
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stock_app")
    parser.add_argument("--port", type=int, required=True, help="TCP port to listen on")
    parser.add_argument("--listen", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    cfg.CONF([], project="stock", default_config_files=[])
    manager = app_manager.AppManager.get_instance()
    manager.load_apps(["benchmarks.stock_app", "os_ken.controller.ofp_handler"])
    cfg.CONF.set_override("ofp_listen_host", options.listen)
    cfg.CONF.set_override("ofp_tcp_listen_port", options.port)
    manager.instantiate_apps(**manager.create_contexts())
    stop.wait()
    return 0


if __name__ == "__main__":
    # os-ken's threads are no daemons; only the end of the process ends them.
    import os

    code = main()
    sys.stdout.flush()
    os._exit(code)
