"""Every key of the configuration file: its type, unit, default, range and meaning, in one table.

The reader (``config``) checks files by it, and the example (``config_example``) is written from it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from controller_app.logs import FORMATS, LEVELS
from controller_app.nats_options import DEFAULT_STREAM
from controller_app.ovsdb_config import DATAPATH_TYPES, BridgeConfig
from ondemand.settings import Settings

#: How a key's value is given in TOML.
Value = str | int | float | bool


class Kind(enum.Enum):
    """A TOML type; the value is what an error calls it."""

    STRING = "a string"
    INTEGER = "a whole number"
    NUMBER = "a number"
    BOOLEAN = "true or false"


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    ``default`` None: there is none; the file must give a ``required`` key and may leave out another.
    ``low`` and ``high`` bound a number, ``choices`` a string. ``sample`` stands in the example where
    there is no default. ``help`` is whole sentences. ``source``: the kind of source that the key is
    for; with another kind it may stand there and means nothing. Empty: any.
    """

    table: str
    name: str
    kind: Kind
    help: str
    default: Value | None = None
    required: bool = False
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    sample: Value = ""
    source: str = ""

    @property
    def place(self) -> str:
        """How errors call it."""
        return f"[{self.table}] {self.name}"

    @property
    def range(self) -> str:
        """The values that it may have, in words; empty when any of its kind will do."""
        if self.choices:
            return " | ".join(f'"{choice}"' for choice in self.choices)
        if self.low is not None and self.high is not None:
            return f"{self.low} .. {self.high}"
        return ""

    def holds(self, value: float) -> bool:
        """Whether a number is in the range; NaN is in none."""
        return self.low is None or self.high is None or self.low <= value <= self.high


#: What the tables are about, in the order of the example.
TABLES: Final = {
    "host": "This compute host.",
    "bridge": "The Open vSwitch bridge that the agent serves.",
    "source": "Where the goal state comes from.",
    "rules": "What rules match, and how long they stay.",
    "limits": "What one host, and one port of it, may take.",
    "state": "What outlives the agent.",
    "log": "What the agent says.",
    "metrics": "What the agent counts.",
}

#: Default of [source] kind.
SOURCE_KIND: Final = "sqlite"
#: Default of [limits] max_connections_per_port.
MAX_CONNECTIONS_PER_PORT: Final = 65_536

_BRIDGE: Final = BridgeConfig()
_SETTINGS: Final = Settings()


def _text(
    table: str, name: str, help_text: str, default: str | None, choices: tuple[str, ...] = ()
) -> Key:
    return Key(table, name, Kind.STRING, help_text, default, choices=choices)


def _number(
    table: str, name: str, unit: str, low: float, high: float, help_text: str, default: float | None
) -> Key:
    kind = Kind.NUMBER if isinstance(default, float) else Kind.INTEGER
    return Key(table, name, kind, help_text, default, unit=unit, low=low, high=high)


def _setting(table: str, name: str, unit: str, low: float, high: float, help_text: str) -> Key:
    return _number(table, name, unit, low, high, help_text, getattr(_SETTINGS, name))


