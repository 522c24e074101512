"""All restorations by turns: every method on the first image of every row, then the next image."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .figures import figures
from .methods import METHODS, restored
from .problems import problem
from .store import Key, Store
from .tuning import knobs_of


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
                say(f"{row}, {name}, image {image}: {cost['cpu']:.1f} s")
