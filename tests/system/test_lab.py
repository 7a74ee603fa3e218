"""The lab itself: hosts, underlay, VMs and traffic, without an agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mininet_topos.errors import CommandError, LabConfigError, LabError
from mininet_topos.fabric import Fabric
from mininet_topos.node import LabNode
from mininet_topos.ovs_host import ComputeHost
from mininet_topos.processes import pids_of_run
from mininet_topos.sweep import sweep
from mininet_topos.vm import Vm, VmSpec

REPOSITORY = Path(__file__).parents[2]
MULTICAST = "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00"


def spec(number: int, name: str = "") -> VmSpec:
    return VmSpec(
        name or f"vm{number}",
        f"02:00:00:00:00:{number:02x}",
        (f"10.0.0.{number}/24", f"fd00::{number}/64"),
    )


def to_remote(vm: Vm) -> str:
    return f"set_field:100->tun_id,set_field:{vm.host.tunnel_ip}->tun_dst,output:vxlan0"


def program_static_flows(vms: list[Vm]) -> None:
    """One learning-free L2 domain of the VMs given, whichever hosts they are on."""
    for host in {vm.host.label: vm.host for vm in vms}.values():
        local = [vm for vm in vms if vm.host is host]
        remote = [vm for vm in vms if vm.host is not host]
        to_local = ",".join(f"output:{vm.ofport}" for vm in local)
        host.add_flows(
            "br-int",
            *(f"priority=10,dl_dst={vm.spec.mac},actions=output:{vm.ofport}" for vm in local),
            *(f"priority=10,dl_dst={vm.spec.mac},actions={to_remote(vm)}" for vm in remote),
            f"priority=6,in_port=vxlan0,{MULTICAST},actions={to_local}",
            f"priority=5,{MULTICAST},actions={','.join([to_local, *map(to_remote, remote)])}",
        )


def two_hosts(fabric: Fabric) -> tuple[Vm, Vm]:
    """One VM on each of two hosts, joined by static flows."""
    for host in fabric.hosts:
        host.create_integration_bridge()
    placed = [(host, spec(number)) for number, host in enumerate(fabric.hosts, 1)]
    vms = fabric.add_vms(placed, iface_ids=[f"port-{vm.name}" for _, vm in placed])
    program_static_flows(vms)
    return vms[0], vms[1]


def namespace_of(node: LabNode) -> int:
    return Path(f"/proc/{node.pid}/ns/net").stat().st_ino


def live_namespaces() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.add((entry / "ns/net").stat().st_ino)
            except OSError:
                continue
    return found


def root_interfaces() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


@pytest.mark.parametrize("underlay", ["bridge", "ovs"])
def test_ping_tcp_and_udp_cross_the_tunnel(make_fabric, underlay):
    try:
        fabric = make_fabric(hosts=2, underlay=underlay)
    except CommandError as error:
        if underlay == "bridge" and "type bridge" in str(error):
            pytest.skip("the kernel has no bridge")
        raise
    left, right = two_hosts(fabric)
    right.serve(tcp=[80], udp=[53])
    for address in right.ips:
        assert left.ping(address, count=2, interval_s=0.05).all_answered
        full = left.ping(address, size=1450 - 8 - (40 if ":" in address else 20))
        assert full.all_answered, "a packet of the full MTU must fit into the tunnel"
        assert left.tcp_connect(address, 80)
        attempts = left.tcp_attempts(address, 80, count=3, echo=True)
        assert [attempt.connected for attempt in attempts] == [True] * 3
        assert left.udp_request(address, 53, count=3, size=1000).all_answered
    assert "n_packets=0" not in left.host.dump_flows(match=f"dl_dst={right.spec.mac}")[0]


def test_what_is_not_there_does_not_answer(make_fabric):
    left, right = two_hosts(make_fabric(hosts=2))
    right.serve(tcp=[80])
    nobody = left.ping("10.0.0.99", count=2, interval_s=0.05, timeout_s=0.3)
    assert (nobody.sent, nobody.received, nobody.rtts_ms) == (2, 0, ())
    (refused,) = left.tcp_attempts(right.ip_of(4), 81)
    assert (refused.connected, refused.error) == (False, "refused")
    assert left.udp_request(right.ip_of(6), 53, timeout_s=0.3).received == 0
    with pytest.raises(CommandError, match="unreachable"):
        left.ping("10.9.9.9")
    left.host.add_flows("br-int", f"priority=20,dl_dst={right.spec.mac},actions=drop")
    (lost,) = left.tcp_attempts(right.ip_of(4), 80, timeout_s=0.3)
    assert (lost.connected, lost.error) == (False, "timeout")


def test_a_stream_tells_a_cut_connection_from_a_live_one(make_fabric):
    left, right = two_hosts(make_fabric(hosts=2))
    right.serve(tcp=[80, 81])
    cut, kept = left.stream(right.ip_of(4), 80), left.stream(right.ip_of(6), 81)
    drop = f"tcp,dl_dst={right.spec.mac},tp_dst=80"
    left.host.add_flows("br-int", f"priority=20,{drop},actions=drop")
    cut.bytes_during(0.2)  # what was on its way
    assert cut.bytes_during(0.5) == 0
    assert kept.bytes_during(0.5) > 0
    left.host.ofctl("--strict", "del-flows", "br-int", f"priority=20,{drop}")
    assert cut.wait_for_progress(timeout_s=5.0), "TCP tries again when the way is open"
    cut.stop()
    kept.stop()
    assert not kept.process.running


def test_an_unplugged_vm_is_silent_until_it_is_plugged_again(make_fabric):
    left, right = two_hosts(make_fabric(hosts=2))
    assert left.ping(right.ip_of(4)).all_answered
    right.unplug()
    right.unplug()
    assert left.ping(right.ip_of(4), timeout_s=0.3).received == 0
    assert "tap-vm2" not in right.host.vsctl("list-ports", "br-int")
    right.plug("port-again")
    program_static_flows([left, right])
    assert left.ping(right.ip_of(4)).all_answered
    identity = right.host.vsctl("get", "Interface", right.tap, "external_ids:iface-id")
    assert identity.strip() == "port-again"


def test_a_vm_can_be_deleted_and_made_anew_under_its_name(make_fabric):
    fabric = make_fabric(hosts=2)
    left, right = two_hosts(fabric)
    with pytest.raises(LabConfigError, match="taken"):
        fabric.add_vm(right.host, spec(2))
    fabric.remove_vm(right)
    again = fabric.add_vm(right.host, spec(2), iface_id="port-new")
    program_static_flows([left, again])
    assert left.ping(again.ip_of(6)).all_answered


def test_plugging_without_br_int_names_it(make_fabric):
    fabric = make_fabric(hosts=1)
    vm = fabric.add_vm(fabric.hosts[0], spec(1))
    with pytest.raises(CommandError, match="br-int"):
        vm.plug("port-1")


def test_the_tunnel_works_again_after_the_daemons_were_ended(make_fabric):
    fabric = make_fabric(hosts=2)
    left, right = two_hosts(fabric)
    host = left.host
    for end in (host.stop_vswitchd, host.kill_vswitchd):
        end()
        assert host.vswitchd_pid is None
        assert host.memory_kib() == 0
        assert left.ping(right.ip_of(4), timeout_s=0.3).received == 0
        host.start_vswitchd()
        program_static_flows([left, right])
        assert left.ping(right.ip_of(4), count=2, interval_s=0.05).all_answered
    before = host.rule_count()
    host.restart_ovsdb()
    assert left.ping(right.ip_of(6)).all_answered
    host.vsctl("set", "Open_vSwitch", ".", "external_ids:seen=1", timeout_s=20)
    assert host.rule_count() == before == len(host.dump_flows())
    assert host.memory_kib() > 1000


def test_three_hosts_with_twelve_vms_reach_each_other(make_fabric):
    fabric = make_fabric(hosts=3)
    for host in fabric.hosts:
        host.create_integration_bridge()
    placed = [(fabric.hosts[number % 3], spec(number + 1)) for number in range(12)]
    vms = fabric.add_vms(placed, iface_ids=[vm.name for _, vm in placed])
    program_static_flows(vms)
    for vm in vms[1:]:
        assert vms[0].ping(vm.ip_of(4)).all_answered
        assert vms[0].ping(vm.ip_of(6)).all_answered


def test_mininets_own_commands_work_on_a_node(make_fabric):
    fabric = make_fabric(hosts=1)
    vm = fabric.add_vm(fabric.hosts[0], spec(1))
    assert "10.0.0.1" in vm.cmd("ip -4 address show eth0")
    with vm.popen(["ip", "-6", "address", "show", "eth0"]) as process:
        assert b"fd00::1" in process.stdout.read()


def test_nothing_is_left_after_the_end(make_fabric):
    interfaces = root_interfaces()
    fabric = make_fabric(hosts=2)
    left, right = two_hosts(fabric)
    right.serve(tcp=[80])
    left.stream(right.ip_of(4), 80)
    left.cmd("sleep 1000 &")  # known to no one but the node's shell
    left.spawn("stubborn", ["sh", "-c", "trap '' TERM; setsid sleep 1000 & sleep 1000"])
    nodes = [*fabric.hosts, *fabric.vms.values()]
    namespaces = {namespace_of(node) for node in nodes}
    assert len(namespaces) == 4
    assert namespaces <= live_namespaces()
    assert root_interfaces() <= interfaces, "veths are born inside the namespaces"
    assert len(pids_of_run(fabric.run.id)) > 10
    fabric.close()
    fabric.close()
    assert pids_of_run(fabric.run.id) == []
    assert not namespaces & live_namespaces()
    assert not fabric.run.directory.exists()
    assert root_interfaces() <= interfaces


def test_nothing_is_left_when_building_fails_half_way(lab_machine, monkeypatch):
    def fail(host: ComputeHost) -> None:
        if host.label == "h2":
            raise LabError("no cable")

    monkeypatch.setattr(ComputeHost, "connect_underlay_nic", fail)
    fabric = Fabric(hosts=3)
    with pytest.raises(LabError, match="no cable"):
        fabric.__enter__()
    assert len(fabric.hosts) == 3, "it had got as far as that"
    assert pids_of_run(fabric.run.id) == []
    assert not fabric.run.directory.exists()


def test_two_fabrics_live_side_by_side(make_fabric):
    first, second = make_fabric(hosts=2), make_fabric(hosts=2)
    one, other = two_hosts(first), two_hosts(second)
    assert one[0].name != other[0].name
    first.close()
    assert other[0].ping(other[1].ip_of(4)).all_answered


OWNER = """
import signal, sys
from mininet_topos.fabric import Fabric
from mininet_topos.vm import VmSpec

