"""Rows of `make gpu` as tables in Markdown: python tests/gpu/table.py ROWS, its rows.jsonl or a file of benchmarks/results."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def rows_of(path: Path) -> list[dict[str, Any]]:
    """What the file holds."""
    text = path.read_text()
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)["rows"]


def runs(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Whole runs: milliseconds a step once a sampler has its graphs, and of its first call."""
    yield from ("| run | chains | ms a step | first call | 250 at that, s |", "|---|--:|--:|--:|--:|")
    for r in rows:
        if r["kind"] == "run":
            ms = r.get("ms_step_4", r["ms_step_2"])
            yield f"| {r['case']} | {r['chains']} | {ms:.3g} | {r['ms_step_1']:.3g} | {0.25 * ms:.3g} |"


def microseconds(v: float) -> str:
    """Three digits, or all before the point."""
    return f"{v:,.0f}" if v >= 100 else f"{v:.3g}"


def ops(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Ops: device time of a call in a graph, its share of the floor, and how many times as long the baselines take."""
    yield from ("| op | backend | µs | of floor | over *plain* | over *tuned* |", "|---|---|--:|--:|--:|--:|")
    for r in rows:
        if r["kind"] == "time":
            ratios = {b["baseline"]: f"{b['us'] / r['us']:.1f}×" for b in rows if b["kind"] == "base" and b["case"] == r["case"]}
            of_floor = f"{100 * r['of_floor']:.0f} %" if "of_floor" in r else ""  # which conv.py does not ask for
            yield (f"| {r['case']} | {r['backend']} | {microseconds(r['us'])} | {of_floor} | "
                   f"{ratios.get('plain', '')} | {ratios.get('tuned', '')} |")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit(f"table.py: got {' '.join(sys.argv[1:]) or 'nothing'}; wanted one file: rows.jsonl or one of benchmarks/results")
    found = rows_of(Path(sys.argv[1]))
    print("\n".join([*runs(found), "", *ops(found)]))
