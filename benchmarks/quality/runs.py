"""All restorations by turns: every method on the first image of every row, then the next image."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from .figures import figures
from .methods import METHODS, restored
from .problems import problem
from .store import Key, Store
from .tuning import knobs_of

CPU = torch.device("cpu")


def every(rows: Iterable[str], methods: Iterable[str], images: int, side: int, draws: int, quick: bool, store: Store,
          stop: Callable[[], bool], say: Callable[[str], None], device: torch.device = CPU) -> None:
    """Fill the store, until all is done or `stop`. On a GPU a method's first run of a row, which loads kernels, is not kept."""
    loaded = set()
    for image in range(images):
        for row in rows:
            with CPU:  # the same images and noise, whatever the device
                made = problem(row, image, side)
            given = made.on(device)
            for name in methods:
                if Key(row, name, image) in store.done or not METHODS[name].takes(given):
                    continue
                if stop():
                    return
                knobs = knobs_of(row, name, quick)
                if device.type == "cuda" and (row, name) not in loaded:
                    restored(name, given, draws, image, knobs)
                    loaded.add((row, name))
                found, cost = restored(name, given, draws, image, knobs)
                store.add({"row": row, "method": name, "image": image, **figures(found, given), **cost, "knobs": knobs})
                say(f"{row}, {name}, image {image}: {cost['wall' if device.type == 'cuda' else 'cpu']:.2f} s")
