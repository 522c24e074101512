"""How two runs on one machine slow each other down: a run alone, beside a busy process, and beside another run of ours.

    python -m alps_fast.bench.neighbours [--spin COUNT ...] [--repeats N]

Threads that wait spin before they sleep, and a core on which one spins is one that the thread it waits for may need. How long
they spin is OpenMP's to say (GOMP_SPINCOUNT, OMP_WAIT_POLICY); every value that is asked for gets a column.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

CASES = ("gaussian", "denoiser", "fourier")
SECONDS = 2.0  # of runs that a measurement takes the median of
DEFAULT = "as it is"  # column of a run whose environment is left alone
BUSY = "while True: pass"


def runs(case: str, threads: int, seconds: float) -> list[float]:
    """Seconds of one run after another until there are `seconds` of them: 64 chains of 3 x 64 x 64, or 16 of a denoiser."""
    import torch

    import alps_fast as af

    torch.set_num_threads(threads)
    g = torch.Generator().manual_seed(0)
    x = torch.rand(1 if case == "denoiser" else 3, 64, 64, generator=g)
    operator: af.operators.Operator = af.operators.Inpainting((torch.rand(64, 64, generator=g) < 0.5).float(), noise_std=0.05)
    if case == "fourier":
        operator = af.operators.CircularBlur.gaussian(2.0, noise_std=0.05)
    energy: af.energies.Energy = af.energies.GaussianEnergy(0.0, 0.5)
    if case == "denoiser":
        energy = af.energies.load("natural-denoiser", precision="fast")
    sampler = af.Sampler(operator, energy, chains=16 if case == "denoiser" else 64, progress=False,
                         schedule=af.Schedule(100.0, 10.0, levels=10, steps=1 if case == "denoiser" else 4))
    y = operator.forward(x)
    y = y + 0.05 * torch.randn(y.shape, generator=g)
    sampler(y)
    taken: list[float] = []
    while sum(taken) < seconds:
        start = time.perf_counter()
        sampler(y)
        taken.append(time.perf_counter() - start)
    return taken


def environment(spin: str) -> dict[str, str]:
    """This process's, with that many turns of waiting, or "passive"."""
    kept = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    if spin == DEFAULT:
        return kept
    return kept | ({"OMP_WAIT_POLICY": "passive"} if spin == "passive" else {"GOMP_SPINCOUNT": spin})


def child(case: str, threads: int, seconds: float, spin: str) -> subprocess.Popen[str]:
    """A process that prints the seconds of its runs."""
    return subprocess.Popen([sys.executable, "-m", __spec__.name, "--case", case, "--threads", str(threads), "--seconds",
                             str(seconds)], env=environment(spin), stdout=subprocess.PIPE, text=True)


def median(case: str, threads: int, spin: str) -> float:
    """Median seconds of a run of a process of its own."""
    out, _ = child(case, threads, SECONDS, spin).communicate()
    return statistics.median(json.loads(out))


@contextmanager
def beside(command: subprocess.Popen[str]) -> Iterator[None]:
    """While another process runs."""
    try:
        time.sleep(3)  # until it has imported what it needs
        yield
    finally:
        command.kill()
        command.wait()


def measure(case: str, spin: str) -> dict[str, float]:
    """Seconds of a run with one thread, with two, beside a busy process, and beside another run."""
    alone = {"one thread": median(case, 1, spin), "two threads": median(case, 2, spin)}
    with beside(subprocess.Popen([sys.executable, "-c", BUSY], text=True)):
        alone["beside a busy process"] = median(case, 2, spin)
    with beside(child(case, 2, 600, spin)):
        alone["beside another run"] = median(case, 2, spin)
    return alone


@click.command()
@click.option("--spin", multiple=True, default=[DEFAULT, "passive"], show_default=True, help="GOMP_SPINCOUNT, or 'passive'.")
@click.option("--repeats", default=3, show_default=True, help="Measurements of each, of which the median is printed.")
@click.option("--case", type=click.Choice(CASES), multiple=True, default=CASES)
@click.option("--threads", type=int, hidden=True)
@click.option("--seconds", type=float, hidden=True)
def main(spin: tuple[str, ...], repeats: int, case: tuple[str, ...], threads: int | None, seconds: float | None) -> None:
    """Milliseconds of a run, and in brackets its ratio to one thread alone."""
    if threads is not None and seconds is not None:
        print(json.dumps(runs(case[0], threads, seconds)))
        return
    for name in case:
        taken: dict[str, list[dict[str, float]]] = {s: [] for s in spin}
        for _ in range(repeats):
            for s in spin:
                taken[s].append(measure(name, s))
        for s in spin:
            medians = {kind: statistics.median(each[kind] for each in taken[s]) for kind in taken[s][0]}
            cells = (f"{kind} {1e3 * value:.0f} ({value / medians['one thread']:.2f})" for kind, value in medians.items())
            click.echo(f"{name}, spin {s}: " + ", ".join(cells))


if __name__ == "__main__":
    main()
