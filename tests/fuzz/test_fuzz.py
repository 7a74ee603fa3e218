"""A little of the fuzzing, all that was kept of it, and what it found."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest
from msgspec.structs import replace as changed

from controller_app.hot_connection import HotDatapath
from ondemand.addresses import parse_ip
from ondemand.frames import Malformed, parse
from ondemand.malformed import Reason
from ondemand.messages import PacketIn
from ondemand.pipeline import Table
from rule_cache.fields import Field
from tests.fuzz.kept import CORPUS, Kept, load
from tests.fuzz.mutate import Mutator
from tests.fuzz.parse_target import ParseTarget
from tests.fuzz.run import TARGETS, run
from tests.fuzz.seeds import good_frames, large_frames
from tests.fuzz.stream_target import StreamTarget
from tests.fuzz.target import Target
from tests.support.cloud_edit import change_port
from tests.support.fake_flow import extract
from tests.support.fake_fragments import Reassembly
from tests.support.frame_builder import build_arp, build_ethernet, build_ipv6_raw, build_tcp4
from tests.support.lab import Lab
from tests.support.office_cloud import RED_VNI, office
from tests.support.packet_parts import authentication_header, fragment_header, udp_datagram
from tests.support.world_builder import HERE, THERE

#: Inputs of each target: 50,000 in all.
COUNTS = {"parse": 36_000, "message": 5_000, "stream": 3_000, "record": 3_000, "engine": 2_000, "wire": 1_000}  # fmt: skip
KEPT = [kept for name in TARGETS for kept in load(name)]
#: Bytes of the whole corpus.
MAX_CORPUS = 300_000


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What the agent and os-ken would warn of is what is sent here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def made(name: str, seed: int = 1) -> Target:
    return TARGETS[name](seed)


def close(target: Target) -> None:
    if isinstance(target, StreamTarget):
        target.close()


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, Target]]:
    every = {name: made(name) for name in TARGETS}
    yield every
    for target in every.values():
        close(target)


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: f"{kept.target}: {kept.outcome}")
def test_what_was_kept_comes_out_as_it_did(kept: Kept, targets: dict[str, Target]) -> None:
    outcome = targets[kept.target].replay(kept)
    # Which rule or counter meets it is the engine's to change, if only nothing goes wrong.
    assert outcome == kept.outcome or kept.target in ("engine", "wire")


@pytest.mark.parametrize("name", TARGETS)
def test_some_more_of_each(name: str) -> None:
    target = made(name)
    summary = run(target, COUNTS[name])
    close(target)
    found = [(one.error, dict(one.given.facts), one.given.data.hex()) for one in summary.findings]
    assert found == []
    assert summary.count == COUNTS[name]


def test_every_reason_for_malformed_is_kept() -> None:
    kept = {one.outcome for one in load("parse")}
    assert {f"malformed {reason.value}" for reason in Reason} <= kept


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*.hex")) < MAX_CORPUS


# -- that it can find something --------------------------------------------------------------------


def test_a_seed_gives_the_same_frames_again() -> None:
    first, second, other = (Mutator(seed, good_frames()) for seed in (1, 1, 2))
    frames = [first.frame() for _ in range(300)]
    assert frames == [second.frame() for _ in range(300)]
    assert frames != [other.frame() for _ in range(300)]


class Forgetful(ParseTarget):
    """A parser that reads an ARP packet without a look at its length."""

    def run(self, given: Kept) -> str:
        if given.data[12:14] == b"\x08\x06":
            given.data[41]
        return super().run(given)

    replay = run


def test_a_bug_is_found_and_made_small() -> None:
    summary = run(Forgetful(1), 2_000)
    finding = summary.findings[0]
    assert finding.alone
    assert finding.error.startswith("IndexError")
    assert finding.given.data == bytes(12) + b"\x08\x06"


# -- time ------------------------------------------------------------------------------------------


def lines_run(data: bytes) -> int:
    """Lines of Python that ``parse`` runs for a frame: its time, whatever the machine does."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        parse(data)
    except Malformed:
        pass
    finally:
        sys.settrace(before)
    return count


def test_no_frame_takes_long() -> None:
    """What a frame costs grows with its length at most: an option has 8 bytes and takes some lines."""
    mutator = Mutator(3, good_frames())
    frames = [*large_frames(), *(one.data for one in load("parse"))]
    frames += [mutator.frame() for _ in range(500)]
    for frame in frames:
        assert lines_run(frame) <= 160 + len(frame) * 10 // 8, frame[:80].hex()


# -- what was found --------------------------------------------------------------------------------


