"""The hot connection with a real switch at its other end, behind os-ken's own listener code."""

import os_ken.base.app_manager  # noqa: F401 - os_ken.controller.controller needs it first
import pytest
from os_ken.controller import controller, ofp_event
from os_ken.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER
from os_ken.lib import hub

from controller_app.encode import Encoder
from controller_app.hot_listener import install
from mininet_topos.lab_run import LabRun
from mininet_topos.ovs_node import OvsNode
from ondemand.pipeline import Pipeline, Table
from rule_cache.cookie import MAGIC_MASK, MAGIC_VALUE
from rule_cache.rule import Rule
from tests.support.frame_builder import build_udp4
from tests.support.os_ken_bricks import running_bricks
from tests.support.recording_owner import RecordingOwner, wait_until

BRIDGE = "br-hot"
COOKIE = MAGIC_VALUE | 0x0103_0000_0001
PIPELINE = Pipeline()
ENCODER = Encoder(PIPELINE)


class Switch:
    """A node whose bridge has one controller: the owner, through a Unix socket."""

    def __init__(self, node, owner, app):
        self.node = node
        self.owner = owner
        self.app = app

    def send(self, data):
        self.owner.outgoing.append(data)
        self.owner.connection.wake()

    def packet_out(self, frame):
        """A frame from port 7, which nothing but ovs-ofctl's packet-out needs to exist."""
        self.node.ofctl(
            "packet-out", BRIDGE, f"in_port=7 packet={frame.hex()} actions=resubmit(,0)"
        )


@pytest.fixture
def switch(lab_machine):
    with LabRun() as run, running_bricks() as (_, app):
        node = OvsNode(run, "hot")
        node.vsctl(
            *("add-br", BRIDGE, "--", "set", "Bridge", BRIDGE),
            *("datapath_type=netdev", "fail_mode=secure", "protocols=OpenFlow13"),
            "other-config:datapath-id=00000000000000ab",
        )
        owner = RecordingOwner(0xAB)
        path = str(node.directory / "controller.sock")
        with install(owner, tick_s=0.05):
            listener = hub.StreamServer((path, 0), controller.datapath_connection_factory)
            accepting = hub.spawn(accept_until_closed, listener)
            try:
                node.vsctl("set-controller", BRIDGE, f"unix:{path}")
                node.vsctl("set", "Controller", BRIDGE, "max_backoff=1000")
                owner.wait_for("connected")
                wait_until(lambda: owner.connection.state == MAIN_DISPATCHER)
                yield Switch(node, owner, app)
                node.vsctl("del-controller", BRIDGE)
                owner.wait(lambda: owner.connection is None)
            finally:
                # A listening socket that is shut down wakes up its accept().
                listener.server.shutdown(2)
                listener.server.close()
                accepting.join(5)
    assert owner.mistakes == []


def accept_until_closed(listener):
    try:
        listener.serve_forever()
    except OSError:
        return


def test_the_switch_connects_and_its_packets_come_in(switch):
    event = switch.app.next(ofp_event.EventOFPStateChange)
    assert (event.state, event.datapath.id) == (MAIN_DISPATCHER, 0xAB)
    switch.node.add_flows(
        BRIDGE,
        f"cookie={COOKIE},table=0,priority=2,udp,tp_dst=53 "
        "actions=set_field:9->reg5,controller:65535",
        "cookie=0x77,table=0,priority=1,udp actions=controller:65535",
    )
    ours, foreign = build_udp4(tp_dst=53, payload=b"o" * 700), build_udp4(tp_dst=54)
    for frame in (ours, foreign, ours):
        switch.packet_out(frame)
    packets = switch.owner.wait_for("packet_in", 2)
    assert [(p.cookie, p.table, p.in_port, p.vni, p.data) for p in packets] == [
        (COOKIE, 0, 7, 9, ours)
    ] * 2
    message = switch.app.next(ofp_event.EventOFPPacketIn).msg
    assert (message.cookie, message.data) == (0x77, foreign)


def test_what_the_owner_wants_sent_reaches_the_switch(switch):
    rule = PIPELINE.deliver.rule(zone=3, port=5, ofport=4)
    switch.send(ENCODER.add(rule, COOKIE))
    wait_until(lambda: switch.node.rule_count(BRIDGE) == 1)
    switch.send(ENCODER.add(Rule(PIPELINE.location_miss, (1, 99)), COOKIE + 1))  # no such meter
    ((xid, kind, _, _),) = switch.owner.wait_for("error")
    assert (xid, kind) == ((COOKIE + 1) & 0xFFFFFFFF, 12)  # OFPET_METER_MOD_FAILED
    assert switch.app.next(ofp_event.EventOFPErrorMsg).msg.xid == xid


def test_a_switch_that_starts_anew_is_connected_anew(switch):
    switch.app.next(ofp_event.EventOFPStateChange)
    switch.node.kill_vswitchd()
    switch.owner.wait_for("disconnected")
    assert switch.app.next(ofp_event.EventOFPStateChange).state == DEAD_DISPATCHER
    switch.node.start_vswitchd()
    assert switch.owner.wait_for("connected", 2) == [0xAB, 0xAB]
    assert switch.owner.names() == ["connected", "disconnected", "connected"]


def test_a_switch_that_has_more_to_say_than_is_read_is_read_while_it_is_written_to(switch):
    """Twenty thousand removals are on their way when a hundred thousand rules follow.

    Open vSwitch reads nothing as long as a hundred of its replies, which removals count as, are not
    taken. Who only writes here and reads later waits for ever.
    """
    count, rounds = 20_000, 5
    args = (1, bytes(6))
    adds = b"".join(
        ENCODER.add(
            Rule(PIPELINE.location_deny[4], (*args, (0x0A000000 + n).to_bytes(4, "big"))),
            COOKIE + n,
        )
        for n in range(count)
    )
    switch.send(ENCODER.report_evictions() + adds)
    wait_until(lambda: switch.node.rule_count(BRIDGE) == count, timeout_s=20)
    switch.send(ENCODER.delete_matching(MAGIC_VALUE, MAGIC_MASK) + adds * rounds)
    wait_until(lambda: len(switch.owner.calls) > count, timeout_s=20)
    marker = PIPELINE.deliver.rule(zone=1, port=5, ofport=1)
    switch.send(ENCODER.add(marker, COOKIE))
    wait_until(lambda: switch.node.rule_count(BRIDGE) == count + 1, timeout_s=20)
    removed = {message.cookie for message in switch.owner.arguments("flow_removed")}
    assert removed == {COOKIE + n for n in range(count)}
    assert {message.table for message in switch.owner.arguments("flow_removed")} == {Table.LOCATION}
    assert "disconnected" not in switch.owner.names()
