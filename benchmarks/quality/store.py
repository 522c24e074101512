"""A run's file: a line of its options, then one a restoration, so that a run goes on where it was cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from alps_fast.errors import check, refused

from .. import records
from ..records import WANTED, Record


class Key(NamedTuple):
    row: str
    method: str
    image: int


def read(path: Path, name: str = "--resume") -> tuple[dict[str, Any], list[Record]]:
    """Options, and restorations. ArgumentError: the file is another's."""
    lines = records.read(path, name)
    if not lines:
        return {}, []
    ours = isinstance(lines[0].get("options"), dict) and all(set(Key._fields) <= set(line) for line in lines[1:])
    check(ours, name, path, WANTED)
    return lines[0]["options"], lines[1:]


class Store:
    """Restorations that are done, and where the next are written.

    Args:
        path: the file, or None: in memory alone. options: of this run.

    Raises:
        ArgumentError: the file has other options.
    """

    def __init__(self, path: Path | None, options: dict[str, Any]):
        self.path, (there, self.lines) = path, read(path) if path is not None else ({}, [])
        changed = [f"{name} {value!r}" for name, value in there.items() if options.get(name) != value]
        if changed:
            raise refused("--resume", path, f"a run of the same options; it has {', '.join(changed)}")
        self.done = {Key(line["row"], line["method"], line["image"]) for line in self.lines}
        if path is not None and not there:
            records.append(path, {"options": options})

    def add(self, line: Record) -> None:
        """Keep a restoration."""
        self.lines.append(line)
        self.done.add(Key(line["row"], line["method"], line["image"]))
        if self.path is not None:
            records.append(self.path, line)
