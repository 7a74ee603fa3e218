"""Two VPCs with the same addresses, MACs and names of everything they may share never meet."""

from __future__ import annotations

from tests.support.cloud_edit import change_port
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import both
from tests.support.vm_frames import VmFrames
from tests.support.world_builder import HERE, THERE, CloudBuilder


def twins() -> CloudBuilder:
    """Ports p, q (here) and r (there) of each tenant, alike in all but their VPC."""
    cloud = CloudBuilder()
    for number, vpc in enumerate(("east", "west"), 1):
        cloud.subnet(
            f"{vpc}-net",
            200 + number,
            "10.0.0.0/24",
            "fd00::/64",
            gateways=("10.0.0.1", "fd00::1"),
            gateway_mac="fa:16:3e:00:00:fe",
            vpc=vpc,
        )
        rules = [*both("egress", rule_id="out"), *both("ingress", rule_id="in", group=f"{vpc}-all")]
        cloud.group(f"{vpc}-all", *rules, vpc=vpc)
        for name, last, host in (("p", 10, HERE), ("q", 11, HERE), ("r", 12, THERE)):
            cloud.port(
                f"{vpc}-{name}",
                f"{vpc}-net",
                f"10.0.0.{last}",
                f"fd00::{last}",
                host=host,
                mac=f"fa:16:3e:00:00:{last:02x}",
                groups=(f"{vpc}-all",),
            )
    return cloud


def frame(lab: Lab, family: int, vpc: str, src: str, dst: str) -> bytes:
    return VmFrames(lab.cloud, family).tcp(f"{vpc}-{src}", f"{vpc}-{dst}")


def test_each_tenant_reaches_its_own(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(twins(), hosts=(HERE, THERE))
    for _ in range(2):
        for vpc in ("east", "west"):
            for src, dst in (("p", "q"), ("p", "r"), ("r", "p"), ("q", "p")):
                sent = lab.send(f"{vpc}-{src}", frame(lab, family, vpc, src, dst))
                assert sent.reached == [f"{vpc}-{dst}"]


def test_a_rule_of_one_tenant_is_none_of_the_other(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(twins())
    lab.send("east-p", frame(lab, family, "east", "p", "q"))
    sent = lab.send("west-p", frame(lab, family, "west", "p", "q"))
    assert sent.packet_ins == 1


def test_arp_and_the_gateway_are_the_tenant_s_own(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(twins())
    for vpc in ("east", "west"):
        vm = lab.frames(family)
        asked = lab.send(f"{vpc}-p", vm.who_has(f"{vpc}-p", f"{vpc}-q"))
        assert asked.reached == [f"{vpc}-p"]


def test_a_neighbor_that_one_tenant_lacks_is_not_the_other_s(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(twins())
    vm = lab.frames(family)
    asked = vm.who_has("west-p", "west-q")
    key = f"ip/{'10.0.0.11' if family == 4 else 'fd00::11'}"
    name = "nbr/west/" + ("10.0.0.0" if family == 4 else "fd00::")
    lab.write(name, {key: None})
    assert lab.send("west-p", asked).reached == []
    assert lab.send("east-p", asked).reached == ["east-p"]
    assert lab.send("west-p", frame(lab, family, "west", "p", "q")).reached == []
    assert lab.send("east-p", frame(lab, family, "east", "p", "q")).reached == ["east-q"]


def test_the_tunnel_keeps_tenants_apart(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(twins())
    for vni, vpc in ((201, "east"), (202, "west")):
        arrived = lab.from_tunnel(HERE, vni, frame(lab, family, vpc, "r", "q"), THERE)
        assert arrived.reached == [f"{vpc}-q"]


def test_connections_with_one_tuple_are_two(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(twins())
    vm = lab.frames(family)
    assert lab.send("east-p", frame(lab, family, "east", "p", "q")).reached == ["east-q"]
    assert lab.send("west-q", vm.tcp_reply("west-q", "west-p")).reached == []
    assert lab.send("east-q", vm.tcp_reply("east-q", "east-p")).reached == ["east-p"]


def test_a_group_of_one_tenant_holds_nobody_of_the_other(make_lab: MakeLab, family: int) -> None:
    """A rule that names a group of another VPC lets in no address of the own one."""
    cloud = twins()
    cloud.group("borrower", *both("ingress", rule_id="in", group="east-all"), vpc="west")
    cloud.port(
        "west-s", "west-net", "10.0.0.20", "fd00::20", mac="fa:16:3e:00:00:20", groups=("borrower",)
    )
    lab = make_lab(cloud)
    sent = lab.send("west-p", lab.frames(family).tcp("west-p", "west-s"))
    assert sent.reached == []


def test_a_member_that_leaves_in_one_tenant_cuts_nobody_in_the_other(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(twins())
    for vpc in ("east", "west"):
        assert lab.send(f"{vpc}-p", frame(lab, family, vpc, "p", "q")).reached == [f"{vpc}-q"]
    epochs = {port: lab.here.epoch(port) for port in lab.here.plugged}
    change_port(lab.cloud, "east-p", groups=())
    lab.publish()
    moved = {port for port in epochs if lab.here.epoch(port) != epochs[port]}
    assert moved == {"east-p"}
    looks_again = {
        name: list(port.remote_epochs) for name, port in lab.here.engine.world.ports.items()
    }
    # Of the other family nothing was asked, so nothing can rest on it.
    ips = lab.cloud.port_spec("east-p").fixed_ips
    assert looks_again.pop("east-q") == [ip for ip in ips if len(ip) == (4 if family == 4 else 16)]
    assert not any(looks_again.values())
    vm = lab.frames(family)
    assert lab.send("east-q", vm.tcp_reply("east-q", "east-p")).reached == []
    assert lab.send("west-q", vm.tcp_reply("west-q", "west-p")).reached == ["west-p"]


def test_when_the_last_port_of_a_tenant_goes_nothing_of_it_is_followed(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(twins())
    vm = lab.frames(family)
    for vpc in ("east", "west"):
        lab.send(f"{vpc}-p", frame(lab, family, vpc, "p", "r"))
    lab.here.delayed = True
    lab.send("east-q", vm.who_has("east-q", "east-p"))
    for port in ("east-p", "east-q"):
        lab.here.unplug(port)
    lab.here.delayed = False
    lab.here.deliver()
    assert lab.here.engine.parked == 0
    assert not [name for name in lab.here.feed.follows if "east" in name]
    assert [name for name in lab.here.feed.follows if name.startswith("nbr/west/")]
    assert not [name for name in lab.here.engine.cache.versions() if "east" in name]
    lab.here.plug("east-p")
    lab.here.plug("east-q")
    sent = lab.send("east-p", frame(lab, family, "east", "p", "q"))
    assert sent.reached == ["east-q"]
