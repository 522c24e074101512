"""The table as Markdown, from records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ..records import Record
from .methods import METHODS

COLUMNS = {"psnr": "PSNR", "ssim": "SSIM", "nrmse": "NRMSE", "wall": "s", "cpu": "CPU s", "cover 50": "50 %", "cover 90": "90 %",
           "error-std": "error–std", "rhat": "R-hat"}
DIGITS = {"psnr": 2, "ssim": 3, "nrmse": 3, "wall": 1, "cpu": 1, "cover 50": 2, "cover 90": 2, "error-std": 2, "rhat": 1}
TOLD = 1.1  # R-hat above which it is printed


def markdown(records: Sequence[Record], kind: str) -> Iterator[str]:
    """A table a cell, a row a method: means over images; what a method lacked in words."""
    rows = [record for record in records if record["kind"] == kind]
    for cell in dict.fromkeys(record["cell"] for record in rows):
        by_method = defaultdict[str, list[Record]](list)
        for record in rows:
            if record["cell"] == cell:
                by_method[record["method"]].append(record)
        yield f"\n**{cell}**\n"
        yield "| method | images | " + " | ".join(COLUMNS.values()) + " |"
        yield "|---|--:|" + "--:|" * len(COLUMNS)
        for method in (name for name in METHODS if name in by_method):
            yield row(method, by_method[method])


def row(method: str, found: Sequence[Record]) -> str:
    """Of one method in one cell."""
    lacks = [record["missing"] for record in found if "missing" in record]
    if lacks:
        return f"| {method} | 0 | {lacks[0]} |" + " |" * (len(COLUMNS) - 1)
    return f"| {method} | {len(found)} | " + " | ".join(cell(name, found) for name in COLUMNS) + " |"


def cell(name: str, found: Sequence[Record]) -> str:
    """A mean; of R-hat the median where that is above TOLD."""
    values = [record[name] for record in found if record.get(name) is not None]
    if not values:
        return ""
    value = float(np.median(values) if name == "rhat" else np.mean(values))
    return "" if name == "rhat" and value <= TOLD else f"{value:.{DIGITS[name]}f}"


def behind(records: Sequence[Record]) -> Iterator[str]:
    """Where a method of others has the higher PSNR on the images that it shares with ours, a line each."""
    psnrs = {(r["image"], r["cell"], r["method"]): r["psnr"] for r in records if r.get("psnr") is not None}
    ours = [name for name in METHODS if name.startswith("ours, MMSE")]
    for name in ours:
        for kind, where in dict.fromkeys((r["kind"], r["cell"]) for r in records if r.get("psnr") is not None):
            images = {r["image"] for r in records if r["kind"] == kind and r["cell"] == where}
            for other in (m for m in METHODS if not m.startswith("ours")):
                both = [(psnrs[i, where, name], psnrs[i, where, other]) for i in images
                        if (i, where, name) in psnrs and (i, where, other) in psnrs]
                if both and (gap := float(np.mean([a - b for a, b in both]))) < 0:
                    yield f"- {name}, {kind}, {where}: {-gap:.2f} dB behind {other} ({len(both)} images)"
