"""The hot connection against a peer that speaks real bytes, with os-ken's own handlers beside it."""

import logging
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import os_ken.base.app_manager  # noqa: F401 - os_ken.controller.controller needs it first
import pytest
from os_ken.controller import controller, ofp_event
from os_ken.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER

from controller_app.hot_connection import BATCH_MESSAGES
from controller_app.hot_listener import install
from tests.support.openflow_peer import (
    DATAPATH_ID,
    ECHO_REPLY,
    ECHO_REQUEST,
    ERROR,
    FEATURES_REQUEST,
    HELLO,
    MULTIPART_REQUEST,
    OpenFlowPeer,
    xid_of,
)
from tests.support.os_ken_bricks import running_bricks
from tests.support.packet_in_bytes import COOKIE, message, os_ken_match, oxm, packet_in
from tests.support.recording_owner import RecordingOwner, wait_until

FOREIGN_COOKIE = 0xFFFF_FFFF_FFFF_FFFF
#: Longer than any test: what happens then was not brought about by a tick.
NO_TICK_S = 60.0
LOGGER = "controller_app.hot_connection"


class Bench:
    """Installs hot connections and connects peers to them, as a listener would."""

    def __init__(self, owner, app, handler, stack):
        self.owner = owner
        self.app = app
        self.handler = handler
        self._stack = stack
        self._installation = None
        self.threads = []

    def install(self, *, tick_s=NO_TICK_S):
        self._installation = self._stack.enter_context(install(self.owner, tick_s=tick_s))
        return self

    @property
    def counters(self):
        return self._installation.counters

    def connect(self, *, family=socket.AF_UNIX, handshake=True, **options):
        if self._installation is None:
            self.install()
        ours, theirs = connected_pair(family)
        self._stack.callback(theirs.close)
        thread = threading.Thread(
            target=controller.datapath_connection_factory, args=(ours, "test peer"), daemon=True
        )
        self.threads.append(thread)
        thread.start()
        peer = OpenFlowPeer(theirs)
        if handshake:
            peer.handshake(**options)
        return peer

    def owned(self, **options):
        """A peer whose connection the owner has, in state MAIN."""
        peer = self.connect(**options)
        self.owner.wait_for("connected")
        wait_until(lambda: self.owner.connection.state == MAIN_DISPATCHER)
        return peer


def connected_pair(family):
    if family == socket.AF_UNIX:
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    return ours, theirs


@pytest.fixture
def bench():
    owner = RecordingOwner(DATAPATH_ID)
    with ExitStack() as stack:
        handler, app = stack.enter_context(running_bricks())
        bench = Bench(owner, app, handler, stack)
        yield bench
        stack.close()
        for thread in bench.threads:
            thread.join(5)
            assert not thread.is_alive()
    assert owner.mistakes == []


@pytest.fixture
def timeout(request):
    """os-ken's configuration, changed for one test."""

    def override(**options):
        for name, value in options.items():
            controller.CONF.set_override(name, value)
            request.addfinalizer(lambda name=name: controller.CONF.clear_override(name))

    return override


def numbered_packet_in(number, *, cookie=COOKIE, size=60):
    match = os_ken_match([oxm("in_port", number), oxm("vni", 5001)])
    return packet_in(match, number.to_bytes(4, "big") + bytes(size - 4), cookie=cookie)


def flow_removed(cookie=COOKIE):
    return message(
        11, struct.pack(">QHBBIIHHQQ", cookie, 100, 0, 30, *[0] * 6) + b"\0\1\0\4" + bytes(4)
    )


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


# -- handshake and ownership ------------------------------------------------------------------------


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_the_owner_gets_its_switch_after_the_handshake(bench, family):
    peer = bench.owned(family=family)
    assert bench.owner.calls == [("connected", DATAPATH_ID)]
    assert [data[1] for data in peer.received] == [HELLO, FEATURES_REQUEST, MULTIPART_REQUEST]
    event = bench.app.next(ofp_event.EventOFPStateChange)
    assert (event.state, event.datapath.id) == (MAIN_DISPATCHER, DATAPATH_ID)


def test_another_switch_is_served_as_by_os_ken(bench):
    peer = bench.connect(datapath_id=5)
    assert bench.app.next(ofp_event.EventOFPStateChange).state == MAIN_DISPATCHER
    peer.send(numbered_packet_in(1) + numbered_packet_in(2, cookie=FOREIGN_COOKIE) + flow_removed())
    assert bench.app.next(ofp_event.EventOFPPacketIn).msg.match["in_port"] == 1
    assert bench.app.next(ofp_event.EventOFPPacketIn).msg.match["in_port"] == 2
    assert bench.app.next(ofp_event.EventOFPFlowRemoved).msg.cookie == COOKIE
    assert bench.owner.calls == []


