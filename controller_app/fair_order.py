"""Packet-ins of many ports in turns, so that one port's flood does not stand before another's packet."""

from __future__ import annotations

from collections.abc import Sequence

#: Where a message starts and where it ends in the buffer.
Place = tuple[int, int]

# Of a packet-in's match Open vSwitch sends in_port first: header, type and length of the match, header
# of the field (OpenFlow 1.3.5 sections 7.1, 7.4.1). Where it did not, the order would only be another.
_IN_PORT = slice(32, 36)


def in_turns(buf: bytes, packet_ins: Sequence[Place]) -> Sequence[Place]:
    """One packet-in of each port, then the second of each, and so on; of one port in their order."""
    queues: dict[bytes, list[Place]] = {}
    for place in packet_ins:
        start = place[0]
        port = buf[start + _IN_PORT.start : start + _IN_PORT.stop]
        queue = queues.get(port)
        if queue is None:
            queues[port] = [place]
        else:
            queue.append(place)
    if len(queues) < 2:
        return packet_ins
    turns: list[Place] = []
    waiting = list(queues.values())
    turn = 0
    while waiting:
        turns += [queue[turn] for queue in waiting]
        turn += 1
        waiting = [queue for queue in waiting if len(queue) > turn]
    return turns
