"""Each baseline's settings, chosen row by row on images that are not the table's: `python -m benchmarks.quality --tune`.

All combinations of a method's grid are tried; what wins is the highest PSNR of the mean over the tuning images. Ours by
annealing the prior are not tuned: they take what a user gets who sets nothing. The annealed measurement is, as others are.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from .figures import figures
from .methods import METHODS, restored
from .problems import problem

FILE = Path(__file__).parent / "tuned.json"
LIKE = {"random .1": "random .05", "random .5": "random .05", "box": "random .05", "Gaussian blur": "motion blur",
        "super-resolution x4": "motion blur", "MRI 1-D x2": "MRI 1-D x8", "MRI 2-D x6": "MRI 1-D x8"}
"""Whose settings a row takes for a method that was not tuned on it."""


def tuned() -> dict[str, dict[str, Any]]:
    """Settings by "row / method", each with the PSNR of all that were tried."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found


def knobs_of(row: str, name: str, quick: bool = False) -> dict[str, Any]:
    """A method's settings: its own, then those that were tuned, on this row or the one `LIKE` it, then quick ones."""
    method = METHODS[name]
    entries = tuned()
    entry = entries.get(f"{row} / {name}", entries.get(f"{LIKE.get(row, row)} / {name}", {}))
    chosen = entry.get("knobs", {})
    knobs = method.knobs | chosen | (method.quick if quick else {})
    return knobs | {"start": knobs_of(row, "DPS", quick)} if "start" in knobs else knobs


def combinations(grid: dict[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """All of a grid."""
    return (dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values()))


def tune(rows: Iterable[str], methods: Iterable[str], images: int, side: int, draws: int, stop: Callable[[], bool],
         say: Callable[[str], None]) -> None:
    """Add to the file what it does not have yet, until `stop`."""
    for row in rows:
        problems = [problem(row, image, side, tuning=True) for image in range(images)]
        for name in methods:
            method, key = METHODS[name], f"{row} / {name}"
            if not method.grid or key in tuned() or not method.takes(problems[0]):
                continue
            tried = []
            for chosen in combinations(method.grid):
                if stop():
                    return
                found = [figures(restored(name, given, draws, 1000 + image, knobs_of(row, name) | chosen)[0], given)["psnr mean"]
                         for image, given in enumerate(problems)]
                tried.append((float(torch.tensor(found).nan_to_num(-math.inf).mean()), chosen))
            best = max(tried, key=lambda one: one[0])
            say(f"{key}: {best[1]} of {len(tried)}, {best[0]:.2f} dB")
            entry = {"knobs": best[1], "tried": [{**chosen, "psnr": round(value, 2)} for value, chosen in tried],
                     "images": images, "side": side, "draws": draws}
            FILE.write_text(json.dumps(dict(sorted((tuned() | {key: entry}).items())), indent=1) + "\n")
