"""What pytest must know before it imports any test or its support."""

from __future__ import annotations

import pytest

# Its assertions are the checks of the scenarios, and show their operands like those of a test.
pytest.register_assert_rewrite("tests.support.truth_check")
