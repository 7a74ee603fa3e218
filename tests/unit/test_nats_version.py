"""What the version message promises, with the publishers' own code over a stream made of dictionaries.

Each request and each answer waits until chance picks it, so that publishers meet in all orders; some die on
the way, and some are answered by replicas that lag behind. No server is needed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
from types import SimpleNamespace

import pytest

from controller_app.nats_commit import Commit, StoreInfo, decode_commit, encode
from controller_app.nats_options import NatsAddress, NatsOptions
from controller_app.nats_stream import stream_config
from controller_app.nats_subjects import Subjects
from controller_app.nats_version import decode_version, encode_version
from controller_app.nats_writer import NatsWriter

A = "sg/a"
LOG, VER, STORE = "ondemand.log.sg.a", "ondemand.ver.sg.a", "ondemand.log.store"
DIRECT = "$JS.API.DIRECT.GET.ondemand."
EXPECTED = "Nats-Expected-Last-Subject-Sequence"


class Chance:
    """Lets one of those go on who wait, until all are done."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self._waiting = []

    async def turn(self):
        mine = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        await mine

    async def run(self, *works, deaths=0):
        tasks = [asyncio.create_task(work) for work in works]
        while not all(task.done() for task in tasks):
            for _ in range(20):  # those that were let go come to their next question
                await asyncio.sleep(0)
            self._waiting = [one for one in self._waiting if not one.done()]
            if not self._waiting:
                await asyncio.sleep(0.0005)
            elif deaths and self.rng.random() < 0.05:
                deaths -= 1
                self.rng.choice(tasks).cancel()
            else:
                self._waiting.pop(self.rng.randrange(len(self._waiting))).set_result(None)
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(found, Exception):
                raise found


class Stream:
    """The last message of each subject, and what replicas have that lag behind."""

    def __init__(self):
        self.now = {STORE: (1, encode(StoreInfo(1, "x", 5)))}
        self.past = [dict(self.now)]
        #: Versions that a reader can hold.
        self.stored = {}

    def put(self, subject, data, headers):
        last = self.now.get(subject, (0, b""))[0]
        if int(headers.get(EXPECTED, last)) != last:
            return {"error": {"code": 400, "err_code": 10071, "description": "wrong last sequence"}}
        sequence = sum(1 for _ in self.past) + 1
        self.now[subject] = (sequence, data)
        self.past.append(dict(self.now))
        if subject == LOG:
            commit = decode_commit(A, data)
            assert self.stored.setdefault(commit.version, data) == data
        self.check()
        return {"stream": "ondemand", "seq": sequence}

    def head(self):
        return decode_commit(A, self.now[LOG][1]) if LOG in self.now else None

    def announced(self):
        return decode_version(A, self.now.get(VER, (0, b""))[1])

    def check(self):
        """Who holds what was stored once, and finds it announced, holds the newest."""
        announced = self.announced()
        if announced in self.stored:
            assert self.head().version == announced

    def read(self, subject, lag):
        return self.past[-1 - min(lag, len(self.past) - 1)].get(subject)


class Link:
    """As much of ``NatsLink`` as readers and writers use."""

    generation = 1
    is_connected = True

    def __init__(self, stream, chance, *, lags=False):
        self.address = NatsAddress(("nats://127.0.0.1:4222",))
        self.options = NatsOptions(whole_below=0, in_flight=1)
        self.asked = []
        self._stream, self._chance, self._lags = stream, chance, lags

    async def ready(self):
        return self

    async def part_bytes(self):
        return 1 << 20

    async def request(self, subject, payload=b"", headers=None):
        self.asked.append(subject)
        await self._chance.turn()
        answer = self._answer(subject, payload, headers or {})
        await self._chance.turn()
        return answer

    def _answer(self, subject, payload, headers):
        if subject.startswith(DIRECT):
            lag = self._chance.rng.choice([0, 0, 1, 3, 8]) if self._lags else 0
            found = self._stream.read(subject.removeprefix(DIRECT), lag)
            if found is None:
                return SimpleNamespace(headers={"Status": "404"}, data=b"")
            return SimpleNamespace(headers={"Nats-Sequence": str(found[0])}, data=found[1])
        return SimpleNamespace(
            headers={}, data=json.dumps(self._stream.put(subject, payload, headers)).encode()
        )

    async def api(self, call, arguments):
        await self._chance.turn()
        if call.startswith("STREAM.MSG.GET"):
            found = self._stream.read(arguments["last_by_subj"], 0)
            if found is None:
                return {"error": {"err_code": 10037}}
            data = base64.b64encode(found[1]).decode()
            return {"message": {"seq": found[0], "data": data}}
        if call.startswith("STREAM.INFO"):
            return {"config": stream_config(Subjects("ondemand"))}
        return {}  # a purge of parts


