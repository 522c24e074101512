"""MRI reconstruction beside what people use, one table of the same data.

    python -m benchmarks.mri --out found.jsonl              goes on where it was; Ctrl-C at any time
    python -m benchmarks.mri --out found.jsonl --show       the tables as Markdown
    python -m benchmarks.mri --real scan.npy                a scan without a truth

Zero filling, CG-SENSE, BART, SigPy, the published loop and ours; one cell after another for every image in turn, so that at any
time every cell has about as many. Needs nilearn and nibabel (extra train) for the images, Debian's mricron-data for the macaque,
and bart for BART's row; what is missing a row says.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from alps_fast.errors import ArgumentError, check, refused
from alps_fast.io.files import check_writable

from .. import records
from ..records import WANTED, Record, append, machine, timed
from . import real, show
from .figures import Estimate, figures
from .images import Truth, held_out, unlike
from .methods import METHODS, QUICK, Effort
from .peers import missing
from .problems import CELLS, Cell, problem


def tasks(truths: Iterable[Truth], methods: Iterable[str], cells: Iterable[Cell]) -> Iterator[tuple[Truth, Cell, str]]:
    """An image, a cell, a method: all methods of a cell before the next, all cells of an image before the next."""
    methods, cells = list(methods), list(cells)
    return ((truth, cell, method) for truth in truths for cell in cells for method in methods)


KEYS = {"image", "kind", "cell", "method"}  # of every record


def read(path: Path) -> list[Record]:
    """What a file holds. ArgumentError: it is another's."""
    found = records.read(path, "--out")
    check(all(set(record) >= KEYS for record in found), "--out", path, WANTED)
    return found


def run(out: Path, some: Iterator[tuple[Truth, Cell, str]], effort: Effort, until: float) -> None:
    """What `out` does not hold yet, a line each, until time is up.

    Raises:
        ArgumentError: it is another's, or of other chains, whose figures would be averaged with these.
    """
    before = read(out)
    others = {record["chains"] for record in before if record.get("chains", effort.chains) != effort.chains}
    if others:
        raise refused("--out", out, f"a run of {effort.chains} chains; it has {', '.join(map(str, sorted(others)))}")
    there = {(record["image"], record["cell"], record["method"]) for record in before}
    for truth, cell, method in some:
        if (truth.name, str(cell), method) in there:
            continue
        if time.monotonic() > until:
            return
        record: dict[str, Any] = {"image": truth.name, "kind": truth.kind, "cell": str(cell), "method": method}
        if why := missing(method):
            append(out, record | {"missing": why})
            continue
        of = problem(truth, cell)
        found, seconds = timed(partial(METHODS[method], of, effort))
        told = figures(found, truth)
        append(out, record | told | of_one(seconds, found) | {"chains": effort.chains, "machine": machine()})
        print(f"{cell}, {truth.name}, {method}: {told['psnr']:.2f} dB, {seconds['cpu']:.1f} CPU s", flush=True)


def of_one(seconds: dict[str, float], found: Estimate) -> dict[str, float]:
    """Of a sweep, what one setting takes."""
    return {name: value / found.tried for name, value in seconds.items()}


def on_scan(path: Path, out: Path | None, effort: Effort, methods: Iterable[str]) -> None:
    """Lines of what is found of a scan, and records."""
    of = real.scan(path)
    for line in of.words:
        print(line)
    for method in methods:
        if missing(method):
            print(f"{method}: {missing(method)}")
            continue
        more: dict[str, float | None] = {}
        if method.startswith("ours, MMSE"):
            (found, more), seconds = timed(partial(real.prediction, of, method.rpartition(" ")[2], effort.chains, effort.draws))
        else:
            found, seconds = timed(partial(METHODS[method], of.of, effort))
        told: dict[str, float | None] = {**real.figures(of, found), **more, **of_one(seconds, found)}
        print(f"{method}: " + ", ".join(f"{name} {value:.3g}" for name, value in told.items() if value is not None), flush=True)
        if out is not None:
            append(out, {"image": "real", "kind": "real", "cell": "real", "method": method} | told | {"machine": machine()})


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.mri", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a JSONL file, gone on from where it is there")
    parser.add_argument("--show", action="store_true", help="the tables of --out as Markdown, nothing run")
    parser.add_argument("--quick", action="store_true", help="one image, one cell, short runs: whether all works here")
    parser.add_argument("--real", type=Path, metavar="FILE", help="k-space of a scan, as `alps-fast reconstruct` reads it")
    parser.add_argument("--images", type=int, default=20, help="held-out ones (default 20)")
    parser.add_argument("--unlike", action="store_true", help="those that are unlike the prior, in place of held-out ones")
    parser.add_argument("--cells", type=int, default=len(CELLS), help="the first so many (default all)")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS), metavar="NAME")
    parser.add_argument("--chains", type=int, default=Effort().chains)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing new after so many")
    asked = parser.parse_args(arguments)
    if min(asked.images, asked.cells) < 1 or asked.chains < 2 or not asked.minutes >= 0:
        parser.error("--images and --cells from 1, --chains from 2, --minutes from 0")
    if not (asked.out or asked.quick or asked.real) or (asked.show and not asked.out):
        parser.error("--show needs --out FILE" if asked.show else "wanted: --out FILE, --quick or --real FILE")
    try:
        carry_out(asked)
    except ArgumentError as error:
        parser.error(str(error))


def carry_out(asked: argparse.Namespace) -> None:
    """What was asked for."""
    if asked.show:
        found = read(asked.out)
        check(bool(found), "--out", asked.out, f"{WANTED}, with what it found")
        for kind in dict.fromkeys(record["kind"] for record in found if record["kind"] != "real"):
            print(f"\n## {kind}", *show.markdown(found, kind), sep="\n")
        print(*show.behind(found), sep="\n")
        return
    if asked.out is not None:
        check_writable(asked.out, "--out")
        read(asked.out)
    effort = QUICK if asked.quick else Effort(chains=asked.chains)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if asked.real is not None:
            on_scan(asked.real, asked.out, effort, asked.methods)
            return
        try:
            truths = list(islice(unlike() if asked.unlike else held_out(), 1 if asked.quick else asked.images))
        except ModuleNotFoundError as error:
            sys.exit(f"benchmarks.mri needs {error.name} for its images: pip install 'alps_fast[train]'")
        cells = CELLS[:1 if asked.quick else asked.cells]
        out = asked.out
        if out is None:
            import tempfile

            out = Path(tempfile.mkdtemp()) / "quick.jsonl"
        run(out, tasks(truths, asked.methods, cells), effort, time.monotonic() + 60 * asked.minutes)
        if asked.quick:
            found = read(out)
            print(*show.markdown(found, found[0]["kind"]), sep="\n")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
