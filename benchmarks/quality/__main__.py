"""Restoration by the field's methods and ours with one teacher, on photographs and MR images that it was never trained on.

    python -m benchmarks.quality --quick                       that everything runs, in under a minute
    python -m benchmarks.quality --tune                        settings of the baselines, on other images
    python -m benchmarks.quality --resume FILE --images 20     goes on where FILE was left, an image of every row at a time
    python -m benchmarks.quality --show FILE                   the table in Markdown
    python -m benchmarks.quality --rows box --methods DAPS "ours, ridge"       some of it, kept nowhere

Needs the extra `quality`; installed it is `python -m alps_fast.bench.quality`. What is done how: docs/quality.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from alps_fast.errors import ArgumentError, check

from .libraries import azula, deepinv
from .methods import METHODS
from .problems import ROWS
from .runs import every
from .store import Store, read
from .table import markdown
from .tuning import tune

QUICK_ROWS = ("random .05", "motion blur", "super-resolution x4", "MRI 1-D x2")
QUICK_SIDE = 32


def command() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--resume", type=Path, metavar="FILE", help="where restorations are kept (JSON lines)")
    mode.add_argument("--show", type=Path, metavar="FILE", help="print the table of a file, and do nothing")
    mode.add_argument("--tune", action="store_true", help="write tuned.json beside the code")
    mode.add_argument("--quick", action="store_true", help=f"few steps, one image of {QUICK_SIDE}², four rows unless --rows says "
                      "which: figures mean nothing")
    parser.add_argument("--images", type=int, default=1, help="of every row; 1")
    parser.add_argument("--side", type=int, default=64, help="of the crops, a multiple of 16; 64")
    parser.add_argument("--draws", type=int, default=4, help="of every method; 4")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of CPU time, after which it stops; no end")
    parser.add_argument("--threads", type=int, default=1, help="of torch and of ours; 1")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu (the default), or cuda, where "
                        "seconds are of the clock, after a first run of each method")
    for flag, names in {"--rows": list(ROWS), "--methods": list(METHODS)}.items():
        quoted = ", ".join(f"'{name}'" for name in names)
        parser.add_argument(flag, nargs="+", choices=names, metavar="NAME", help=f"all, or of {quoted}")
    return parser


def main() -> None:
    """Tune, run, or show."""
    parser = command()
    args = parser.parse_args()
    if args.images < 1 or args.threads < 1 or args.draws < (1 if args.tune else 4) or args.side < 32 or args.side % 16:
        parser.error("--images and --threads from 1, --draws from 4 (two pairs; 1 to tune), --side a multiple of 16 from 32")
    if not args.minutes >= 0:
        parser.error(f"--minutes: got {args.minutes}; wanted 0 or more")
    if args.device.type not in ("cpu", "cuda") or (args.device.type == "cuda" and (args.tune or not torch.cuda.is_available())):
        parser.error(f"--device: got {args.device}; wanted cpu, or cuda where torch sees a GPU and nothing is tuned")
    try:
        carry_out(args)
    except ArgumentError as error:
        parser.error(str(error))


def carry_out(args: argparse.Namespace) -> None:
    """What was asked for."""
    if args.show is not None:
        options, lines = read(args.show, "--show")
        check(bool(lines), "--show", args.show, "a file that --resume has written")
        print(", ".join(f"{k} {v}" for k, v in options.items()), end="\n\n")
        print(markdown(lines, clock_of(options)))
        return
    rows, methods = args.rows or list(QUICK_ROWS if args.quick else ROWS), args.methods or list(METHODS)
    libraries: dict[str, Callable[[], Any]] = {"azula": azula, "deepinv": deepinv}
    for library, module in libraries.items():
        if any(METHODS[name].library == library for name in methods) and module() is None:
            sys.exit(f"benchmarks.quality needs {library}: pip install 'alps_fast[quality]'")
    torch.set_num_threads(args.threads)
    images, side = (1, QUICK_SIDE) if args.quick else (args.images, args.side)
    warnings.simplefilter("ignore")  # of schedules that are short on purpose, and of other libraries

    def stop() -> bool:
        return time.process_time() > 60 * args.minutes

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if args.tune:
        tune(rows, methods, images, side, args.draws, stop, say)
        return
    on_gpu = args.device.type == "cuda"
    if on_gpu:
        torch.set_default_device(args.device)  # for azula's and DeepInverse's samplers, which make their own noise
    options = {"side": side, "draws": args.draws, "quick": args.quick, "threads": args.threads, "torch": torch.__version__,
               "machine": torch.cuda.get_device_name(args.device) if on_gpu else f"{platform.machine()}, {os.cpu_count()} cores"}
    if on_gpu:
        options["clock"] = "wall"
    store = Store(args.resume, options)
    every(rows, methods, images, side, args.draws, args.quick, store, stop, say, args.device)
    print(markdown(store.lines, clock_of(options)))


def clock_of(options: dict[str, Any]) -> str:
    """Which seconds count: of all processors, or, on a GPU, those that pass."""
    return str(options.get("clock", "cpu"))


if __name__ == "__main__":
    main()
