"""One restoration, and all of them by turns: every method on the first image of every row, then the next image."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from .figures import Draws, figures
from .methods import METHODS
from .problems import Problem, problem
from .store import Key, Store
from .teacher import Teacher
from .tuning import knobs_of


@cache
def teacher_of(domain: str) -> Teacher:
    """Loaded once."""
    return Teacher(domain)


def restored(method: str, given: Problem, draws: int, seed: int, knobs: dict[str, Any]) -> tuple[Draws, dict[str, float]]:
    """Draws, and what they cost: evaluations a draw, seconds of all processor cores, and of the clock."""
    teacher = teacher_of(given.domain)
    teacher.evaluations = 0
    clock, processor = time.perf_counter(), time.process_time()
    found = METHODS[method].run(given, teacher, draws, seed, **knobs)
    cost = {"processor": time.process_time() - processor, "clock": time.perf_counter() - clock,
            "evaluations": teacher.evaluations / draws}
    return found, cost


def every(rows: Iterable[str], methods: Iterable[str], images: int, side: int, draws: int, quick: bool, store: Store,
          stop: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Fill the store, until all is done or `stop`."""
    for image in range(images):
        for row in rows:
            given = problem(row, image, side)
            for name in methods:
                if Key(row, name, image) in store.done or not METHODS[name].takes(given):
                    continue
                if stop():
                    return
                knobs = knobs_of(row, name, quick)
                found, cost = restored(name, given, draws, image, knobs)
                store.add({"row": row, "method": name, "image": image, **figures(found, given), **cost, "knobs": knobs})
                say(f"{row}, {name}, image {image}: {cost['processor']:.1f} s")