def test_packet_ins_between_the_features_and_the_ports_are_not_lost(bench):
    peer = bench.connect(handshake=False)
    peer.send(message(HELLO))
    peer.answer_features()
    bench.owner.wait_for("connected")
    peer.send(numbered_packet_in(1))
    bench.owner.wait_for("packet_in")
    peer.answer_ports()
    peer.send(numbered_packet_in(2))
    assert [p.in_port for p in bench.owner.wait_for("packet_in", 2)] == [1, 2]


def test_the_owners_switch_must_speak_openflow_1_3(bench, caplog):
    peer = bench.connect(handshake=False)
    peer.send(message(HELLO, version=5))
    peer.answer_features(version=5)
    peer.wait_until_closed()
    assert [text for text in warnings(caplog) if "protocols=OpenFlow13" in text] == warnings(caplog)
    assert len(warnings(caplog)) == 1
    assert bench.owner.calls == []


def test_a_switch_that_is_back_takes_the_place_of_its_former_connection(bench):
    first = bench.owned()
    second = bench.connect()
    first.wait_until_closed()
    bench.owner.wait_for("connected", 2)
    second.send(numbered_packet_in(7))
    bench.owner.wait_for("packet_in")
    assert bench.owner.names() == ["connected", "disconnected", "connected", "packet_in"]


def test_two_switches_of_one_owner_do_not_have_it_at_once(bench):
    bench.owner.wanted.add(77)
    first = bench.owned()
    bench.connect(datapath_id=77)
    first.wait_until_closed()
    assert bench.owner.wait_for("connected", 2) == [DATAPATH_ID, 77]
    assert bench.owner.names() == ["connected", "disconnected", "connected"]


# -- who gets what ----------------------------------------------------------------------------------


def test_messages_with_our_cookie_go_to_the_owner_and_others_to_the_apps(bench):
    peer = bench.owned()
    peer.send(
        numbered_packet_in(1)
        + numbered_packet_in(2, cookie=FOREIGN_COOKIE)
        + flow_removed(FOREIGN_COOKIE)
        + flow_removed()
        + numbered_packet_in(3)
    )
    assert [p.in_port for p in bench.owner.wait_for("packet_in", 2)] == [1, 3]
    assert [m.cookie for m in bench.owner.wait_for("flow_removed")] == [COOKIE]
    assert bench.app.next(ofp_event.EventOFPPacketIn).msg.match["in_port"] == 2
    assert bench.app.next(ofp_event.EventOFPFlowRemoved).msg.cookie == FOREIGN_COOKIE
    assert bench.app.count(ofp_event.EventOFPPacketIn) == 0
    # Of one read the packet-ins come last; it may have taken two.
    assert bench.owner.names() in (
        ["connected", "flow_removed", "packet_in", "packet_in"],
        ["connected", "packet_in", "flow_removed", "packet_in"],
    )


def test_errors_go_to_the_owner_and_to_the_apps(bench):
    peer = bench.owned()
    failed = message(14, bytes(56), xid=9)
    peer.send(message(ERROR, struct.pack(">HH", 4, 9) + failed, xid=9))
    assert bench.owner.wait_for("error") == [(9, 4, 9, failed)]
    assert bench.app.next(ofp_event.EventOFPErrorMsg).msg.xid == 9


def test_echo_is_answered_by_os_kens_handler(bench):
    for peer in (bench.owned(), bench.connect(datapath_id=5)):
        peer.send(message(ECHO_REQUEST, b"are you there", xid=77))
        reply = peer.expect(ECHO_REPLY)
        assert (xid_of(reply), reply[8:]) == (77, b"are you there")


def test_a_malformed_packet_in_costs_nothing_but_itself(bench, caplog):
    peer = bench.owned()
    bad = bytearray(numbered_packet_in(1))
    bad[24:26] = b"\xff\xff"
    peer.send(bytes(bad) + numbered_packet_in(2))
    assert [p.in_port for p in bench.owner.wait_for("packet_in")] == [2]
    assert bench.counters.malformed == 1
    assert len(warnings(caplog)) == 1


def test_a_handler_that_fails_does_not_end_the_connection(bench, caplog):
    def broken(event):
        raise RuntimeError("broken handler")

    bench.handler.register_handler(ofp_event.EventOFPEchoRequest, broken)
    peer = bench.owned()
    peer.send(message(ECHO_REQUEST, xid=1) + numbered_packet_in(1))
    peer.expect(ECHO_REPLY)
    bench.owner.wait_for("packet_in")
    assert bench.counters.handler_errors == 1
    assert "broken handler" in caplog.text


