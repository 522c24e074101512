"""In tests/: python -m fuzz [--seconds N] [--seed N] [--only TEXT] [--out DIR]. Every reader for its share of the time."""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

from .run import fuzz
from .targets import TARGETS

MEMORY = 16 << 30  # bytes of addresses: a file that asks for more is told so


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--seed", type=int, default=None, help="default: the time")
    parser.add_argument("--only", default="", metavar="TEXT", help="targets with TEXT in their name")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    asked = parser.parse_args()
    seed = int(time.time()) if asked.seed is None else asked.seed
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    chosen = {name: target for name, target in TARGETS.items() if asked.only in name}
    failed, shares = False, sum(target.share for target in chosen.values())
    for name, target in chosen.items():
        found = fuzz(name, target, asked.out, asked.seconds * target.share / shares, seed)
        counts = f"{found.read:>7} files, {found.refused:>7} refused, {len(found.faults)} faults"
        print(f"{name:<20} {counts} (--seed {seed})", flush=True)
        for path, what in found.faults.items():
            failed = True
            print(f"{path}:\n{what}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
