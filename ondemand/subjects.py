"""What an installed rule is about, so that its decision can be made again when a record changes.

A rule does not say which decision it came from: the location rule of a destination may be the first
hop of several. So the ledger keeps the question beside the answer, and "each installed rule equals a
fresh decision" can be put into practice by asking again.
"""

from __future__ import annotations

import msgspec

from ondemand.flow import Flow


class VerdictSubject(msgspec.Struct, frozen=True, gc=False):
    """May the port in ``zone`` have this connection?"""

    zone: int
    flow: Flow


class LocationSubject(msgspec.Struct, frozen=True, gc=False):
    """Where do packets of the subnet of the port in ``zone`` go, sent to this MAC and address?

    ``echo`` asks on behalf of an ICMP echo request, which alone the gateway answers.
    """

    zone: int
    eth_dst: bytes
    ip_dst: bytes
    echo: bool = False


class ResolveSubject(msgspec.Struct, frozen=True, gc=False):
    """Who answers the port in ``zone`` when it asks for this address by ARP or ND?"""

    zone: int
    target: bytes


Subject = VerdictSubject | LocationSubject | ResolveSubject
