"""Logins, TLS and permissions of the NATS source, against servers that really demand them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
import time
from dataclasses import replace

import nats
import pytest

from controller_app.nats_commit import Commit, encode
from controller_app.nats_options import NatsAddress, NatsOptions
from controller_app.nats_store import NatsStore
from controller_app.source_factory import open_store
from controller_app.source_link import SourceLink
from ondemand.messages import Follow
from ondemand.slices import Delta, Snapshot, SourceError, SourceState
from tests.contract.backend import Recorder, reaches, settle
from tests.support.nats_certificates import Authority
from tests.support.nats_jwt import Account, operator_configuration, user_key
from tests.support.nats_server import NatsServer, free_port, needs_nats_server
from tests.support.nats_users import documented, refused

pytestmark = needs_nats_server

QUICK = NatsOptions(timeout_s=0.5, retry_max_s=0.2, audit_s=0.3)
HOST, OTHER, GROUP, SG = "host/host-1", "host/host-2", "sg/other", "sg/a"


@pytest.fixture
def serve(tmp_path):
    """Starts servers, each with a configuration, and ends them."""
    servers = []

    def start(configuration=""):
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        servers.append(NatsServer(folder, configuration=configuration))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def tls(identity, more=""):
    return (
        f'tls {{ cert_file: "{identity.cert}", key_file: "{identity.key}", timeout: 5\n{more} }}\n'
    )


def address(server, *, scheme="tls", user="", **login):
    return NatsAddress((server.url.replace("nats:", f"{scheme}:"),), user=user, **login)


def works(place):
    """Write and read a record."""
    with NatsStore(place, writer=True, options=NatsOptions(timeout_s=5.0)) as store:
        store.write(SG, {"k": b"1"})
        return store.get(SG, "k").payload == b"1"


def told(place, expected):
    """What is said when the store is asked, once it says what is expected of it.

    A connection that ends may overtake what the server says before it, so this asks more than once.
    """
    with NatsStore(place, options=replace(QUICK, timeout_s=0.25)) as store:
        for _ in range(20):
            with pytest.raises(SourceError) as caught:
                store.identity()
            if expected in str(caught.value):
                break
        text = str(caught.value)
    assert expected in text
    assert "\n" not in text
    assert place.servers[0] in text
    return text


class TestTls:
    def test_a_server_that_the_authority_signed_is_trusted_by_each_of_its_names(
        self, serve, authority
    ):
        server = serve(tls(authority.server()))
        assert works(address(server, tls_ca=authority.cert))
        named = server.url.replace("nats://127.0.0.1", "tls://localhost")
        assert works(NatsAddress((named,), tls_ca=authority.cert))

    def test_the_url_of_a_store_says_the_same(self, serve, authority):
        server = serve(tls(authority.server()))
        url = f"{server.url.replace('nats:', 'tls:')}/blue?tls_ca={authority.cert}"
        with open_store(url, writer=True) as store:
            store.write(SG, {"k": b"1"})
            with open_store(store.place) as again:
                assert again.get(SG, "k").payload == b"1"

    def test_another_authority_is_not_trusted(self, serve, authority, tmp_path):
        server = serve(tls(authority.server()))
        other = Authority(tmp_path, "other")
        assert "tls_ca" in told(address(server, tls_ca=other.cert), "is not trusted")
        # Neither is it by those of the system, asked with tls:// or because the server demands it.
        assert "tls_ca" in told(address(server), "is not trusted")
        assert "tls_ca" in told(address(server, scheme="nats"), "is not trusted")

    def test_an_expired_certificate_is_told_and_a_new_one_taken(self, serve, authority, tmp_path):
        """By a watch that goes on asking, without a restart."""
        identity = authority.server(days=-1)
        server = serve(tls(identity))
        place = address(server, tls_ca=authority.cert)
        text = told(place, "certificate has expired")
        assert text.endswith("give the server a new certificate")
        with NatsStore(place, options=QUICK) as store:
            recorder = Recorder()
            store.watch(recorder).follow(SG, 0)
            recorder.wait_for(len)
            assert (
                "does not" in recorder.states()[0].error or "expired" in recorder.states()[0].error
            )
            server.stop()
            assert authority.server() == identity
            server.start()
            assert works(place)
            recorder.wait_for(lambda _: recorder.of(SG))

    def test_a_server_of_another_name_is_not_trusted(self, serve, authority):
        server = serve(tls(authority.server("elsewhere.example")))
        text = told(address(server, tls_ca=authority.cert), "is not trusted")
        assert "a name or address that its certificate has" in text

    def test_a_server_without_tls_never_hears_the_password(self, serve, tmp_path):
        """Who stands between says that it has no TLS; the library would go on in the clear."""
        heard = []
        listener = socket.create_server(("127.0.0.1", 0))

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    link, _ = listener.accept()
                    with link:
                        link.settimeout(1)
                        info = {"server_id": "x", "version": "2.9.10", "max_payload": 1 << 20,
                                "headers": True, "auth_required": True, "proto": 1}  # fmt: skip
                        link.sendall(b"INFO " + json.dumps(info).encode() + b"\r\n")
                        with contextlib.suppress(OSError):
                            heard.append(link.recv(4096))

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            secret = tmp_path / "password"
            secret.write_text("very-secret\n")
            place = NatsAddress(
                (f"tls://127.0.0.1:{listener.getsockname()[1]}",), user="u", password_file=secret
            )
            told(place, "does not offer TLS")
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join()
        assert heard
        assert not any(b"very-secret" in one or b"CONNECT" in one for one in heard)

    def test_a_server_that_asks_for_certificates_takes_ours_and_no_other(
        self, serve, authority, tmp_path
    ):
        server = serve(tls(authority.server(), f'ca_file: "{authority.cert}", verify: true'))
        place = address(server, tls_ca=authority.cert)
        mine, stranger = authority.client("host-1"), Authority(tmp_path, "other").client("host-1")
        assert works(replace(place, tls_cert=mine.cert, tls_key=mine.key))
        for one in (
            place,
            replace(place, tls_cert=stranger.cert, tls_key=stranger.key),
        ):
            assert "tls_cert and tls_key" in told(one, "refuses the certificate of this host")
        old = authority.client("old", days=-1)
        place = replace(place, tls_cert=old.cert, tls_key=old.key)
        told(place, "refuses the certificate of this host")
        with NatsStore(place, options=QUICK) as store:
            with pytest.raises(SourceError):
                store.identity()
            authority.client("old")
            for _ in range(20):
                with contextlib.suppress(SourceError):
                    assert store.is_there()
                    break
            assert store.get(SG, "k").payload == b"1", "a renewed certificate needs no restart"

    def test_a_user_can_be_known_by_the_certificate_alone(self, serve, authority):
        users = "authorization { users: [ { user: publisher } ] }\n"
        verify = f'ca_file: "{authority.cert}", verify_and_map: true'
        server = serve(tls(authority.server(), verify) + users)
        known, unknown = authority.client("publisher"), authority.client("somebody")
        place = address(server, user="publisher", tls_ca=authority.cert)
        assert works(replace(place, tls_cert=known.cert, tls_key=known.key))
        told(replace(place, tls_cert=unknown.cert, tls_key=unknown.key), "refuses the login")

    @pytest.mark.parametrize("key", ["tls_ca", "tls_cert", "tls_key"])
    def test_files_that_are_not_there_or_hold_something_else_are_named(
        self, serve, authority, tmp_path, key
    ):
        server = serve(tls(authority.server()))
        mine = authority.client("host-1")
        sound = {"tls_ca": authority.cert, "tls_cert": mine.cert, "tls_key": mine.key}
        bad = tmp_path / "bad"
        text = told(address(server, **{**sound, key: bad}), "No such file")
        assert str(bad) in text
        bad.write_text("hello")
        assert str(bad) in told(address(server, **{**sound, key: bad}), "PEM")


class TestLogins:
    def test_nkeys(self, serve, tmp_path):
        key = user_key()
        server = serve(f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}\n")
        file = tmp_path / "host.nk"
        file.write_text(f"{key.seed}\n")
        place = address(server, scheme="nats", credentials=file)
        assert works(place)
        assert works(address(server, scheme="nats", credentials=file))
        file.write_text(f"{user_key().seed}\n")
        assert "credentials" in told(place, "refuses the login")
        told(address(server, scheme="nats"), "refuses the login")

    def test_credentials_of_an_operator(self, serve, tmp_path):
        account = Account("SLICES", jetstream=True)
        server = serve(operator_configuration(account))
        file = tmp_path / "host.creds"
        file.write_text(account.credentials("publisher"))
        place = address(server, scheme="nats", credentials=file)
        assert works(place)
        with open_store(f"{server.url}?credentials={file}") as store:
            assert store.get(SG, "k").payload == b"1"
        file.write_text(Account("OTHER").credentials("publisher"))
        told(place, "refuses the login")
        file.write_text(account.credentials("publisher", expires=int(time.time()) - 60))
        assert f"the JWT in {file} expired at" in told(place, "expired")

    def test_credentials_that_expire_under_a_connection_are_replaced_in_their_file(
        self, serve, tmp_path
    ):
        account = Account("SLICES", jetstream=True)
        server = serve(operator_configuration(account))
        file, publisher = tmp_path / "host.creds", tmp_path / "publisher.creds"
        publisher.write_text(account.credentials("publisher"))
        file.write_text(account.credentials("host", expires=int(time.time()) + 2))
        with (
            NatsStore(address(server, scheme="nats", credentials=publisher), writer=True) as writer,
            NatsStore(address(server, scheme="nats", credentials=file), options=QUICK) as reader,
        ):
            held = writer.write(SG, {"k": b"1"})
            recorder = Recorder()
            reader.watch(recorder).follow(SG, held)
            recorder.wait_for(lambda _: recorder.states())
            with pytest.raises(SourceError, match="expired"):
                reader.get(SG, "k")
            version = writer.write(SG, {"k": b"2"})
            file.write_text(account.credentials("host"))
            recorder.wait_for(lambda events: any(reaches(one, SG, version) for one in events))
            assert recorder.states()[-1] == SourceState(None)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "hello",
            "-----BEGIN NATS USER JWT-----",
            "-----BEGIN NATS USER JWT-----\nx\n---\n-----BEGIN USER NKEY SEED-----\nSUAAA\n",
            "-----BEGIN NATS USER JWT-----\na.W10.c\n---\n-----BEGIN USER NKEY SEED-----\nSUAAA\n",
            "-----BEGIN NATS USER JWT-----\na.e30.c\n---\n-----BEGIN USER NKEY SEED-----\nSUAAA\n",
            "SUAAAAAA\n",
            "\N{SNOWMAN}",
        ],
    )
    def test_credentials_that_are_none_are_named(self, serve, tmp_path, text):
        file = tmp_path / "host.creds"
        file.write_text(text)
        place = address(serve(), scheme="nats", credentials=file)
        assert str(file) in told(place, "cannot be logged in to")

    def test_a_password_file_that_is_no_text_stops_nothing(self, serve, tmp_path):
        users = 'authorization { users: [ {user: "host", password: "right"} ] }\n'
        secret = tmp_path / "password"
        secret.write_bytes(b"\xff\xfe")
        place = address(serve(users), scheme="nats", user="host", password_file=secret)
        with NatsStore(place, writer=True, options=QUICK) as store:
            with pytest.raises(SourceError, match="is no text"):
                store.identity()
            secret.write_text("right\n")
            for _ in range(20):
                with contextlib.suppress(SourceError):
                    store.write(SG, {"k": b"1"})
                    break
            assert store.get(SG, "k").payload == b"1"

    def test_an_agents_requests_wait_until_the_password_is_right(self, serve, tmp_path):
        users = 'authorization { users: [ {user: "host", password: "right"} ] }\n'
        server = serve(users)
        secret, good = tmp_path / "password", tmp_path / "good"
        secret.write_text("wrong\n")
        good.write_text("right\n")
        place = address(server, scheme="nats", user="host", password_file=secret)
        recorder = Recorder()
        with NatsStore(place, options=QUICK) as store:
            link = SourceLink(store, recorder)
            link.ask(Follow(SG, None))
            recorder.wait_for(lambda events: any("refuses the login" in str(one) for one in events))
            assert works(replace(place, password_file=good))
            secret.write_text("right\n")
            recorder.wait_for(lambda _: any(isinstance(one, Snapshot) for one in recorder.events))
            link.close()


class Site:
    """The server of docs/nats-source.md, with a second host beside the first."""

    def __init__(self, server, folder):
        self.server = server
        self.folder = folder

    def open(self, user, *, writer=False, **options):
        secret = self.folder / user
        secret.write_text(f"{user}-password\n")
        place = address(self.server, scheme="nats", user=user, password_file=secret)
        return NatsStore(place, writer=writer, options=replace(QUICK, **options))

    def refused(self, user, **what):
        return refused(self.server.url, user=user, password=f"{user}-password", **what)


@pytest.fixture
def site(serve, tmp_path):
    text = documented("accounts {")
    user = text[text.index("{ user: host-1") : text.index("] } }") + len("] } }")]
    second = user.replace("host-1", "host-2").replace("rack-1", "rack-2")
    return Site(serve(text.replace(user, f"{user}\n{second}")), tmp_path)


class TestPermissions:
    """What docs/nats-source.md lets a host do is enough, and no more than that."""

    @pytest.mark.parametrize("options", [{}, {"part_bytes": 256, "whole_below": 0}])
    def test_a_host_reads_and_follows_its_slices(self, site, options):
        names = [HOST, "hostgroup/rack-1", "vpc/v", SG, "nbr/v/10.0.0.0"]
        with (
            site.open("publisher", writer=True, **options) as publisher,
            site.open("host-1") as reader,
        ):
            for number, name in enumerate(names):
                records = {f"k{one}": b"x" * 50 for one in range(20)}
                publisher.publish({name: records}, replace_all=False)
                since = publisher.write(name, {"k1": b"1"})
                version = publisher.write(name, {"k2": b"2"})
                assert reader.get(name, "k1").payload == b"1"
                assert reader.snapshot(name).records == {**records, "k1": b"1", "k2": b"2"}
                delta = reader.delta(name, since)
                assert isinstance(delta, Delta)
                assert [change.key for change in delta.changes] == ["k2"]
                recorder = Recorder()
                watch = reader.watch(recorder, reader.identity())
                watch.follow(name, since)
                recorder.wait_for(
                    lambda _, v=version, n=name, r=recorder: any(reaches(e, n, v) for e in r.events)
                )
                version = publisher.write(name, {"k3": b"%d" % number})
                recorder.wait_for(
                    lambda _, v=version, n=name, r=recorder: any(reaches(e, n, v) for e in r.events)
                )
                assert recorder.states() == []
                watch.close()

    def test_a_host_follows_through_a_restart_and_a_store_made_anew(self, site):
        with site.open("publisher", writer=True) as publisher, site.open("host-1") as reader:
            held = publisher.write(SG, {"k": b"1"})
            recorder = Recorder()
            reader.watch(recorder).follow(SG, held)
            settle()
            site.server.stop()
            recorder.wait_for(lambda _: recorder.states())
            site.server.start()
            version = held
            with contextlib.suppress(SourceError):
                version = publisher.write(SG, {"k": b"2"})
            version = publisher.write(SG, {"k": b"2"})
            recorder.wait_for(lambda events: any(reaches(one, SG, version) for one in events))
            link = publisher._link
            for call in ("PURGE", "DELETE"):
                assert link.call(lambda call=call: link.api(f"STREAM.{call}.ondemand", {}))[
                    "success"
                ]
                with pytest.raises(SourceError):
                    reader.identity()
                seen = len(recorder.of(SG))
                publisher.write(SG, {"k": call.encode()})
                identity = reader.identity()
                recorder.wait_for(
                    lambda _, seen=seen, identity=identity: any(
                        one.store == identity
                        for one in recorder.of(SG)[seen:]
                        if isinstance(one, Snapshot)
                    )
                )
                assert recorder.of(SG)[-1].records == {"k": call.encode()}

    def test_another_hosts_slice_is_refused_and_named(self, site, caplog):
        with site.open("publisher", writer=True) as publisher, site.open("host-1") as reader:
            publisher.write(OTHER, {"k": b"1"})
            version = publisher.write(SG, {"k": b"1"})
            for ask in (
                lambda: reader.get(OTHER, "k"),
                lambda: reader.snapshot(OTHER),
                lambda: reader.delta(OTHER, 0),
            ):
                start = time.monotonic()
                with pytest.raises(SourceError) as caught:
                    ask()
                assert "does not let this user publish to" in str(caught.value)
                assert "ondemand.log.host.host-2': allow it in the user's permissions" in str(
                    caught.value
                )
                assert time.monotonic() - start < QUICK.timeout_s, "no wait for what was refused"
            recorder = Recorder()
            watch = reader.watch(recorder)
            with caplog.at_level(logging.WARNING):
                watch.follow(OTHER, 0)
                watch.follow(SG, 0)
                recorder.wait_for(lambda events: any(reaches(e, SG, version) for e in events))
                version = publisher.write(SG, {"k": b"2"})
                recorder.wait_for(lambda events: any(reaches(e, SG, version) for e in events))
                time.sleep(2.5 * QUICK.audit_s)
            warned = [one.getMessage() for one in caplog.records if "host-2" in one.getMessage()]
            assert len(warned) == 1, "told once, though each audit tries again"
            assert "subscribe to 'ondemand.live.host.host-2'" in warned[0]
            assert recorder.of(OTHER) == []

    def test_a_host_may_read_the_versions_of_its_slices(self, site, monkeypatch):
        with site.open("publisher", writer=True) as publisher, site.open("host-1") as reader:
            versions = {name: publisher.write(name, {"k": b"1"}) for name in (HOST, SG)}
            reader.identity()
            monkeypatch.setattr(reader._reader, "_head", None)
            for name, version in versions.items():
                assert reader.delta(name, version) == Delta(name, version, version, ())

    def test_who_may_not_read_versions_reads_commits(self, serve, tmp_path):
        """As with permissions that name `log` and `part` and not what was added later."""
        server = serve(
            """authorization { users: [
                {user: publisher, password: "publisher-password"}
                {user: host-1, password: "host-1-password", permissions: {
                    publish: "$JS.API.DIRECT.GET.ondemand.ondemand.log.>"
                    subscribe: ["_INBOX.host-1.>", "ondemand.live.>"] }} ] }"""
        )
        site = Site(server, tmp_path)
        with site.open("publisher", writer=True) as publisher, site.open("host-1") as reader:
            first = publisher.write(SG, {"k": b"1"})
            version = publisher.write(SG, {"k": b"2"})
            assert reader.delta(SG, version) == Delta(SG, version, version, ())
            assert reader.delta(SG, first).version == version

    def test_nothing_else_can_be_read(self, site):
        with site.open("publisher", writer=True) as publisher:
            publisher.write(OTHER, {"k": b"1"})
            link = publisher._link
            config = {"name": "orders", "subjects": ["orders.>"], "allow_direct": True}
            made = link.call(lambda: link.api("STREAM.CREATE.orders", config))
            assert "error" not in made
        asked = [
            "$JS.API.DIRECT.GET.ondemand",
            "$JS.API.DIRECT.GET.ondemand.ondemand.log.host.host-2",
            "$JS.API.DIRECT.GET.ondemand.ondemand.part.host.host-2.ab.0",
            "$JS.API.DIRECT.GET.ondemand.ondemand.ver.host.host-2",
            "$JS.API.DIRECT.GET.ondemand.ondemand.log.hostgroup.rack-2",
            "$JS.API.DIRECT.GET.orders",
            "$JS.API.DIRECT.GET.orders.orders.new",
            "$JS.API.STREAM.MSG.GET.ondemand",
            "$JS.API.STREAM.INFO.ondemand",
            "$JS.API.STREAM.NAMES",
            "$JS.API.INFO",
            "$JS.API.CONSUMER.CREATE.ondemand",
            "$JS.API.CONSUMER.CREATE.ondemand.c.ondemand.log.host.host-1",
        ]
        assert site.refused("host-1", publish=asked) == set(asked)
        heard = [
            ">",
            "ondemand.>",
            "ondemand.live.>",
            "ondemand.live.host.*",
            "ondemand.live.host.host-2",
            "ondemand.log.>",
            "_INBOX.>",
            "_INBOX.host-2.>",
            "$JS.>",
            "$SYS.>",
        ]
        assert site.refused("host-1", subscribe=heard) == set(heard)

    def test_nothing_can_be_written(self, site):
        with site.open("publisher", writer=True) as publisher:
            version = publisher.write(HOST, {"k": b"1"})
            told = [
                "ondemand.log.host.host-1",
                "ondemand.log.store",
                "ondemand.part.host.host-1.ab.0",
                "ondemand.ver.host.host-1",
                "ondemand.live.host.host-1",
                "ondemand.live.store",
                "_INBOX.host-2.x",
                *(
                    f"$JS.API.STREAM.{call}.ondemand"
                    for call in ("CREATE", "UPDATE", "DELETE", "PURGE", "MSG.DELETE", "RESTORE", "SNAPSHOT")
                ),
                "$JS.API.STREAM.LEADER.STEPDOWN.ondemand",
                "$JS.ACK.ondemand.c.1.1.1.1.1",
            ]  # fmt: skip
            assert site.refused("host-1", publish=told) == set(told)
            assert publisher.snapshot(HOST) == Snapshot(HOST, version, {"k": b"1"})
            with site.open("host-1", writer=True) as host:
                with pytest.raises(SourceError, match="does not let this user publish to"):
                    host.write(HOST, {"k": b"2"})
                with pytest.raises(SourceError, match="does not let this user publish to"):
                    host.publish({HOST: {"k": b"2"}}, replace_all=True)

    def test_the_server_does_not_write_for_a_host_that_asks_it_to_answer_into_the_stream(
        self, site
    ):
        """In one account for all it would: an answer goes where the question says, whoever asks.

        The question is one that a host may ask, and its answer may be another slice's commit.
        """
        with site.open("publisher", writer=True) as publisher, site.open("host-2") as other:
            versions = {name: publisher.write(name, {"k": b"1"}) for name in (SG, GROUP)}
            recorder = Recorder()
            watch = other.watch(recorder)
            for name, version in versions.items():
                watch.follow(name, version)
            settle()
            for asked in ("log.sg.other", "log.sg.nothing", "log.store", "ver.sg.other"):
                for reply in (
                    "log.sg.a",
                    "log.sg.new",
                    "log.store",
                    "ver.sg.a",
                    "live.sg.a",
                    "live.store",
                ):
                    subject = f"$JS.API.DIRECT.GET.ondemand.ondemand.{asked}"
                    assert not site.refused("host-1", publish=[subject], reply=f"ondemand.{reply}")
            settle()
            assert recorder.events == [], "what came to live is of another slice"
            stream = publisher._link.call(lambda: publisher._link.api("STREAM.INFO.ondemand", {}))
            assert stream["state"]["messages"] == 2 * len(versions) + 1
            assert other.snapshot(SG) == Snapshot(SG, versions[SG], {"k": b"1"})
            version = publisher.write(SG, {"k": b"2"})
            recorder.wait_for(lambda events: any(reaches(one, SG, version) for one in events))

    def test_with_one_account_for_all_the_server_would_write_for_a_host(self, serve, tmp_path):
        """Why the hosts have an account of their own. When a server is better, this test says so."""
        server = serve(
            """authorization { users: [
                {user: publisher, password: "publisher-password"}
                {user: host-1, password: "host-1-password", permissions: {
                    publish: "$JS.API.DIRECT.GET.ondemand.>", subscribe: "_INBOX.host-1.>" }} ] }"""
        )
        site = Site(server, tmp_path)
        with site.open("publisher", writer=True) as publisher:
            version = publisher.write(SG, {"k": b"1"})
            subject = "$JS.API.DIRECT.GET.ondemand.ondemand.log.sg."
            site.refused("host-1", publish=[f"{subject}nothing"], reply="ondemand.log.sg.a")
            site.refused("host-1", publish=[f"{subject}a"], reply="ondemand.log.sg.new")
            stream = publisher._link.call(lambda: publisher._link.api("STREAM.INFO.ondemand", {}))
            assert stream["state"]["messages"] == 5
            assert publisher.snapshot(SG) == Snapshot(SG, version, {"k": b"1"})
            assert publisher.snapshot("sg/new") == Snapshot("sg/new", 0, {}), "of another slice"

    def test_a_damaged_slice_stops_no_other_and_heals_with_the_next_publish(self, site, caplog):
        """A host with these permissions cannot look behind the last message of a slice."""
        with site.open("publisher", writer=True) as publisher, site.open("host-1") as reader:
            held = publisher.write(SG, {"k": b"1"})
            recorder = Recorder()
            watch = reader.watch(recorder)
            watch.follow(SG, held)
            watch.follow(HOST, 0)
            settle()
            link = publisher._link
            link.call(lambda: link.request("ondemand.log.sg.a", b"hello"))
            with pytest.raises(SourceError, match="ends with what is no commit"):
                reader.get(SG, "k")
            version = publisher.write(HOST, {"k": b"1"})
            recorder.wait_for(lambda events: any(reaches(one, HOST, version) for one in events))
            time.sleep(2 * QUICK.audit_s)
            assert recorder.of(SG) == [], "what is held stays"
            assert recorder.states() == []
            version = publisher.write(SG, {"k": b"2"})
            recorder.wait_for(lambda events: any(reaches(one, SG, version) for one in events))
            assert reader.get(SG, "k").payload == b"2"

    def test_a_forged_live_message_of_another_slice_is_looked_up(self, serve):
        """On a server without any permissions."""
        server = serve()
        with (
            NatsStore(NatsAddress((server.url,)), writer=True) as publisher,
            NatsStore(NatsAddress((server.url,))) as reader,
        ):
            held = publisher.write(SG, {"k": b"1"})
            recorder = Recorder()
            reader.watch(recorder).follow(SG, held)
            settle()
            records = (("k", held + 5, b"evil"),)
            data = encode(Commit(GROUP, held + 5, held, held, 0, "", 0, records))

            async def forge():
                client = await nats.connect(server.url)
                await client.publish("ondemand.live.sg.a", data)
                await client.close()

            asyncio.run(forge())
            settle()
            assert recorder.events == []


def test_the_same_permissions_in_credentials_of_an_operator(serve, tmp_path):
    subjects = ["$JS.API.DIRECT.GET.ondemand.>", "ondemand.live.>"]
    slices = Account("SLICES", jetstream=True)
    slices.exports = [
        {"name": "read", "subject": subjects[0], "type": "service"},
        {"name": "live", "subject": subjects[1], "type": "stream"},
    ]
    hosts = Account("HOSTS")
    hosts.imports = [{**one, "account": slices.key.public} for one in slices.exports]
    server = serve(operator_configuration(slices, hosts))
    publisher, host = tmp_path / "publisher.creds", tmp_path / "host.creds"
    publisher.write_text(slices.credentials("publisher"))
    mine = {
        "pub": ["$JS.API.DIRECT.GET.ondemand.ondemand.log.store",
                "$JS.API.DIRECT.GET.ondemand.ondemand.*.host.host-1"],
        "sub": ["ondemand.live.store", "ondemand.live.host.host-1", "_INBOX.{user}.>"],
    }  # fmt: skip
    host.write_text(hosts.credentials("host-1", permissions=mine))
    with (
        NatsStore(address(server, scheme="nats", credentials=publisher), writer=True) as writer,
        NatsStore(address(server, scheme="nats", credentials=host), options=QUICK) as reader,
    ):
        version = writer.write(HOST, {"k": b"1"})
        writer.write(OTHER, {"k": b"1"})
        assert reader.get(HOST, "k").payload == b"1"
        recorder = Recorder()
        reader.watch(recorder).follow(HOST, version)
        settle()
        version = writer.write(HOST, {"k": b"2"})
        recorder.wait_for(lambda events: any(reaches(one, HOST, version) for one in events))
        with pytest.raises(SourceError, match="does not let this user publish"):
            reader.get(OTHER, "k")
    assert refused(
        server.url,
        publish=["ondemand.log.host.host-1", "$JS.API.STREAM.PURGE.ondemand"],
        user_credentials=str(host),
        inbox_prefix="_INBOX.x",
    ) == {"ondemand.log.host.host-1", "$JS.API.STREAM.PURGE.ondemand"}


def test_a_user_that_may_not_hear_answers_is_told_so(serve, tmp_path):
    server = serve(
        'authorization { users: [ {user: "host", password: "right", permissions: {\n'
        '  publish: "$JS.API.DIRECT.GET.ondemand.>", subscribe: "ondemand.live.>" } } ] }\n'
    )
    secret = tmp_path / "password"
    secret.write_text("right\n")
    place = address(server, scheme="nats", user="host", password_file=secret)
    assert "'_inbox.host." in told(place, "does not let this user subscribe to")


def test_a_permission_that_is_taken_back_is_told_and_given_again_is_used(tmp_path, caplog):
    """Subscriptions are made again with each connection, and the server may refuse them then."""
    text = (
        'authorization {{ users: [ {{user: "publisher", password: "p"}}\n'
        '  {{user: "host", password: "h", permissions: {{\n'
        '  publish: "$JS.API.DIRECT.GET.ondemand.>", subscribe: ["_INBOX.>", "ondemand.live.{}"] }} }} ] }}\n'
    )
    server = NatsServer(tmp_path, configuration=text.format(">"))
    server.start()
    url = server.url.replace("//", "//{}@")
    with (
        NatsStore(NatsAddress((url.format("publisher:p"),)), writer=True) as publisher,
        NatsStore(NatsAddress((url.format("host:h"),)), options=QUICK) as reader,
    ):
        version = publisher.write(SG, {"k": b"1"})
        recorder = Recorder()
        reader.watch(recorder).follow(SG, version)
        settle()
        for allowed in ("store", ">"):
            server.stop()
            recorder.wait_for(lambda _: recorder.states() and recorder.states()[-1].error)
            server = NatsServer(tmp_path, configuration=text.format(allowed), port=server.port)
            server.start()
            recorder.wait_for(lambda _: recorder.states()[-1] == SourceState(None))
            time.sleep(2 * QUICK.audit_s)
            warned = [one for one in caplog.messages if "subscribe to 'ondemand.live.sg.a'" in one]
            assert len(warned) == 1
        with contextlib.suppress(SourceError):
            publisher.identity()
        version = publisher.write(SG, {"k": b"2"})
        recorder.wait_for(lambda events: any(reaches(one, SG, version) for one in events))
    server.stop()


def test_a_port_where_nobody_listens_is_told_with_its_mend():
    place = NatsAddress((f"nats://127.0.0.1:{free_port()}",))
    assert "start the server" in told(place, "Connection refused")