def packet_in(lab: Lab, frame: bytes, **fields: object) -> PacketIn:
    host = lab.here
    packet = PacketIn(
        table=Table.EGRESS_VERDICT,
        in_port=host.plugged["a"],
        data=frame,
        vni=RED_VNI,
        source_zone=host.zone("a"),
        ct_state=0x21,
        ct_src=parse_ip("10.0.1.10"),
        ct_dst=parse_ip("10.0.1.12"),
        ct_proto=17,
        ct_tp_src=40000,
        ct_tp_dst=53,
    )
    return changed(packet, **fields)


def test_a_tracked_packet_that_is_no_ip_ends_quietly() -> None:
    lab = Lab(office())
    frame = build_ethernet(0x88CC, bytes(46), eth_src=lab.cloud.mac("a"))
    lab.here.engine.packet_in(packet_in(lab, frame), lab.now_s)
    assert lab.here.engine.ledger_size == 0


@pytest.mark.parametrize(
    ("source", "target"), [("10.0.1.10", ""), ("fd00:1::10", "10.0.1.12"), ("10.0.1.10", "fd00:1::12")]
)  # fmt: skip
def test_a_tuple_of_another_family_makes_no_rule(source: str, target: str) -> None:
    lab = Lab(office())
    ends = [parse_ip(text) if text else b"" for text in (source, target)]
    packet = packet_in(lab, lab.frames(4).udp("a", "b"), ct_src=ends[0], ct_dst=ends[1])
    lab.here.engine.packet_in(packet, lab.now_s)
    verdicts = [e for e in lab.here.engine.installer.ledger if "egress" in e.rule.shape.name]
    assert verdicts == []


def test_arp_from_a_tunnel_reaches_nobody() -> None:
    cloud = office()
    change_port(cloud, "a2", port_security=False, groups=())
    lab = Lab(cloud)
    vm = lab.frames(4)
    lie = build_arp(
        opcode=2, sha=cloud.mac("x"), spa=vm.gateway("a2"), tha=cloud.mac("a2"), tpa=vm.ip("a2"),
        eth_dst=cloud.mac("a2"),
    )  # fmt: skip
    assert lab.from_tunnel(HERE, RED_VNI, vm.tcp("x", "a2"), THERE).reached == ["a2"]
    assert lab.from_tunnel(HERE, RED_VNI, lie, THERE).reached == []


def test_a_connection_received_under_the_own_address_gives_no_leave_to_send_on_it() -> None:
    """A host of the underlay, or a port without port security, can have a port's policy passed by."""
    lab = Lab(office())
    vm = lab.frames(4)
    as_server = vm.udp("a", "d", 68, tp_src=67)
    assert lab.send("a", as_server).reached == []
    lie = vm.udp("a", "d", 68, tp_src=67, eth_src=lab.cloud.mac("x"), eth_dst=lab.cloud.mac("a"))
    lab.from_tunnel(HERE, RED_VNI, lie, THERE)
    lab.advance(15)  # the rule that denied the first one is gone
    assert lab.send("a", as_server).reached == []


HELLO_WITH_AN_EMPTY_PART = bytes.fromhex("04000010000000000001000000000000")


class WithOsKen(StreamTarget):
    connection = HotDatapath


def test_a_hello_with_a_part_of_length_0_ends_the_connection() -> None:
    """Asked with a bound on the lines that run, for the loop itself would never end."""
    with closing(WithOsKen(1)) as target:
        count = 0

        def trace(frame, event, argument):
            nonlocal count
            count += 1
            if count > 20_000:
                # os-ken catches all that is raised inside its parser; the end of its loop is left.
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            calls, end = target._take([HELLO_WITH_AN_EMPTY_PART])
        finally:
            sys.settrace(before)
        assert count < 20_000
        assert (calls, bool(end)) == ([], True)


def test_the_fake_switch_reads_a_packet_with_much_behind_it() -> None:
    assert extract(build_tcp4() + bytes(256)).fields.get(Field.IPV4_SRC) is not None


def test_the_fake_switch_reassembles_behind_an_authentication_header() -> None:
    data = udp_datagram("fd00::10", "fd00::11", 1, 53, payload=bytes(300))
    ah = authentication_header(bytes(1000))
    first = build_ipv6_raw(17, data[:256], extensions=[ah, fragment_header(more_fragments=True)])
    last = build_ipv6_raw(17, data[256:], extensions=[ah, fragment_header(offset=256)])
    reassembly = Reassembly()
    reassembly.offer(1, 20, first, 1.0)
    assert reassembly.offer(1, 20, last, 1.0) is not None
