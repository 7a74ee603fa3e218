"""``ondemand doctor``: what is installed, what runs, what would fail, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from controller_app.config import AgentConfig, ConfigError, load_config
from controller_app.doctor_check import Check, Machine, Status
from controller_app.doctor_limits import Limits
from controller_app.doctor_machine import demo_checks, machine_checks
from controller_app.doctor_source import source_checks
from controller_app.doctor_switch import switch_checks
from controller_app.doctor_tunnel import tunnel_address
from controller_app.explain_hosts import Bindings
from controller_app.ovsdb_config import BridgeConfig
from controller_app.source_factory import open_source
from ondemand.slices import SliceRefusedError, SourceError, host_group_slice, host_slice


def run_checks(config_path: Path | None, machine: Machine | None = None) -> Iterator[Check]:
    """All checks, one after the other.

    ``config_path`` None: the machine and the switch are checked by the defaults, and no store is.
    """
    machine = machine or Machine()
    yield from machine_checks(machine)
    config: AgentConfig | None = None
    if config_path is None:
        yield Check("config", Status.OK, "none given, the defaults are checked")
    else:
        try:
            config = load_config(config_path)
        except ConfigError as error:
            yield Check("config", Status.FAIL, str(error), _mend(config_path))
        else:
            yield Check("config", Status.OK, f"{config_path} is sound")
    if config is None:
        yield from switch_checks(machine, BridgeConfig())
    else:
        yield from switch_checks(machine, config.bridge, Limits.of(config), config.host_id)
        found = list(source_checks(config))
        yield from found
        # What comes last is of the stream, and its failure would be told twice.
        if not found or found[-1].status is not Status.FAIL:
            check, told = _store(config)
            yield check
            yield tunnel_address(machine, config, told)
    yield from demo_checks(machine)


def _mend(path: Path) -> str:
    """What to do about a configuration that cannot be used."""
    try:
        with path.open("rb"):
            return "mend the file"
    except FileNotFoundError:
        return f"give the path of the agent's file, or make {path} as it says"
    except PermissionError:
        return "run doctor with sudo, or give this user read access to the file"
    except OSError:
        return "give the path of a file"


def _store(config: AgentConfig) -> tuple[Check, frozenset[bytes]]:
    """The slice store: readable, of a format that this release reads, and with this host in it; and at
    which tunnel addresses it has this host.
    """
    own_name = host_slice(config.host_id)
    try:
        with open_source(config) as store:
            store.check()
            found = f"{store.place}: format {store.format}"
            try:
                slices = store.summaries()
            except SliceRefusedError:
                # A host needs no right to see the others' slices, so it may not have it.
                found += ", this user may not list its slices and need not"
                is_known = store.snapshot(own_name).version > 0
            else:
                records = sum(one.records for one in slices)
                found += f", {len(slices)} slices, {records} records"
                is_known = any(one.name == own_name for one in slices)
            bindings = Bindings(store)
            own = len(bindings.of_host(config.host_id))
            shared = [host_group_slice(group.id) for group in bindings.groups(config.host_id)]
            told = bindings.tunnels_of(config.host_id)
    except SourceError as error:
        return Check("store", Status.FAIL, str(error)), frozenset()
    if not is_known:
        lacks = Check(
            "store",
            Status.WARN,
            f"{found}, none for host {config.host_id!r}",
            "set [host] id to the name of this host in the goal state, or publish one that names it",
        )
        return lacks, told
    groups = f" of its own, and those of {' and '.join(shared)}" if shared else ""
    text = f"{found}; ports on host {config.host_id}: {own}{groups}"
    return Check("store", Status.OK, text), told