def writer(stream, chance, *, lags=False):
    return NatsWriter(Link(stream, chance, lags=lags), lambda: 10)


@pytest.mark.parametrize("lags", [False, True], ids=["one-server", "lagging-replicas"])
@pytest.mark.parametrize("seed", range(150))
def test_a_version_that_is_announced_and_held_is_the_newest_in_any_order(seed, lags, monkeypatch):
    monkeypatch.setattr("controller_app.nats_writer._PAUSE_MIN_S", 0.0)
    monkeypatch.setattr("controller_app.nats_messages._AGAIN_S", 0.0)

    async def run():
        stream, chance = Stream(), Chance(seed)
        rng = chance.rng
        done = []

        async def publisher(number):
            one = writer(stream, chance, lags=lags)
            with contextlib.suppress(asyncio.CancelledError):
                for count in range(4):
                    # One to three records each, so that versions of different writers meet; some
                    # are there already.
                    changes = {f"k{rng.randrange(2)}": b"%d" % rng.randrange(2)}
                    if rng.random() < 0.5:
                        changes |= {f"l{n}": b"%d %d" % (number, count) for n in range(2)}
                    done.append(await one.write(A, changes))

        await chance.run(*(publisher(number) for number in range(4)), deaths=2)
        return stream, done

    stream, done = asyncio.run(run())
    assert set(done) <= set(stream.stored)
    assert stream.head().version == max(stream.stored)


def test_what_the_order_of_reading_is_for(monkeypatch):
    """A late one that saw the slice long ago announces a version that was stored and is outdated."""

    async def run():
        stream, chance = Stream(), Chance(0)
        late, other = writer(stream, chance), writer(stream, chance)
        await chance.run(other.write(A, {"k": b"0"}))
        state = {}
        load = late._reader.load

        async def read_then_sleep(name, **options):
            state["read"] = await load(name, **options)
            if len(state) == 1:
                state["slept"] = True
                await other.write(A, {"k": b"1"})
                await other.write(A, {"k": b"2"})
            return state["read"]

        monkeypatch.setattr(late._reader, "load", read_then_sleep)
        await chance.run(late.write(A, {"k": b"3"}))
        return stream

    stream = asyncio.run(run())
    assert sorted(stream.stored) == [11, 12, 13, 14]
    assert stream.announced() == stream.head().version == 14


def test_what_is_unchanged_is_not_asked_for_its_version():
    async def run():
        stream, chance = Stream(), Chance(0)
        one = writer(stream, chance)
        await chance.run(one.write(A, {"k": b"0"}))
        one._link.asked.clear()
        await chance.run(one.write(A, {"k": b"0"}))
        return one._link.asked

    assert asyncio.run(run()).count(f"{DIRECT}{VER}") == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\x92\xa4sg/a",
        b"\x92\xa4sg/a\x00",
        b"\x92\xa4sg/a\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x92\xa4sg/a\xa17",
        b"\x92\xa1\xff\x07",
        encode_version("sg/b", 7),
        encode_version(A, 7) + b"\x00",
        b"\x93\xa4sg/a\x07\x01",
        encode(Commit(A, 7, 6, 5, 0, "", 0, ())),
        b"\x91" * 100_000,
    ],
)
def test_what_does_not_tell_the_version_of_the_slice_tells_none(data):
    assert decode_version(A, data) == 0


def test_a_version_is_a_few_bytes():
    name = "nbr/7f3a9c52-b8f4-4a2f-9a43-0123456789ab/10.20.30.0"
    assert decode_version(name, encode_version(name, 1 << 50)) == 1 << 50
    assert len(encode_version(name, 1 << 50)) < len(name) + 15
