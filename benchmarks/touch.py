"""Send one datagram to each of many addresses, at a bounded rate. Run by path; standard library only.

touch 10.64.0.16 2000 --step 500 --rate 1500
"""

from __future__ import annotations

import argparse
import ipaddress
import socket
import sys
import time
from typing import Final

MAX_COUNT: Final = 100_000
MAX_RATE: Final = 20_000
PORT: Final = 9000
_BURST: Final = 8


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="touch")
    parser.add_argument("first", type=ipaddress.IPv4Address)
    parser.add_argument("count", type=int)
    parser.add_argument("--step", type=int, default=1, help="from one address to the next")
    parser.add_argument("--rate", type=int, default=1_000, help="datagrams a second")
    options = parser.parse_args(arguments)
    if not 1 <= options.count <= MAX_COUNT or not 1 <= options.rate <= MAX_RATE:
        parser.error(f"count is in 1..{MAX_COUNT}, --rate in 1..{MAX_RATE}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        # From one port, so that a second time makes no more connections.
        sock.bind(("", PORT))
        start_s = time.monotonic()
        for number in range(options.count):
            if number % _BURST == 0:
                time.sleep(max(0.0, start_s + number / options.rate - time.monotonic()))
            sock.sendto(b"touch", (str(options.first + number * options.step), PORT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
