"""The loop: damage a good file, read it, and keep the file where anything but an ArgumentError of one line comes."""

from __future__ import annotations

import random
import signal
import time
import traceback
import warnings
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from alps_fast.errors import ArgumentError

from .mutate import damaged
from .targets import Target

PATIENCE = 90  # seconds that a file may take


class Found(NamedTuple):
    """Files that were read, that were refused, and those at fault with what they raised."""

    read: int
    refused: int
    faults: dict[Path, str]


def late(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"a file takes more than {PATIENCE} s")


def reads(target: Target, path: Path) -> bool:
    """Whether a good file is taken: not every reader takes all of its format."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            target.read(path)
        except ArgumentError:
            return False
    return True


def fuzz(name: str, target: Target, folder: Path, seconds: float, seed: int, most: int = 5) -> Found:
    """Fuzz one reader for so many seconds, or until `most` faults. Faults are kept in `folder`, as is a file that kills all."""
    work = folder / name.replace(" ", "_")
    good = work / "good"
    good.mkdir(parents=True, exist_ok=True)
    for old in good.iterdir():
        old.unlink()
    target.seeds(good)
    files = {path: path.read_bytes() for path in sorted(good.iterdir())}
    whole = sum(reads(target, path) for path in files)
    assert whole, f"{name}: no seed can be read"
    rng, read, refused, faults = random.Random(f"{name} {seed}"), 0, 0, dict[Path, str]()
    before = signal.signal(signal.SIGALRM, late)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end and len(faults) < most:
            path = rng.choice(list(files))
            bad = work / f"{seed}-{read}{path.suffix}"
            bad.write_bytes(damaged(files[path], rng, list(files.values())))
            read += 1
            signal.alarm(PATIENCE)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    target.read(bad)
            except ArgumentError as error:
                refused += 1
                if "\n" in str(error):
                    faults[bad] = f"more than one line: {error}"
            except Exception:
                faults[bad] = traceback.format_exc()
            finally:
                signal.alarm(0)
            if bad not in faults:
                bad.unlink(missing_ok=True)
    finally:
        signal.signal(signal.SIGALRM, before)
    return Found(read, refused, faults)
