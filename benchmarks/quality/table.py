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
LONGER = "DAPS, long"
BRIEF = {"psnr mean": 2, "cover 90": 3, "ksd": 3}  # and digits


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


def markdown(lines: list[dict[str, Any]], clock: str = "cpu") -> str:
    """Four figures of all, what of the goals holds, and a table a row of problems, methods in the order of `METHODS`.

    "minus DAPS" is over the images that both have. clock: which seconds are compared, "cpu" or "wall".
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
    brief = BRIEF | {clock: 1 if clock == "cpu" else 2}
    known = {key: digits for key, digits in brief.items() if any(line.get(key) is not None for line in lines)}
    short = [line for key, digits in known.items() for line in (f"**{key}**", "", *matrix(lines, key, digits), "")]
    return "\n".join([*short, *goals(lines, clock), "", *out])


def matrix(lines: list[dict[str, Any]], key: str, digits: int) -> list[str]:
    """One figure of every method and row."""
    rows = [row for row in ROWS if any(line["row"] == row for line in lines)]
    out = ["| method | " + " | ".join(rows) + " |", "|---|" + "--:|" * len(rows)]
    for name in METHODS:
        cells = [cell((line.get(key) for line in lines if (line["row"], line["method"]) == (row, name)), digits) for row in rows]
        out += ["| " + " | ".join([name, *cells]) + " |"] if set(cells) != {"–"} else []
    return out


def goals(lines: list[dict[str, Any]], clock: str = "cpu") -> list[str]:
    """Where what is wanted holds: half a dB above DAPS at a twentieth of its seconds, and intervals that cover 88 to 92 %."""
    others = [name for name in (BESIDE, LONGER) if any(line["method"] == name for line in lines)]
    heads = [f"rows at least 0.5 dB above {name} | … at a twentieth of its seconds" for name in others]
    out = [" | ".join(["| method", *heads, "rows whose 90 % intervals cover 88 to 92 % | mean cover 90 |"]),
           "|---|" + "--:|" * (2 * len(others) + 2)]
    rows = sorted({line["row"] for line in lines})
    for name in METHODS:
        its = by_row(lines, rows, name)
        if not any(its):
            continue
        cells = [text for other in others for text in ahead(its, by_row(lines, rows, other), clock)]
        means = (spread(line["cover 90"] for line in row.values())[0] for row in its)
        covers = [cover for cover in means if not math.isnan(cover)]
        covering = sum(0.88 <= cover <= 0.92 for cover in covers)
        cells += [f"{covering} of {len(covers)}" if covers else "–", cell(covers, 3)]
        out.append("| " + " | ".join([name, *cells]) + " |")
    return out


def by_row(lines: list[dict[str, Any]], rows: list[str], name: str) -> list[dict[int, Any]]:
    """A method's lines of every row, by image."""
    return [{line["image"]: line for line in lines if (line["row"], line["method"]) == (row, name)} for row in rows]


def ahead(its: list[dict[int, Any]], others: list[dict[int, Any]], clock: str) -> list[str]:
    """Of a method's lines by image, row by row, beside another's: in how many rows it is half a dB ahead, and so in a twentieth
    of the other's seconds."""
    above, quick, counted = 0, 0, 0
    for mine, theirs in zip(its, others, strict=True):
        both = sorted(mine.keys() & theirs.keys())
        if both:
            better = np.mean([of_mean(mine[i]) - of_mean(theirs[i]) for i in both]) >= 0.5
            ratio = np.mean([mine[i][clock] for i in both]) / np.mean([theirs[i][clock] for i in both])
            above, quick, counted = above + int(better), quick + int(better and ratio <= 1 / 20), counted + 1
    return [f"{above} of {counted}", f"{quick} of {counted}"] if counted else ["–", "–"]
