"""Counters as a JSON file that other programs read: always whole, never half-written."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

LOG = logging.getLogger(__name__)


def write_metrics(path: Path, status: dict[str, Any]) -> bool:
    """Replace the file by the status; False, and one log line, when that cannot be done."""
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_text(json.dumps(status, indent=1) + "\n")
        beside.replace(path)
    except OSError as error:
        LOG.warning("metrics file %s cannot be written: %s", path, error)
        return False
    return True
