"""A run's file: a line of its options, then one a restoration, so that a run goes on where it was cut off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Key(NamedTuple):
    row: str
    method: str
    image: int


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Options, and restorations; a last line that was cut off is left out."""
    lines = list(_parsed(path.read_text().split("\n"))) if path.exists() else []
    if not lines:
        return {}, []
    if "options" not in lines[0]:
        raise SystemExit(f"{path}: not a file that this benchmark wrote")
    return lines[0]["options"], lines[1:]


def _parsed(lines: list[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines):
        try:
            if line.strip():
                yield json.loads(line)
        except json.JSONDecodeError:
            if number < len(lines) - 1:  # all but the last end with a newline
                raise


class Store:
    """Restorations that are done, and where the next are written.

    Args:
        path: the file, or None: in memory alone. options: of this run; those in the file must be the same.
    """

    def __init__(self, path: Path | None, options: dict[str, Any]):
        self.path, (there, self.lines) = path, read(path) if path is not None else ({}, [])
        if there and there != options:
            changed = [f"{k} is {v!r} there" for k, v in there.items() if options.get(k) != v]
            raise SystemExit(f"{path}: a run of other options: {', '.join(changed)}")
        self.done = {Key(line["row"], line["method"], line["image"]) for line in self.lines}
        if path is not None:
            text = "".join(json.dumps(line) + "\n" for line in ({"options": options}, *self.lines))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)  # without what was cut off

    def add(self, line: dict[str, Any]) -> None:
        """Keep a restoration."""
        self.lines.append(line)
        self.done.add(Key(line["row"], line["method"], line["image"]))
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
