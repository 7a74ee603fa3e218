"""How fast a small record is decoded and validated, with msgspec, with pydantic and by hand.

Each contender turns the msgpack bytes of a neighbor (7 fields) into an immutable value, and must
refuse the same bad records. They take turns in every round, so that a busy machine slows them alike.
pydantic is no dependency of this project: without it (`pip install pydantic`) its row is left out.

    python -m benchmarks.record_decode [--records N] [--rounds N] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import platform
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgpack
import msgspec

from benchmarks.machine import describe_machine
from benchmarks.summary import Spread, ratio

Decode = Callable[[bytes], object]

FIELDS = ("ip", "mac", "subnet", "port", "host", "revision", "groups")
GOOD: dict[str, Any] = {
    "ip": bytes((10, 0, 1, 7)),
    "mac": bytes((2, 0, 0, 0, 1, 7)),
    "subnet": "7e5c1b0a-subnet",
    "port": "0b9f3d52-port",
    "host": bytes((192, 0, 2, 3)),
    "revision": 12,
    "groups": ["web", "metrics"],
}
BAD: tuple[dict[str, Any], ...] = (
    GOOD | {"ip": bytes(5)},
    GOOD | {"mac": bytes(5)},
    GOOD | {"host": "192.0.2.3"},
    GOOD | {"revision": -1},
    GOOD | {"revision": "12"},
    GOOD | {"groups": ["web", 3]},
    {name: value for name, value in GOOD.items() if name != "port"},
)

Mac = Annotated[bytes, msgspec.Meta(min_length=6, max_length=6)]
Revision = Annotated[int, msgspec.Meta(ge=0)]


def is_address(value: bytes) -> bool:
    return len(value) in (4, 16)


class MapStruct(msgspec.Struct, frozen=True, gc=False):
    """A neighbor whose fields are named on the wire."""

    ip: bytes
    mac: Mac
    subnet: str
    port: str
    host: bytes
    revision: Revision
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        if not (is_address(self.ip) and is_address(self.host)):
            raise ValueError("an address has 4 or 16 bytes")


class ArrayStruct(MapStruct, frozen=True, gc=False, array_like=True):
    """The same neighbor, its fields known by their place."""


@dataclass(frozen=True, slots=True)
class ByHand:
    """The same neighbor, each field checked by code of ours."""

    ip: bytes
    mac: bytes
    subnet: str
    port: str
    host: bytes
    revision: int
    groups: tuple[str, ...]


def decode_by_hand(data: bytes) -> ByHand:
    """Raise ValueError or KeyError for what is not a neighbor."""
    raw = msgpack.unpackb(data)
    if type(raw) is not dict:
        raise ValueError("a neighbor is a map")
    ip, mac, host = raw["ip"], raw["mac"], raw["host"]
    subnet, port, revision, groups = raw["subnet"], raw["port"], raw["revision"], raw["groups"]
    if (
        type(ip) is not bytes
        or type(host) is not bytes
        or not (is_address(ip) and is_address(host))
    ):
        raise ValueError("an address has 4 or 16 bytes")
    if type(mac) is not bytes or len(mac) != 6:
        raise ValueError("a MAC has 6 bytes")
    if type(subnet) is not str or type(port) is not str:
        raise ValueError("an identifier is a string")
    if type(revision) is not int or revision < 0:
        raise ValueError("a revision counts from 0")
    if type(groups) is not list or not all(type(group) is str for group in groups):
        raise ValueError("groups are strings")
    return ByHand(ip, mac, subnet, port, host, revision, tuple(groups))


def decode_in_two_steps(data: bytes) -> ArrayStruct:
    """As the slice codec does: msgpack bounds what it reads, msgspec converts and validates."""
    raw = msgpack.unpackb(data, max_array_len=4096, max_map_len=0, max_ext_len=0)
    return msgspec.convert(raw, ArrayStruct, builtin_types=(bytes,))


def pydantic_decoder() -> Decode:
    from pydantic import AfterValidator, BaseModel, ConfigDict, Field  # noqa: PLC0415 - optional

    def checked(value: bytes) -> bytes:
        if not is_address(value):
            raise ValueError("an address has 4 or 16 bytes")
        return value

    address = Annotated[bytes, AfterValidator(checked)]

    class Model(BaseModel):
        # Strict as the others are; a list becomes a tuple, since msgpack has no tuple.
        model_config = ConfigDict(frozen=True, strict=True)
        ip: address
        mac: Annotated[bytes, Field(min_length=6, max_length=6)]
        subnet: str
        port: str
        host: address
        revision: Annotated[int, Field(ge=0)]
        groups: Annotated[tuple[str, ...], Field(strict=False)]

    # The annotations above are text (see the __future__ import) and name things of this function.
    Model.model_rebuild(
        _types_namespace={"address": address, "Annotated": Annotated, "Field": Field}
    )
    validate = Model.model_validate
    unpack = msgpack.unpackb
    return lambda data: validate(unpack(data))


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to decode, and the bytes that it is given."""

    name: str
    decode: Decode
    encode: Callable[[dict[str, Any]], bytes]


