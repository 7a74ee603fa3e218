"""The configuration file of the agent (TOML), read and checked once, then never changed.

What may stand in it is told by the table in ``config_keys``. A file is either sound as a whole or
refused with all of its mistakes.
"""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controller_app.config_file import ConfigError, Values, read_file
from controller_app.config_keys import KEYS, Value
from controller_app.config_source import SOURCE_PATHS, nats_address, source_problems
from controller_app.log_limit import Warner
from controller_app.logs import LogConfig
from controller_app.nats_options import NatsAddress
from controller_app.ovsdb_config import BridgeConfig
from ondemand.addresses import AddressError, parse_ip
from ondemand.settings import Settings, SettingsError
from ondemand.slices import SliceNameError, check_id

__all__ = ["AgentConfig", "ConfigError", "build_config", "checked_values", "load_config"]

#: Where what the agent holds is saved unless the file says otherwise.
RUN_DIRECTORY: Final = Path("/run/ondemand")
#: Rules in one table that are always there: a few per local port.
STANDING_RULES: Final = 10_000


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What an agent is told at its start.

    Attributes:
        host_id: name of the host in the goal state.
        tunnel_ip: its tunnel address, 4 or 16 bytes.
        bridge: which bridge, and how.
        settings: of the engine.
        switch_table_rules: rules that the switch itself lets into one table.
        max_connections_per_port: connections in one port's conntrack zone; 0: no limit.
        source_kind: what kind of source it is, a key of ``source_factory.OPENERS``.
        source_file: the slice store of kind "sqlite"; None with another kind.
        source_poll_s: seconds between looks at it.
        source_nats: where the slices of kind "nats" are; None with another kind.
        log: how to log.
        metrics_file: where counters go; None: nowhere.
        metrics_s: seconds between writing them.
        holdings_file: where what is held outlives the agent; None: nowhere.
    """

    host_id: str
    tunnel_ip: bytes
    bridge: BridgeConfig
    settings: Settings
    switch_table_rules: int
    max_connections_per_port: int
    source_kind: str
    source_file: Path | None
    source_poll_s: float
    source_nats: NatsAddress | None
    log: LogConfig
    metrics_file: Path | None
    metrics_s: float
    holdings_file: Path | None

    def warner(self, logger: logging.Logger) -> Warner:
        """Logs the sentences given to it as warnings; one that repeats, a few times a minute."""
        return Warner(logger)


def load_config(path: Path) -> AgentConfig:
    """The configuration in ``path``.

    Raises:
        ConfigError: the file cannot be read, or with each of its mistakes.
    """
    return build_config(checked_values(path), path)


def checked_values(path: Path) -> Values:
    """The keys that the file gives, all of them sound.

    Raises:
        ConfigError: as ``load_config``.
    """
    parsed = read_file(path)
    # The sound keys of a broken file are checked further, so that it is mended in one go.
    problems = parsed.problems + _problems(parsed.values)
    if problems:
        raise ConfigError(str(path), problems)
    return parsed.values


def build_config(values: Values, path: Path) -> AgentConfig:
    """The configuration that the values of ``checked_values(path)`` make."""
    folder = path.absolute().parent

    def get(table: str, name: str) -> Value:
        given = values.get((table, name))
        return _default(table, name) if given is None else given

    def place(table: str, name: str) -> Path | None:
        given = values.get((table, name))
        return None if given is None else folder / str(given)

    settings = Settings(**_setting_fields(values))
    table_rules = values.get(("limits", "switch_table_rules"))
    kind = str(get("source", "kind"))
    return AgentConfig(
        host_id=str(values["host", "id"]),
        tunnel_ip=parse_ip(str(values["host", "tunnel_ip"])),
        bridge=BridgeConfig(**_bridge_fields(values)),
        settings=settings,
        switch_table_rules=int(
            settings.max_rules + STANDING_RULES if table_rules is None else table_rules
        ),
        max_connections_per_port=int(get("limits", "max_connections_per_port")),
        source_kind=kind,
        source_file=place("source", "file") if kind == "sqlite" else None,
        source_poll_s=float(get("source", "poll_ms")) / 1000,
        source_nats=nats_address(values, folder),
        log=LogConfig(str(get("log", "level")), str(get("log", "format")), place("log", "file")),
        metrics_file=place("metrics", "snapshot_file"),
        metrics_s=float(get("metrics", "interval_s")),
        holdings_file=_holdings_file(values, folder),
    )


def _holdings_file(values: Values, folder: Path) -> Path | None:
    given = values.get(("state", "holdings_file"))
    if given is None:
        return RUN_DIRECTORY / f"{values['host', 'id']}.holdings"
    return folder / str(given) if given else None


def _default(table: str, name: str) -> Value:
    """The default of a key that has one."""
    return next(
        key.default
        for key in KEYS
        if (key.table, key.name) == (table, name) and key.default is not None
    )


def _problems(values: Values) -> list[str]:
    """What is wrong with values beyond kind and range, and with what they are together."""
    problems = [*_host_problems(values), *_bridge_problems(values), *source_problems(values)]
    paths = [("source", name) for name in SOURCE_PATHS]
    for table, name in (*paths, ("log", "file"), ("metrics", "snapshot_file")):
        given = values.get((table, name))
        if given is not None and (given == "" or "\0" in str(given)):
            problems.append(f"[{table}] {name} = {given!r} is no path of a file")
    try:
        Settings(**_setting_fields(values))
    except SettingsError as error:
        problems.append(f"[limits] {error}")
    return problems


def _host_problems(values: Values) -> list[str]:
    problems = []
    host = values.get(("host", "id"))
    if host is not None:
        try:
            check_id("[host] id", str(host))
        except SliceNameError as error:
            problems.append(str(error))
    address = values.get(("host", "tunnel_ip"))
    if address is not None:
        try:
            parse_ip(str(address))
        except AddressError as error:
            problems.append(f"[host] tunnel_ip = {error}")
        else:
            parsed = ipaddress.ip_address(str(address))
            if parsed.is_multicast or parsed.is_unspecified:
                problems.append(f"[host] tunnel_ip = {address!r} is no address of one host")
    return problems


#: Keys of [bridge] whose field in BridgeConfig has another name.
_BRIDGE_FIELDS = {"name": "bridge"}


def _bridge_fields(values: Values) -> dict[str, Any]:
    return {
        _BRIDGE_FIELDS.get(name, name): value
        for (table, name), value in values.items()
        if table == "bridge"
    }


def _bridge_problems(values: Values) -> list[str]:
    fields = _bridge_fields(values)
    names = {field: name for name, field in _BRIDGE_FIELDS.items()}
    problems = []
    for field, value in fields.items():
        # Each alone, because BridgeConfig stops at the first mistake.
        problem = _bridge_problem({field: value}, names)
        if problem:
            problems.append(problem)
    if not problems:
        together = _bridge_problem(fields, names)
        problems = [together] if together else []
    controller = str(fields.get("controller", ""))
    if not problems and controller.startswith("tcp:"):
        address = controller[len("tcp:") :].rpartition(":")[0].strip("[]")
        if not ipaddress.ip_address(address).is_loopback:
            problems.append(
                f"[bridge] controller = {controller!r} can be reached from other hosts, and whoever"
                " reaches it controls the agent; use tcp:127.0.0.1:PORT or unix:/path"
            )
    return problems


def _bridge_problem(fields: dict[str, Any], names: dict[str, str]) -> str | None:
    try:
        BridgeConfig(**fields)
    except ValueError as error:
        field, _, reason = str(error).partition(": ")
        return f"[bridge] {names.get(field, field)} = {reason}"
    return None


def _setting_fields(values: Values) -> dict[str, Any]:
    """The fields of Settings. A port's share that is not given is no more than the whole."""
    names = Settings.names()
    fields: dict[str, Any] = {name: value for (_, name), value in values.items() if name in names}
    if ("rules", "match") in values:
        fields["match_connection"] = values["rules", "match"] == "connection"
    for share, whole in (
        ("max_rules_per_port", "max_rules"),
        ("max_parked_per_port", "max_parked"),
    ):
        limit = values.get(("limits", whole))
        if limit is not None and share not in fields:
            fields[share] = min(int(limit), int(_default("limits", share)))
    return fields
