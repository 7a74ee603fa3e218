"""What the demo can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """Options of the demo.

    Attributes:
        neighbors: neighbors that the VPC has beside the VMs of the demo, 0..1000000.
        json_file: where the checks go as JSON; None: nowhere.
        keep_going: go on after a check that did not hold, instead of ending there.
        verbose: also show what the agents log.
    """

    neighbors: int = 0
    json_file: Path | None = None
    keep_going: bool = True
    verbose: bool = False