# -- reading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("owned", [True, False])
def test_messages_may_be_cut_anywhere(bench, owned):
    """Two messages of the fast way and one of os-ken's, cut at every place, each piece read alone."""
    peer = bench.owned()
    cookie = COOKIE if owned else FOREIGN_COOKIE
    stream = (
        numbered_packet_in(1, cookie=cookie) + message(ECHO_REQUEST, b"x") + flow_removed(cookie)
    )
    for cut in range(1, len(stream)):
        bench.owner.wait_for_read(lambda cut=cut: peer.send(stream[:cut]))
        bench.owner.wait_for_read(lambda cut=cut: peer.send(stream[cut:]))
        peer.expect(ECHO_REPLY)
    rounds = len(stream) - 1
    if owned:
        assert len(bench.owner.wait_for("packet_in", rounds)) == rounds
        assert len(bench.owner.wait_for("flow_removed", rounds)) == rounds
    else:
        for _ in range(rounds):
            bench.app.next(ofp_event.EventOFPPacketIn)
            bench.app.next(ofp_event.EventOFPFlowRemoved)
        assert bench.owner.names() == ["connected"]


def test_a_message_may_come_byte_by_byte(bench):
    peer = bench.owned()
    for byte in numbered_packet_in(1):
        bench.owner.wait_for_read(lambda byte=byte: peer.send(bytes([byte])))
    assert bench.owner.arguments("packet_in")[0].in_port == 1


def test_many_messages_of_one_read_keep_their_order(bench):
    peer = bench.owned(family=socket.AF_INET)
    count = 20 * BATCH_MESSAGES
    peer.send(b"".join(numbered_packet_in(n) for n in range(1, count + 1)))
    packets = bench.owner.wait_for("packet_in", count)
    assert [p.in_port for p in packets] == list(range(1, count + 1))
    assert [int.from_bytes(p.data[:4], "big") for p in packets] == list(range(1, count + 1))


def test_what_the_first_packet_wants_sent_does_not_wait_for_the_last(bench):
    peer = bench.owned()
    seen_before = []

    def note(packet):
        if packet.in_port == 1:
            bench.owner.outgoing.append(message(ECHO_REPLY, xid=500))
        if packet.in_port == BATCH_MESSAGES + 1:
            # The peer can read the answer while the rest of the read is yet to be handled.
            seen_before.append(xid_of(peer.expect(ECHO_REPLY)))

    bench.owner.on_packet_in = note
    peer.send(b"".join(numbered_packet_in(n) for n in range(1, BATCH_MESSAGES + 10)))
    bench.owner.wait_for("packet_in", BATCH_MESSAGES + 9)
    assert seen_before == [500]


def test_a_message_may_be_as_long_as_openflow_allows(bench):
    peer = bench.owned()
    empty = len(numbered_packet_in(1, size=4)) - 4
    peer.send(numbered_packet_in(1, size=65535 - empty))
    peer.send(numbered_packet_in(2))
    packets = bench.owner.wait_for("packet_in", 2)
    assert [len(p.data) for p in packets] == [65535 - empty, 60]


# -- garbage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("garbage", "says"),
    [
        (struct.pack(">BBHI", 4, 10, 7, 0), "7 bytes"),
        (struct.pack(">BBHI", 4, 10, 0, 0), "0 bytes"),
        (message(10, bytes(30), version=1), "0x01"),
        (message(ECHO_REQUEST, version=5), "0x05"),
        (message(HELLO, version=99), "0x63"),
        (b"GET / HTTP/1.1\r\n\r\n", "0x47"),
        (b"\x16\x03", "0x16"),
    ],
)
@pytest.mark.parametrize("owned", [True, False])
def test_what_is_not_openflow_ends_the_connection_with_one_line(
    bench, caplog, garbage, says, owned
):
    peer = bench.owned() if owned else bench.connect(datapath_id=5)
    if not owned:
        bench.app.next(ofp_event.EventOFPStateChange)
    peer.send(numbered_packet_in(1) + garbage)
    peer.wait_until_closed()
    bench.threads[0].join(5)
    lines = [text for text in warnings(caplog) if "closed" in text]
    assert len(lines) == 1
    assert len(warnings(caplog)) == 1
    assert says in lines[0]
    if owned:
        assert bench.owner.names() == ["connected", "packet_in", "disconnected"]
    else:
        assert bench.app.next(ofp_event.EventOFPPacketIn).msg.match["in_port"] == 1


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x00", message(HELLO, version=0x7F), bytes(64)]
)
def test_garbage_instead_of_a_hello_ends_the_connection(bench, caplog, garbage):
    peer = bench.connect(handshake=False)
    peer.send(garbage)
    peer.wait_until_closed()
    assert len(warnings(caplog)) == 1
    assert bench.owner.calls == []