def contenders() -> list[Contender]:
    def as_map(record: dict[str, Any]) -> bytes:
        return msgspec.msgpack.encode(record)

    def as_array(record: dict[str, Any]) -> bytes:
        return msgspec.msgpack.encode([record[name] for name in FIELDS if name in record])

    found = [
        Contender("msgspec, array", msgspec.msgpack.Decoder(ArrayStruct).decode, as_array),
        Contender("msgspec, map", msgspec.msgpack.Decoder(MapStruct).decode, as_map),
        Contender("msgpack + msgspec, array", decode_in_two_steps, as_array),
        Contender("msgpack + dataclass", decode_by_hand, as_map),
    ]
    if importlib.util.find_spec("pydantic"):
        found.append(Contender("msgpack + pydantic", pydantic_decoder(), as_map))
    return found


def check(contender: Contender) -> None:
    """Raise RuntimeError if a contender does not do the work that it is timed for."""
    value = contender.decode(contender.encode(GOOD))
    for name in FIELDS:
        expected = tuple(GOOD[name]) if name == "groups" else GOOD[name]
        if getattr(value, name) != expected:
            raise RuntimeError(f"{contender.name} decodes {name} wrongly")
    for bad in BAD:
        try:
            contender.decode(contender.encode(bad))
        except (ValueError, KeyError):  # msgspec's and pydantic's errors are ValueErrors
            continue
        raise RuntimeError(f"{contender.name} accepts the bad record {bad}")


def time_of(contender: Contender, records: int) -> float:
    """Microseconds for one record, over so many; the garbage collector runs as it does in use."""
    data, decode = contender.encode(GOOD), contender.decode
    begin = time.perf_counter()
    for _ in range(records):
        decode(data)
    return (time.perf_counter() - begin) * 1e6 / records


def memory_of(contender: Contender) -> float:
    """Bytes for one record that is kept, over 10,000."""
    count = 10_000
    data = contender.encode(GOOD)
    kept: list[object] = [None] * count
    tracemalloc.start()
    for index in range(count):
        kept[index] = contender.decode(data)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / count


def measure(records: int, rounds: int) -> list[dict[str, Any]]:
    found = contenders()
    for contender in found:
        check(contender)
    times: dict[str, list[float]] = {contender.name: [] for contender in found}
    for _ in range(rounds):
        for contender in found:
            times[contender.name].append(time_of(contender, records))
    fastest = times[found[0].name]
    return [
        {
            "name": contender.name,
            "us_per_record": round(statistics.median(times[contender.name]), 3),
            "us_spread": Spread.of(times[contender.name]).as_json(),
            "ratio": round(
                statistics.median(times[contender.name]) / statistics.median(fastest), 1
            ),
            "ratio_spread": ratio(times[contender.name], fastest).as_json(),
            "bytes_per_record": round(memory_of(contender)),
            "bytes_on_wire": len(contender.encode(GOOD)),
            "gc_tracked": gc.is_tracked(contender.decode(contender.encode(GOOD))),
        }
        for contender in found
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.record_decode", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--records", type=int, help="decodes in a round (20000; quick: 5000)")
    parser.add_argument("--rounds", type=int, help="rounds; the median counts (7; quick: 5)")
    parser.add_argument("--quick", action="store_true", help="fewer decodes and rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args(arguments)
    given = (options.records, options.rounds)
    preset = (5_000, 5) if options.quick else (20_000, 7)
    records, rounds = (a if a is not None else b for a, b in zip(given, preset, strict=True))
    if records < 1 or rounds < 1:
        parser.error("--records and --rounds must be at least 1")

    machine = describe_machine()
    rows = measure(records, rounds)
    print(f"Python {platform.python_version()}, {platform.machine()}, median of {rounds}")
    print(f"{'decoder':<26}{'us/record':>10}{'ratio':>7}{'bytes kept':>12}{'on wire':>9}  in gc")
    for row in rows:
        print(
            f"{row['name']:<26}{row['us_per_record']:>10.2f}{row['ratio']:>7.1f}"
            f"{row['bytes_per_record']:>12}{row['bytes_on_wire']:>9}  {row['gc_tracked']}"
        )
    if importlib.util.find_spec("pydantic") is None:
        print("pydantic is not installed, so it was left out")
    if options.json:
        result = {
            "benchmark": "record_decode",
            "machine": machine,
            "parameters": {"records": records, "rounds": rounds},
            "rows": rows,
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
