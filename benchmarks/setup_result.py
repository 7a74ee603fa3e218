"""What the runs of ``setup_rate`` come to, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.controllers import Contender
from benchmarks.machine import machine_line
from benchmarks.setup_cells import Cell
from benchmarks.setup_contenders import FULL, INSTRUMENT_SHARE, LATENCY, NULL, PAIRS
from benchmarks.summary import Spread, ratio, spread_text, table
from benchmarks.switch_run import SwitchRun

_FIELDS = (
    *("rate_per_s", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"),
    *("controller_cpu_us_per_flow", "switch_busy"),
)


def contender_json(one: Contender, runs: Sequence[SwitchRun], verified: int) -> dict[str, Any]:
    """One contender in one cell."""
    faults = sorted({fault for run in runs for fault in run.faults})
    summary = {} if faults else {phase: _phase_json(phase, runs) for phase in runs[0].phases}
    return {
        "name": one.name,
        "expect": one.expect,
        "faults": faults,
        "answers": sum(phase.answered for run in runs for phase in run.phases.values()),
        "samples_verified": verified,
        "controller_rss_mib": Spread.of([run.controller_rss_mib for run in runs]).as_json(),
        "summary": summary,
        "runs": [asdict(run) for run in runs],
    }


def _phase_json(phase: str, runs: Sequence[SwitchRun]) -> dict[str, Any]:
    results = [run.phases[phase] for run in runs]
    return {
        name: Spread.of([getattr(result, name) for result in results]).as_json() for name in _FIELDS
    } | {"window": results[0].window}


def mark_lower_bounds(null: Mapping[str, Any], others: Sequence[dict[str, Any]]) -> None:
    """Say of each phase whether the instrument limits it, so that its rate is at least what was measured.

    That is so when it comes near the null responder's rate, or the fake switch hardly ever waits.
    """
    for one in others:
        for phase, said in one["summary"].items():
            limit = null["summary"].get(phase, {}).get("rate_per_s")
            is_near = limit is not None and (
                said["rate_per_s"]["median"] > INSTRUMENT_SHARE * limit["median"]
            )
            is_busy = said["switch_busy"]["median"] > INSTRUMENT_SHARE
            said["is_lower_bound"] = is_near or is_busy


def ratios(
    contenders: Sequence[Mapping[str, Any]], runs: Mapping[str, Sequence[SwitchRun]]
) -> list[dict[str, Any]]:
    """Each of ours against each of theirs; nothing where answers were wrong or the instrument was the limit."""
    good = {
        one["name"]
        for one in contenders
        if not one["faults"] and not one["summary"][FULL]["is_lower_bound"]
    }

    def of(name: str, phase: str, field: str) -> list[float]:
        return [getattr(run.phases[phase], field) for run in runs[name]]

    return [
        {
            "ours": ours,
            "theirs": theirs,
            "rate": ratio(*(of(name, FULL, "rate_per_s") for name in (ours, theirs))).as_json(),
            "latency_p50": ratio(
                *(of(name, LATENCY, "p50_us") for name in (ours, theirs))
            ).as_json(),
        }
        for ours, theirs in PAIRS
        if ours in good and theirs in good
    ]


def cell_json(cell: Cell, contenders: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "rules": cell.rules,
        "neighbors": cell.neighbors,
        "match": cell.match,
        "contenders": list(contenders),
    }


# -------------------------------------------------------------------------------------------- as text


def print_result(result: Mapping[str, Any]) -> None:
    parameters = result["parameters"]
    print(machine_line(result["machine"]))
    print(
        f"{parameters['rules']:,} security rules per port, {parameters['neighbors']:,} neighbors, "
        f"match = {parameters['match']}; median (least-greatest) of "
        f"{parameters['repetitions']} repetitions"
    )
    print(
        "us: one packet-in outstanding. flows/s: 1,000 outstanding. busy: of the fake switch then."
    )
    print()
    print(_main_table(result["contenders"]))
    for one in result["contenders"]:
        for fault in one["faults"]:
            print(f"{one['name']}: {fault}")
    print()
    print(_instrument(result["contenders"]))
    for pair in result["ratios"]:
        print(
            f"{pair['ours']} / {pair['theirs']}: rate x {spread_text(pair['rate'], 2)}, "
            f"p50 x {spread_text(pair['latency_p50'], 2)}"
        )
    _print_windows(result["contenders"])
    _print_cells(result)


def _main_table(contenders: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for one in contenders:
        if one["faults"]:
            rows.append([one["name"], "not comparable", "", "", "", "", ""])
            continue
        single, full = one["summary"][LATENCY], one["summary"][FULL]
        rows.append(
            [
                one["name"],
                spread_text(single["p50_us"], 0),
                spread_text(single["p99_us"], 0),
                _rate(full),
                f"{full['controller_cpu_us_per_flow']['median']:.1f}",
                f"{full['switch_busy']['median']:.0%}",
                f"{one['samples_verified']}",
            ]
        )
    return table(["", "p50 us", "p99 us", "flows/s", "CPU us/flow", "busy", "checked"], rows)


def _instrument(contenders: Sequence[Mapping[str, Any]]) -> str:
    """Whether the fake switch could have been what limits somebody."""
    rates = {one["name"]: one["summary"][FULL] for one in contenders if not one["faults"]}
    null = rates.pop(NULL, None)
    if null is None or not rates:
        return "The instrument itself could not be measured: no figure says that it is no limit."
    limited = [name for name, full in rates.items() if full["is_lower_bound"]]
    fastest = max(rates.values(), key=lambda full: full["rate_per_s"]["median"])
    times = null["rate_per_s"]["median"] / fastest["rate_per_s"]["median"]
    words = (
        f"The instrument does {null['rate_per_s']['median']:,.0f} flows/s with a responder that thinks "
        f"nothing, {times:.1f} times the fastest contender."
    )
    if limited:
        return (
            f"{words} It is the limit of: {', '.join(limited)}; their rates are lower bounds (>=), and "
            "no ratio is made of them."
        )
    return f"{words} It is nobody's limit."


def _print_windows(contenders: Sequence[Mapping[str, Any]]) -> None:
    good = [one for one in contenders if not one["faults"]]
    phases = [name for name in (good[0]["summary"] if good else ()) if name != "warm-up"]
    if not good:
        return
    print("\nBy packet-ins outstanding, medians")
    for words, field in (("flows/s", "rate_per_s"), ("p50 us", "p50_us"), ("p99 us", "p99_us")):
        head = [words, *(f"{good[0]['summary'][phase]['window']:,}" for phase in phases)]
        rows = [
            [one["name"], *(_cell(one["summary"][phase], field) for phase in phases)]
            for one in good
        ]
        print(table(head, rows))


def _cell(said: Mapping[str, Any], field: str) -> str:
    """Latencies have no bound to be below: the instrument's share is in all of them alike."""
    bound = ">=" if field == "rate_per_s" and said.get("is_lower_bound") else ""
    return f"{bound}{said[field]['median']:,.0f}"


def _print_cells(result: Mapping[str, Any]) -> None:
    if not result.get("cells"):
        return
    rows = []
    for cell in result["cells"]:
        where = str(Cell(cell["rules"], cell["neighbors"], cell["match"]))
        for one in cell["contenders"]:
            if one["faults"]:
                rows.append([f"{where}: {one['name']}", "; ".join(one["faults"]), "", ""])
                continue
            single, full = one["summary"][LATENCY], one["summary"][FULL]
            rows.append(
                [
                    f"{where}: {one['name']}",
                    _rate(full),
                    spread_text(single["p50_us"], 0),
                    f"{full['controller_cpu_us_per_flow']['median']:.1f}",
                ]
            )
    print("\nBy rules, neighbors and match")
    print(table(["", "flows/s", "p50 us, one outstanding", "CPU us/flow"], rows))


def _rate(said: Mapping[str, Any]) -> str:
    return (">= " if said.get("is_lower_bound") else "") + spread_text(said["rate_per_s"], 0)


__all__ = ["cell_json", "contender_json", "mark_lower_bounds", "print_result", "ratios"]
