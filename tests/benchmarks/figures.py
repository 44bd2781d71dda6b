"""What the runs of gpu.py come to: ratios within each run, then the median over the runs, the least and the most.

Pure arithmetic. A run is what every model did in it: {model: {"tokens_per_second": …, "first_token_s": …}}; a speed is
None where it could not be told, and such a run does not count.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Run = Mapping[str, Mapping[str, float | None]]
Limits = Mapping[str, float]
"""Seconds that a token of each model takes at the least."""

AIM_OF_LIMIT, AIM_OVER_THREADS = 0.8, 3.0


def spread(values: Sequence[float | None]) -> dict[str, float]:
    """Median, least and most of those that are known. Raises ValueError where none is."""
    known = [value for value in values if value is not None]
    if not known:
        raise ValueError("no run gave this figure: ask for longer answers (--tokens)")
    return {"median": statistics.median(known), "least": min(known), "most": max(known), "runs": len(known)}


def both(run: Run) -> float | None:
    """Tokens a second of all models of a run."""
    speeds = [its["tokens_per_second"] for its in run.values()]
    return None if None in speeds else sum(speed or 0 for speed in speeds)


def of_limit(run: Run, limits: Limits) -> float | None:
    """The part of each second that the card needs for the speeds of a run, at the least."""
    parts = [times(its["tokens_per_second"], limits[name]) for name, its in run.items()]
    return None if None in parts else sum(part or 0 for part in parts)


def over(ours: Run, plain: Run) -> float | None:
    """Tokens a second of all models of one run over those of the other."""
    one, other = both(ours), both(plain)
    return None if one is None or other is None else one / other


def times(one: float | None, other: float) -> float | None:
    return None if one is None else one * other


def panels(runs: Sequence[Run], limits: Limits) -> dict[str, Any]:
    """Each model's own figures over the runs."""
    return {
        name: {
            "tokens_per_second": spread([run[name]["tokens_per_second"] for run in runs]),
            "of_limit": spread([times(run[name]["tokens_per_second"], limits[name]) for run in runs]),
            "first_token_s": spread([run[name]["first_token_s"] for run in runs]),
        }
        for name in runs[0]
    }


def summary(measured: Mapping[str, Mapping[str, Sequence[Run]]], limits: Limits) -> dict[str, Any]:
    """The figures that docs/benchmarks.md promises, from the runs by place ("processes", …), then by "alone", …"""
    found: dict[str, Any] = {}
    for where, ways in measured.items():
        found[where] = {how: panels(runs, limits) for how, runs in ways.items()}
        for how, runs in ways.items():
            if how.startswith("together"):
                found[where][how]["both"] = spread([both(run) for run in runs])
                found[where][how]["of_limit"] = spread([of_limit(run, limits) for run in runs])
    if "processes" in measured and "generate" in measured:
        pairs = zip(measured["processes"]["together"], measured["generate"]["together"], strict=True)
        found["over_threads"] = spread([over(ours, plain) for ours, plain in pairs])
    return found


def lines(found: Mapping[str, Any]) -> list[str]:
    """A summary as a table."""
    table = []
    for where, ways in found.items():
        if where == "over_threads":
            continue
        for how, its in ways.items():
            for name in [name for name in its if name not in ("both", "of_limit")]:
                table.append(f"{where:24}{how:20}{name:10}{_panel(its[name])}")
            if "both" in its:
                table.append(f"{where:24}{how:20}both      {shown(its['both'], 1)} tokens/s, of the limit "
                             f"{shown(its['of_limit'], 3)}")  # fmt: skip
    if "processes" in found:
        part = shown(found["processes"]["together"]["of_limit"], 3)
        table.append(f"of the limit, together, in processes: {part} (aim {AIM_OF_LIMIT})")
    if "over_threads" in found:
        table.append(f"over two threads of generate: {shown(found['over_threads'], 2)} (aim {AIM_OVER_THREADS})")
    else:
        table.append("over two threads of generate: not compared")
    return table


def shown(figures: Mapping[str, float], digits: int, scale: float = 1) -> str:
    least, most = figures["least"] * scale, figures["most"] * scale
    return f"{figures['median'] * scale:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


def _panel(its: Mapping[str, Any]) -> str:
    return (
        f"{shown(its['tokens_per_second'], 1)} tokens/s, {shown(its['of_limit'], 2)} of its limit, "
        f"first after {shown(its['first_token_s'], 0, 1000)} ms"
    )
