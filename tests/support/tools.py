"""Programs that a test needs: without them it is skipped, or fails where it may not be skipped."""

from __future__ import annotations

import os
import shutil

import pytest


def require(*programs: str) -> None:
    """Skip unless all are installed; with ONDEMAND_REQUIRE_SYSTEM=1 that is a failure."""
    missing = [name for name in programs if not shutil.which(name)]
    if not missing:
        return
    reason = "not installed: " + ", ".join(missing)
    if os.environ.get("ONDEMAND_REQUIRE_SYSTEM") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