def tell(text):
    print(text, flush=True)

with Fabric(hosts=2, progress=tell) as fabric:
    vm = fabric.add_vm(fabric.hosts[0], VmSpec("vm1", "02:00:00:00:00:01", ("10.0.0.1/24",)))
    vm.serve(tcp=[80])
    tell("up")
    signal.pause()
"""


def start_owner(tmp_path: Path, until: str) -> tuple[subprocess.Popen[str], str]:
    """A lab in a process of its own that has said ``until``; with the id of its run."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if until in line:
            break
    (directory,) = tmp_path.iterdir()
    return process, directory.name.removeprefix("ondemand-")


@pytest.fixture
def short_tmp_path(lab_machine):
    with tempfile.TemporaryDirectory(prefix="odt") as name:
        yield Path(name)


@pytest.mark.parametrize("until", ["compute hosts", "up"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_owner_ends_all(short_tmp_path, number, until):
    process, run_id = start_owner(short_tmp_path, until)
    with process:
        process.send_signal(number)
        try:
            code = process.wait(30)
        finally:
            process.kill()
    # Python itself ends by SIGINT after KeyboardInterrupt.
    assert code == (-number if number == signal.SIGINT else 128 + number)
    assert pids_of_run(run_id) == []
    assert list(short_tmp_path.iterdir()) == []


def test_sweep_removes_a_killed_run_and_no_other(make_fabric, short_tmp_path, monkeypatch):
    process, run_id = start_owner(short_tmp_path, "up")
    with process:
        process.kill()
        process.wait(10)
    assert pids_of_run(run_id) != [], "daemons outlive their owner"
    monkeypatch.setattr(tempfile, "tempdir", str(short_tmp_path))
    other = make_fabric(hosts=1)
    stranger = short_tmp_path / "ondemand-stranger"
    stranger.mkdir()
    (stranger / "owner.json").write_text(json.dumps({"pid": 1}))
    swept = sweep()
    assert swept.run_ids == (run_id,)
    assert swept.processes > 0
    assert pids_of_run(run_id) == []
    kept = {path.name for path in short_tmp_path.iterdir()}
    assert kept == {"ondemand-stranger", other.run.directory.name}
    assert other.hosts[0].vswitchd_pid is not None
    assert sweep().run_ids == ()
    other.close()
