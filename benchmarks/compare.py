"""Before and after on one machine: python benchmarks/compare.py COMMIT_A COMMIT_B [--case TEXT ...] [--quick] [--levels N]

Each commit is built in a folder of its own and measured by the cases of this checkout, A B A B …, so that a machine that
warms up or slows down meets both alike; of each case the fastest pass counts. B/A below 1 is a gain.

Example:  python benchmarks/compare.py main HEAD --case langevin_pixel --quick
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PASSES = 3


def built(commit: str, folder: Path) -> None:
    """The commit's package with its extension in `folder`/lib, and in it the cases of this checkout."""
    archive = subprocess.run(["git", "archive", commit], cwd=HERE.parent, check=True, capture_output=True).stdout
    folder.mkdir()
    subprocess.run(["tar", "x"], cwd=folder, input=archive, check=True)
    environment = os.environ | {"ALPS_FAST_BUILD": os.environ.get("ALPS_FAST_BUILD", "cpu")}
    subprocess.run([sys.executable, "setup.py", "-q", "build", "--build-lib", "lib"], cwd=folder, check=True, env=environment)
    shutil.copytree(HERE, folder / "lib/alps_fast/bench", dirs_exist_ok=True)


def measured(folder: Path, options: list[str]) -> dict[str, float]:
    """Seconds of every case with that package, in a process of its own."""
    # -P and a path of its own: neither this checkout nor an editable install may stand in for the commit
    command = [sys.executable, "-P", "-m", "alps_fast.bench.compare", "here", "here", *options]
    environment = os.environ | {"PYTHONPATH": str(folder / "lib")}
    result = subprocess.run(command, cwd=folder, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout)


def measure_here(wanted: list[str], quick: bool, levels: int) -> dict[str, float]:
    """Seconds of every case with the package that this process imports."""
    from alps_fast.bench import common

    measure = common.Measure(quick=quick, levels=levels)
    for case in common.select(wanted, quick):
        case.run(measure)
    return {row["case"]: row["seconds"] for row in measure.rows}


def main() -> None:
    """Build both, measure in turn, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", metavar="COMMIT_A")
    parser.add_argument("after", metavar="COMMIT_B")
    parser.add_argument("--case", action="append", default=[], metavar="TEXT", help="only cases with TEXT in their name")
    parser.add_argument("--quick", action="store_true", help="the first size of each, few rounds")
    parser.add_argument("--levels", type=int, default=2, help="of whole runs, of 50; default 2")
    arguments = parser.parse_args()
    options = [*(f"--case={text}" for text in arguments.case), f"--levels={arguments.levels}", *["--quick"] * arguments.quick]
    if arguments.before == arguments.after == "here":
        print(json.dumps(measure_here(arguments.case, arguments.quick, arguments.levels)))
        return
    best: tuple[dict[str, float], dict[str, float]] = {}, {}
    with tempfile.TemporaryDirectory() as directory:
        folders = Path(directory, "a"), Path(directory, "b")
        for commit, folder in zip((arguments.before, arguments.after), folders, strict=True):
            built(commit, folder)
        for _ in range(PASSES):
            for found, folder in zip(best, folders, strict=True):
                for case, seconds in measured(folder, options).items():
                    found[case] = min(seconds, found.get(case, seconds))
    print(f"{'case':<60} {arguments.before[:12]:>12} {arguments.after[:12]:>12} {'B/A':>6}   (ms)")
    for case, before in best[0].items():
        after = best[1][case]
        print(f"{case:<60} {before * 1e3:12.3f} {after * 1e3:12.3f} {after / before:6.2f}")


if __name__ == "__main__":
    main()
