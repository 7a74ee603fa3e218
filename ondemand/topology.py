"""One VPC as its slice describes it: subnets, routers, routes and address claims, ready to look up.

Built anew when the VPC's slice changes, which is rare; lookups happen for each new flow. Records that
contradict each other are left out, the one with the later identifier first, and named in ``problems``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ondemand.addresses import Prefix
from ondemand.records import Claim, Record, Route, Router, Subnet


class PrefixTable:
    """Longest prefix match over values, both families."""

    __slots__ = ("_rows",)

    def __init__(self, items: Iterable[tuple[Prefix, object]] = ()) -> None:
        by_length: dict[tuple[int, int], dict[int, list[object]]] = {}
        for prefix, value in items:
            size = len(prefix.network)
            shift = size * 8 - prefix.length
            number = int.from_bytes(prefix.network, "big") >> shift
            by_length.setdefault((size, shift), {}).setdefault(number, []).append(value)
        #: (address size, bits to drop, {prefix: values}), longest prefix first.
        self._rows = sorted(
            ((size, shift, row) for (size, shift), row in by_length.items()),
            key=lambda item: item[1],
        )

    def matches(self, ip: bytes) -> Iterator[object]:
        """The values of all prefixes that hold ``ip``, longest prefix first."""
        number, length = int.from_bytes(ip, "big"), len(ip)
        for size, shift, row in self._rows:
            if size == length:
                yield from row.get(number >> shift, ())


@dataclass(frozen=True, slots=True)
class RouterView:
    """A router with what it joins: its subnets, their gateway addresses, and where it routes to.

    ``table`` has the joined subnets and the static routes; of one prefix the subnet comes first.
    """

    id: str
    subnets: tuple[Subnet, ...]
    gateways: frozenset[bytes]
    table: PrefixTable

    def connected_subnet(self, ip: bytes) -> Subnet | None:
        """The subnet of this router that ``ip`` lies in."""
        return next((found for found in self.table.matches(ip) if isinstance(found, Subnet)), None)

    def route(self, ip: bytes) -> Subnet | Route | None:
        """Where packets to ``ip`` go: the longest prefix wins, be it a subnet's or a route's."""
        found = next(self.table.matches(ip), None)
        return found if isinstance(found, Subnet | Route) else None


class Topology:
    """A VPC's subnets, routers and claims."""

    def __init__(self, records: Mapping[str, Record]) -> None:
        ordered = [records[key] for key in sorted(records)]
        #: What was left out, one sentence each.
        self.problems: list[str] = []
        self.subnets = self._subnets([r for r in ordered if isinstance(r, Subnet)])
        self._router_of = self._routers(ordered)
        claims: dict[str, list[tuple[Prefix, object]]] = {}
        for record in ordered:
            if isinstance(record, Claim):
                claims.setdefault(record.subnet, []).append((record.prefix, record))
        self._claims = {subnet: PrefixTable(items) for subnet, items in claims.items()}

    def router_of(self, subnet: str) -> RouterView | None:
        """The router that a subnet is joined to."""
        return self._router_of.get(subnet)

    def claims(self, subnet: str, ip: bytes) -> list[Claim]:
        """Who claims an address of a subnet: longest prefix first, then in order of port id."""
        table = self._claims.get(subnet)
        found = table.matches(ip) if table is not None else ()
        claims = (claim for claim in found if isinstance(claim, Claim))
        return sorted(claims, key=lambda claim: (-claim.prefix.length, claim.port, claim.mac))

    def subnet_of(self, ip: bytes) -> list[Subnet]:
        """The subnets that an address lies in (several only when unconnected subnets overlap)."""
        return [s for s in self.subnets.values() if any(p.contains(ip) for p in s.prefixes)]

    def _subnets(self, subnets: list[Subnet]) -> dict[str, Subnet]:
        kept: dict[str, Subnet] = {}
        by_vni: dict[int, str] = {}
        for subnet in subnets:
            other = by_vni.setdefault(subnet.vni, subnet.id)
            if other != subnet.id:
                self.problems.append(
                    f"subnet {subnet.id!r} has VNI {subnet.vni}, which is that of {other!r}"
                )
            else:
                kept[subnet.id] = subnet
        return kept

    def _routers(self, records: list[Record]) -> dict[str, RouterView]:
        routes: dict[str, list[tuple[Prefix, object]]] = {}
        for record in records:
            if isinstance(record, Route):
                routes.setdefault(record.router, []).append((record.prefix, record))
        views: dict[str, RouterView] = {}
        for router in (r for r in records if isinstance(r, Router)):
            joined = []
            for name in router.subnets:
                subnet = self.subnets.get(name)
                if subnet is None:
                    self.problems.append(f"router {router.id!r} names subnet {name!r}, unknown")
                elif not subnet.gateways:
                    self.problems.append(
                        f"router {router.id!r} joins subnet {name!r}, which has no gateway"
                    )
                elif name in views:
                    self.problems.append(f"subnet {name!r} is on router {views[name].id!r} already")
                else:
                    joined.append(subnet)
            view = RouterView(
                id=router.id,
                subnets=tuple(joined),
                gateways=frozenset(ip for s in joined for ip in s.gateways),
                table=PrefixTable(
                    [*((p, s) for s in joined for p in s.prefixes), *routes.get(router.id, ())]
                ),
            )
            for subnet in joined:
                views[subnet.id] = view
        return views