KEYS: Final = (
    Key(
        *("host", "id", Kind.STRING),
        "Name of this host in the goal state: its ports are those of slice host/<id>.",
        required=True,
        sample="host-1",
    ),
    Key(
        *("host", "tunnel_ip", Kind.STRING),
        "Tunnel address of this host, as the goal state gives it: other hosts send to it.",
        required=True,
        sample="192.0.2.11",
    ),
    _text(
        *("bridge", "name"),
        "The bridge, at most 15 bytes. It is created when there is none. A port of a VM is known by"
        " external_ids:iface-id of its interface, which names the port in the goal state.",
        _BRIDGE.bridge,
    ),
    _text(
        *("bridge", "ovsdb"),
        "Address of ovsdb-server: unix:/path or tcp:address:port.",
        _BRIDGE.ovsdb,
    ),
    _text(
        *("bridge", "datapath_type"),
        "system is the kernel module, netdev is userspace; auto takes what the bridge has, and for a"
        " new bridge what works on this host.",
        _BRIDGE.datapath_type,
        DATAPATH_TYPES,
    ),
    _text(
        *("bridge", "tunnel_port"),
        "The VXLAN port on the bridge, at most 15 bytes. It is created when there is none.",
        _BRIDGE.tunnel_port,
    ),
    Key(
        *("bridge", "tunnel_local_ip", Kind.STRING),
        "Source address of tunnel packets. Left out: as the host routes them.",
        sample="192.0.2.11",
    ),
    Key(
        *("bridge", "tunnel_dst_port", Kind.INTEGER),
        "UDP port of the tunnel. Left out: 4789 (RFC 7348).",
        low=1,
        high=65535,
        sample=4789,
    ),
    _text(
        *("bridge", "controller"),
        "Where the agent listens and the bridge connects to: tcp:address:port with an address of this"
        " host that others do not reach (OpenFlow has no password), or unix:/path in the run directory"
        " of ovs-vswitchd, e.g. unix:/run/openvswitch/ondemand.sock.",
        _BRIDGE.controller,
    ),
    Key(
        *("bridge", "take_over", Kind.BOOLEAN),
        "Replace the controller, datapath type and tunnel options that somebody else has set on the"
        " bridge, instead of refusing to start.",
        _BRIDGE.take_over,
    ),
    _text(
        *("source", "kind"),
        "sqlite: a slice store in a file of this host. nats: a stream of a NATS server (JetStream).",
        SOURCE_KIND,
        ("sqlite", "nats"),
    ),
    Key(
        *("source", "file", Kind.STRING),
        "The slice store. A relative path starts at the folder of this file.",
        required=True,
        sample="/var/lib/ondemand/slices.db",
        source="sqlite",
    ),
    _number(
        *("source", "poll_ms", "milliseconds", 1, 10_000),
        "How often the store is looked at for changes; a look costs about 10 microseconds.",
        5,
    ),
    Key(
        *("source", "servers", Kind.STRING),
        "Servers of NATS, with commas between them; any of them will do. tls:// asks for TLS.",
        required=True,
        sample="nats://192.0.2.1:4222, nats://192.0.2.2:4222",
        source="nats",
    ),
    _text("source", "stream", "Stream that holds the slices.", DEFAULT_STREAM),
    Key(*("source", "user", Kind.STRING), "User of NATS. Left out: none.", sample="host-1"),
    Key(
        *("source", "password_file", Kind.STRING),
        "Its first line is the password of user. A relative path starts at the folder of this file.",
        sample="/etc/ondemand/nats.password",
    ),
    Key(
        *("source", "credentials", Kind.STRING),
        "Credentials file of a NATS user (JWT and seed); needs the Python package nkeys.",
        sample="/etc/ondemand/nats.creds",
    ),
    Key(
        *("source", "tls_ca", Kind.STRING),
        "Certificate authority of the servers (PEM). Left out: those of the system.",
        sample="/etc/ondemand/ca.pem",
    ),
    Key(
        *("source", "tls_cert", Kind.STRING),
        "Certificate of this host (PEM), for servers that ask for one.",
        sample="/etc/ondemand/host.pem",
    ),
    Key(
        *("source", "tls_key", Kind.STRING),
        "Key of tls_cert (PEM).",
        sample="/etc/ondemand/host.key",
    ),
    _text(
        *("rules", "match"),
        'What a verdict rule matches. "service": all that security rules read, which is not the'
        ' client\'s port, so one rule serves all connections to a service. "connection": the whole'
        " 5-tuple.",
        "service",
        ("service", "connection"),
    ),
    _setting(
        *("rules", "table_base", "", 0, 163),
        "First OpenFlow table of the pipeline, which takes this one and the 90 after it.",
    ),
    _setting(
        *("rules", "verdict_idle_s", "seconds", 1, 65535),
        "A verdict rule leaves after so long without a packet.",
    ),
    _setting(
        *("rules", "location_idle_s", "seconds", 1, 65535),
        "A location rule leaves after so long without a packet.",
    ),
    _setting(
        *("rules", "responder_idle_s", "seconds", 1, 65535),
        "An ARP or neighbor discovery answer leaves after so long without a question.",
    ),
    _setting(
        *("rules", "deny_s", "seconds", 1, 3600),
        "A denied flow, or one to an unknown destination, is dropped in the switch for so long before"
        " it is looked at again.",
    ),
    _setting(
        *("rules", "outage_deny_s", "seconds", 1, 3600),
        "The same while the source of the goal state does not answer.",
    ),
    _setting(*("limits", "max_rules", "rules", 100, 10_000_000), "On-demand rules in all."),
    _setting(
        *("limits", "max_rules_per_port", "rules", 10, 10_000_000),
        "On-demand rules on one port's account, at most max_rules. Left out: no more than max_rules.",
    ),
    Key(
        *("limits", "switch_table_rules", Kind.INTEGER),
        "Rules in one table of the switch, the last resort behind max_rules: a full table drops rules of"
        " the port (where neighbors are: of the subnet) that has most in it. Left out: max_rules, and"
        " room for 10000 rules that are always there.",
        unit="rules",
        low=100,
        high=20_000_000,
        sample=210_000,
    ),
    _number(
        *("limits", "max_connections_per_port", "connections", 0, 10_000_000),
        "Connections of one port that the switch tracks. Past that no reply to a new one passes, and no"
        " other port feels it. 0 sets no limit.",
        MAX_CONNECTIONS_PER_PORT,
    ),
    _setting(
        *("limits", "meter_rate", "packets per second", 0, 10_000_000),
        "Packets of one port that the switch hands to the agent; 0 sets no meter.",
    ),
    _setting(
        *("limits", "meter_burst", "packets", 1, 10_000_000),
        "Packets of one port that may come at once before meter_rate counts.",
    ),
    _setting(
        *("limits", "admission_rate", "packets per second", 1, 10_000_000),
        "Packets of one port that the agent handles, a second line behind the meter.",
    ),
    _setting(
        *("limits", "admission_burst", "packets", 1, 10_000_000),
        "Packets of one port that are handled at once before admission_rate counts.",
    ),
    _setting(
        *("limits", "flood_rate", "packets per second", 1, 10_000_000),
        "Packets of one port, those that lead nowhere counted four times, beyond which its new flows are"
        " put in quarantine.",
    ),
    _setting(
        *("limits", "flood_burst", "packets", 1, 10_000_000),
        "Packets of one port, counted so, that may come at once before flood_rate counts.",
    ),
    _setting(
        *("limits", "quarantine_max_s", "seconds", 0, 3600),
        "The longest quarantine of a port that floods; 0 switches quarantine off.",
    ),
    _setting(
        *("limits", "max_parked", "packets", 1, 1_000_000),
        "Packets that wait for a record, in all.",
    ),
    _setting(
        *("limits", "max_parked_per_port", "packets", 1, 1_000_000),
        "Packets of one port that wait for a record. Left out: no more than max_parked.",
    ),
    _setting(
        *("limits", "park_s", "seconds", 0.01, 60),
        "A packet waits so long for a record before it is dropped.",
    ),
    _setting(
        *("limits", "neighbor_cache_bytes", "bytes", 65_536, 1 << 36),
        "Neighbor records that are kept, the least recently used go first.",
    ),
    _setting(
        *("limits", "neighbor_idle_s", "seconds", 0, 86_400),
        "A neighbor record that no packet asks for and no rule rests on is kept for so long, and up to"
        " half as long again; 0 keeps it while there is room.",
    ),
    Key(
        *("state", "holdings_file", Kind.STRING),
        "What the agent holds of the goal state is saved there, so that after a restart it asks for the"
        " changes only. A power failure may take it. Left out: /run/ondemand/<host id>.holdings; empty:"
        " nothing is saved. A relative path starts at the folder of this file.",
        sample="/run/ondemand/host-1.holdings",
    ),
    _text("log", "level", "The least severe events that are logged.", "info", LEVELS),
    _text(
        "log", "format", "text for people, json for programs; a line per event.", "text", FORMATS
    ),
    Key(
        *("log", "file", Kind.STRING),
        "Left out: standard error. A relative path starts at the folder of this file.",
        sample="/var/log/ondemand.log",
    ),
    Key(
        *("metrics", "snapshot_file", Kind.STRING),
        "Counters are written there as JSON, always as a whole file. Left out: nowhere. A relative path"
        " starts at the folder of this file.",
        sample="/run/ondemand/metrics.json",
    ),
    _number(
        *("metrics", "interval_s", "seconds", 0.2, 3600),
        "How often counters are written.",
        10.0,
    ),
)
