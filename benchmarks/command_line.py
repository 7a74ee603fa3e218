"""What the benchmarks' commands have in common: progress, and lists of numbers as arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable


def say(text: str) -> None:
    """A line of progress; the result alone goes to standard output."""
    print(text, file=sys.stderr)


def rising(
    example: str, *, of: str = "numbers", least: int | None = None, most: int | None = None
) -> Callable[[str], tuple[int, ...]]:
    """For argparse's ``type``: reads integers that rise, within the bounds, written as ``example`` is."""
    bounds = "" if most is None else f" in {least}..{most}"

    def read(text: str) -> tuple[int, ...]:
        try:
            numbers = tuple(int(word) for word in text.split(","))
        except ValueError:
            numbers = ()
        if (
            not numbers
            or list(numbers) != sorted(set(numbers))
            or (least is not None and numbers[0] < least)
            or (most is not None and numbers[-1] > most)
        ):
            raise argparse.ArgumentTypeError(
                f"'{text}' is no rising list of {of}{bounds} such as {example}"
            )
        return numbers

    return read


__all__ = ["rising", "say"]
