"""The table in Markdown: a mean over images with its standard error in every cell, row by row."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from .figures import FIGURES
from .methods import METHODS
from .problems import ROWS

COSTS = ("evaluations", "cpu", "wall")
COLUMNS = ("method", "images", *(f"{name}, dB" if name.startswith("psnr") else name for name in FIGURES), "evaluations",
           "CPU s", "wall s", "minus DAPS, dB")
BESIDE = "DAPS"
BRIEF = {"psnr mean": 2, "cover 90": 3, "ksd": 3, "cpu": 1}  # and digits


def spread(values: Iterable[float | None]) -> tuple[float, float, int]:
    """Mean, its standard error (NaN of one), and how many there are."""
    known = np.array([v for v in values if v is not None and math.isfinite(v)])
    count = len(known)
    return (float(known.mean()) if count else math.nan, float(known.std(ddof=1)) / count**0.5 if count > 1 else math.nan, count)


def of_mean(line: dict[str, Any]) -> float:
    """The PSNR of a mean, NaN of one that lost chains have no number for."""
    value = line["psnr mean"]
    return math.nan if value is None else float(value)


def cell(values: Iterable[float | None], digits: int) -> str:
    """"mean ± error"."""
    mean, error, count = spread(values)
    if not count:
        return "–"
    return f"{mean:.{digits}f}" + ("" if math.isnan(error) else f" ± {error:.{digits}f}")


def markdown(lines: list[dict[str, Any]]) -> str:
    """Four figures of all, what of the goals holds, and a table a row of problems, methods in the order of `METHODS`.

    "minus DAPS" is over the images that both have.
    """
    out = []
    for row in ROWS:
        here = [line for line in lines if line["row"] == row]
        if not here:
            continue
        beside = {line["image"]: of_mean(line) for line in here if line["method"] == BESIDE}
        images = sorted({line["image"] for line in here})
        out += [f"**{row}**, {len(images)} image{'s' * (len(images) > 1)}", "", "| " + " | ".join(COLUMNS) + " |",
                "|---|" + "--:|" * (len(COLUMNS) - 1)]
        for name in METHODS:
            its = [line for line in here if line["method"] == name]
            if not its:
                continue
            cells = [name, str(len(its))]
            cells += [cell((line.get(key) for line in its), 2 if key.startswith("psnr") else 3) for key in FIGURES]
            cells += [f"{np.mean([line[key] for line in its]):.{0 if key == 'evaluations' else 2}f}" for key in COSTS]
            less = [of_mean(line) - beside[line["image"]] for line in its if line["image"] in beside]
            cells.append("" if name == BESIDE else cell(less, 2))
            out.append("| " + " | ".join(cells) + " |")
        out.append("")
    known = {key: digits for key, digits in BRIEF.items() if any(line.get(key) is not None for line in lines)}
    short = [line for key, digits in known.items() for line in (f"**{key}**", "", *matrix(lines, key, digits), "")]
    return "\n".join([*short, *goals(lines), "", *out])


def matrix(lines: list[dict[str, Any]], key: str, digits: int) -> list[str]:
    """One figure of every method and row."""
    rows = [row for row in ROWS if any(line["row"] == row for line in lines)]
    out = ["| method | " + " | ".join(rows) + " |", "|---|" + "--:|" * len(rows)]
    for name in METHODS:
        cells = [cell((line.get(key) for line in lines if (line["row"], line["method"]) == (row, name)), digits) for row in rows]
        out += ["| " + " | ".join([name, *cells]) + " |"] if set(cells) != {"–"} else []
    return out


def goals(lines: list[dict[str, Any]]) -> list[str]:
    """Where what is wanted holds: half a dB above DAPS at a twentieth of its seconds, and intervals that cover 88 to 92 %."""
    out = ["| method | rows at least 0.5 dB above DAPS | … at a twentieth of its seconds | "
           "rows whose 90 % intervals cover 88 to 92 % | mean cover 90 |", "|---|--:|--:|--:|--:|"]
    rows = sorted({line["row"] for line in lines})
    for name in METHODS:
        above, quick, covering, covers, counted = 0, 0, 0, [], 0
        for row in rows:
            its = {line["image"]: line for line in lines if (line["row"], line["method"]) == (row, name)}
            other = {line["image"]: line for line in lines if (line["row"], line["method"]) == (row, BESIDE)}
            both = sorted(its.keys() & other.keys())
            if not both:
                continue
            counted += 1
            better = np.mean([of_mean(its[i]) - of_mean(other[i]) for i in both]) >= 0.5
            ratio = np.mean([its[i]["cpu"] for i in both]) / np.mean([other[i]["cpu"] for i in both])
            above, quick = above + int(better), quick + int(better and ratio <= 1 / 20)
            cover = spread(line["cover 90"] for line in its.values())[0]
            if not math.isnan(cover):
                covers.append(cover)
                covering += int(0.88 <= cover <= 0.92)
        if counted:
            share = f"{covering} of {len(covers)}" if covers else "–"
            out.append(f"| {name} | {above} of {counted} | {quick} of {counted} | {share} | {cell(covers, 3)} |")
    return out
