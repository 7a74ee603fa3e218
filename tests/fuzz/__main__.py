"""``make fuzz ARGS='--frames 1000000 --seed 1'``: hostile input by the million.

Exit code: 0 nothing was found, 1 something was: it is printed with its seed and kept in the corpus,
2 usage.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable

from tests.fuzz.run import TARGETS, Finding, Summary, keep, run


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1_000_000, help="inputs per target (1000000)")
    parser.add_argument("--seed", type=int, default=1, help="(1)")
    parser.add_argument("--seconds", type=float, default=120.0, help="most per target (120)")
    parser.add_argument("--target", choices=TARGETS, action="append", help="(all)")
    parser.add_argument("--keep", action="store_true", help="put new outcomes into the corpus")
    args = parser.parse_args(argv)
    # What the agent would warn of is what is sent here.
    logging.disable(logging.CRITICAL)
    found = 0
    for name in args.target or TARGETS:
        target = TARGETS[name](args.seed)
        summary = run(target, args.frames, seconds=args.seconds, progress=_progress(name))
        _tell(name, args.seed, summary)
        found += len(summary.findings)
        if args.keep:
            _say(f"  {keep(target, summary.fresh)} new outcomes put into the corpus")
        for finding in summary.findings:
            finding.given.save()
    return 1 if found else 0


def _progress(name: str) -> Callable[[Summary], None]:
    def tell(summary: Summary) -> None:
        rate = summary.count / max(summary.seconds, 1e-9)
        _say(
            f"  {name}: {summary.count:,} in {summary.seconds:.0f} s ({rate:,.0f}/s),"
            f" {len(summary.outcomes)} outcomes, {len(summary.findings)} findings"
        )

    return tell


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _tell(name: str, seed: int, summary: Summary) -> None:
    rate = summary.count / max(summary.seconds, 1e-9)
    _say(
        f"{name}, seed {seed}: {summary.count:,} inputs in {summary.seconds:.1f} s ({rate:,.0f}/s),"
        f" the slowest {summary.slowest_s * 1e3:.1f} ms; {len(summary.findings)} findings"
    )
    for outcome, count in sorted(summary.outcomes.items()):
        new = "  (new)" if outcome in summary.fresh else ""
        _say(f"  {count:>9,}  {outcome}{new}")
    for finding in summary.findings:
        _tell_finding(seed, finding)


def _tell_finding(seed: int, finding: Finding) -> None:
    given = finding.given
    how = "by itself" if finding.alone else "only after inputs before it: run the seed again"
    _say(f"FINDING (seed {seed}, {how}): {finding.error}")
    _say(f"  {dict(given.facts)}")
    _say(f"  {given.data.hex()}")
    _say(f"  kept as {given.path}")


if __name__ == "__main__":
    sys.exit(main())