def test_a_body_that_os_ken_cannot_parse_does_not_end_the_connection(bench):
    peer = bench.owned()
    peer.send(message(12, b"port status that is too short") + numbered_packet_in(1))
    bench.owner.wait_for("packet_in")


# -- the end ----------------------------------------------------------------------------------------


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_when_the_switch_closes_everybody_is_told_and_nothing_is_left(bench, family, caplog):
    bench.install()
    before = open_files()
    peer = bench.owned(family=family)
    connection = bench.owner.connection
    peer.send(numbered_packet_in(1))
    peer.socket.close()
    bench.threads[0].join(5)
    assert bench.owner.names() == ["connected", "packet_in", "disconnected"]
    events = [bench.app.next(ofp_event.EventOFPStateChange) for _ in range(2)]
    assert [event.state for event in events] == [MAIN_DISPATCHER, DEAD_DISPATCHER]
    assert events[1].datapath.id == DATAPATH_ID
    assert connection.is_active is False
    assert connection.send(message(ECHO_REPLY)) is False
    connection.wake()
    connection.close()
    assert open_files() == before
    assert warnings(caplog) == []


def test_close_from_another_thread_ends_the_connection_at_once(bench):
    peer = bench.owned()
    bench.owner.connection.close()
    peer.wait_until_closed()
    bench.threads[0].join(5)
    assert bench.owner.names() == ["connected", "disconnected"]


def test_a_mistake_of_the_owner_ends_the_connection_and_the_next_one_works(bench, monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_type))

    def mistake(_):
        raise ZeroDivisionError

    bench.owner.on_packet_in = mistake
    peer = bench.owned()
    peer.send(numbered_packet_in(1))
    peer.wait_until_closed()
    bench.owner.wait_for("disconnected")
    bench.threads[0].join(5)
    assert raised == [ZeroDivisionError]
    bench.owner.on_packet_in = lambda _: None
    peer = bench.connect()
    bench.owner.wait_for("connected", 2)
    peer.send(numbered_packet_in(2))
    assert [p.in_port for p in bench.owner.wait_for("packet_in", 2)] == [1, 2]


def test_a_refused_hello_is_written_before_the_end(bench):
    """os-ken answers a hello it cannot use with an error, which closes the connection."""
    peer = bench.connect(handshake=False)
    peer.send(message(HELLO, struct.pack(">HHI", 1, 8, 1 << 2), version=4))
    peer.expect(ERROR)
    with pytest.raises(EOFError):
        peer.receive()


# -- writing and waking -----------------------------------------------------------------------------


def test_another_thread_wakes_the_owner(bench):
    peer = bench.owned()
    for xid in range(1, 50):
        bench.owner.outgoing.append(message(ECHO_REPLY, xid=xid))
        bench.owner.connection.wake()
        assert xid_of(peer.expect(ECHO_REPLY)) == xid


def test_ticks_come_when_nothing_else_does(bench):
    bench.install(tick_s=0.005)
    bench.owned()
    bench.owner.wait(lambda: len(bench.owner.collected_s) > 10)
    times = bench.owner.collected_s
    assert times == sorted(times)


def test_a_switch_without_an_owner_has_no_ticks(bench):
    bench.install(tick_s=0.005)
    peer = bench.connect(datapath_id=5)
    for xid in range(5):
        peer.send(message(ECHO_REQUEST, xid=xid))
        peer.expect(ECHO_REPLY)
    assert bench.owner.collected_s == []


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_messages_of_several_threads_are_never_interleaved(bench, family):
    peer = bench.owned(family=family)
    connection = bench.owner.connection
    rounds, threads = 150, 4

    def send(number):
        for count in range(rounds):
            body = bytes([number]) * (40 + 977 * (count % 60))
            assert connection.send(message(ECHO_REPLY, body, xid=number << 16 | count))

    senders = [threading.Thread(target=send, args=(number,)) for number in range(1, threads + 1)]
    for sender in senders:
        sender.start()
    found = {number: [] for number in range(1, threads + 1)}
    for count in range(rounds):
        bench.owner.outgoing.append(message(ECHO_REPLY, b"\0" * 3000, xid=count))
        connection.wake()
    while sum(map(len, found.values())) < rounds * threads:
        data = peer.expect(ECHO_REPLY)
        number, count = xid_of(data) >> 16, xid_of(data) & 0xFFFF
        assert set(data[8:]) == {number}
        if number:
            assert len(data) == 8 + 40 + 977 * (count % 60)
            found[number].append(count)
    for sender in senders:
        sender.join()
    assert all(counts == list(range(rounds)) for counts in found.values())


def test_a_switch_that_does_not_read_is_closed_with_one_line(bench, timeout, caplog):
    timeout(socket_timeout=0.3)
    bench.install(tick_s=0.05)
    peer = bench.owned()
    connection = bench.owner.connection
    bench.owner.outgoing.append(message(ECHO_REPLY, bytes(60000)) * 200)
    connection.wake()
    bench.owner.wait_for("disconnected")
    assert connection.send(message(ECHO_REPLY)) is False
    bench.threads[0].join(5)
    assert len(warnings(caplog)) == 1
    assert "read nothing" in warnings(caplog)[0]
    peer.wait_until_closed()


def test_a_switch_that_reads_slowly_is_not_closed(bench, timeout):
    """One batch may take the switch longer than the time it may take nothing at all."""
    timeout(socket_timeout=0.5)
    bench.install(tick_s=0.02)
    peer = bench.owned()
    size = 1_200_000
    bench.owner.outgoing.append(message(ECHO_REPLY, bytes(3992)) * (size // 4000))
    bench.owner.connection.wake()
    started_s = time.monotonic()
    while size:
        size -= len(peer.socket.recv(min(size, 10_000)))
        time.sleep(0.01)
    assert time.monotonic() - started_s > 1
    assert bench.owner.names() == ["connected"]


def test_a_thread_that_waits_for_room_is_told_when_the_connection_dies(bench, timeout):
    timeout(socket_timeout=0.5)
    bench.install(tick_s=0.05)
    bench.owned()
    connection = bench.owner.connection
    answers = []
    for _ in range(200):
        answers.append(connection.send(message(ECHO_REPLY, bytes(60000))))
        if not answers[-1]:
            break
    assert answers[0] is True
    assert answers[-1] is False
    bench.owner.wait_for("disconnected")


def test_a_switch_that_reads_late_but_in_time_gets_everything(bench):
    bench.install(tick_s=0.05)
    peer = bench.owned()
    for xid in range(100):
        bench.owner.outgoing.append(message(ECHO_REPLY, bytes(60000), xid=xid))
    bench.owner.connection.wake()
    wait_until(lambda: not bench.owner.outgoing)
    assert [xid_of(peer.expect(ECHO_REPLY)) for _ in range(100)] == list(range(100))


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_a_switch_that_writes_all_before_it_reads_is_not_waited_for(bench, family):
    """Open vSwitch takes no requests while replies of its own are unread: read, or wait for ever."""
    bench.install(tick_s=0.05)
    peer = bench.owned(family=family)
    answer = message(ECHO_REPLY, bytes(8000))
    bench.owner.on_packet_in = lambda _: bench.owner.outgoing.append(answer)
    count = 20_000
    for start in range(0, count, 500):
        # Nothing of the answers is read here, ten times more than any socket buffers.
        peer.send(b"".join(numbered_packet_in(n + 1) for n in range(start, start + 500)))
    peer.send(message(ECHO_REQUEST, b"done", xid=4711))
    answers = 0
    while xid_of(reply := peer.expect(ECHO_REPLY)) != 4711:
        assert reply == answer
        answers += 1
    dropped = bench.counters.overload_drops
    assert dropped > 0
    assert answers + dropped >= count - BATCH_MESSAGES
    assert bench.owner.names().count("packet_in") + dropped == count
    peer.send(numbered_packet_in(5))
    peer.expect(ECHO_REPLY)


# -- echo probing, which os-ken's configuration asks for ----------------------------------------------


def test_a_switch_that_answers_probes_is_kept_and_one_that_does_not_is_closed(
    bench, timeout, caplog
):
    timeout(maximum_unreplied_echo_requests=2, echo_request_interval=0.01)
    bench.install(tick_s=0.005)
    peer = bench.owned()
    for _ in range(10):
        request = peer.expect(ECHO_REQUEST)
        peer.send(message(ECHO_REPLY, xid=xid_of(request)))
    assert bench.owner.connection is not None
    peer.wait_until_closed()
    bench.owner.wait_for("disconnected")
    assert len(warnings(caplog)) == 1
    kinds = Counter(data[1] for data in peer.received)
    assert kinds[ECHO_REQUEST] == 13
