"""Whether posteriors are what they should be: by recursion, in closed form, beside a Gibbs sampler, by ranks, of shipped priors.

Example:  python -m benchmarks.calibration --operators --measurements 360

Every table is one of docs/exactness.md, which says what it shows; lines are printed as they are found. How far schedules leave
Gaussian posteriors from the truth and what intervals of pairs cover are here; the others in `beside`, `closed_forms`, `leaps`,
`levy`, `ranks` and `shipped`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from alps_fast.energies import GaussianEnergy
from alps_fast.errors import ArgumentError
from alps_fast.ops._scalars import StepScalars
from alps_fast.ops.philox_normal import AVERAGED
from alps_fast.pairs import units
from alps_fast.posterior import Posterior
from alps_fast.samplers import Schedule
from alps_fast.samplers.alps import folded, predictor
from alps_fast.samplers.chosen import FIRST, ladder
from alps_fast.samplers.excess import moments, published
from alps_fast.schedule import FOLDED

from . import beside, closed_forms, leaps, levy, ranks, shipped, stein

NAMES: dict[bool | str, str] = {False: "no", True: "own", FOLDED: "folded"}  # whose gradient a predictor takes
CORRELATIONS = (-1.0, -0.9, -0.5, 0.0, 0.5, 1.0)
STDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
DATA = (0.0, *np.geomspace(1e-3, 1e4, 15).tolist())  # a: nothing measured, then from next to nothing to all
SCHEDULES = {
    "published, 50 × 5": Schedule(),
    "published for blur, 10 × 5": Schedule(levels=10),
    "10 to 0.02, 25 × 4": Schedule(10.0, 0.02, 25, 4),
    "1 to 0.012, 14 × 4": Schedule(1.0, 0.012, 14, 4, 3.0),
    "1 to 0.02, 18 × 5": Schedule(1.0, 0.02, 18, 5, 3.0),
    "1 to 0.02, 15 × 2": Schedule(1.0, 0.02, 15, 2, 7.0),
}


def chosen_for(std: float) -> Schedule:
    """What schedule=None chooses for N(0, std²) where the curvature has the published bound."""
    energy = GaussianEnergy(0.0, std)
    return ladder(energy.finest, FIRST * energy.spread, std, published, 0.0)


def gradients(schedule: Schedule) -> int:
    """Of a chain while it anneals."""
    own = schedule.predictor is True
    return schedule.levels * (schedule.steps + own) - own


def row(name: str, schedules: list[Schedule]) -> dict[str, object]:
    """Variance over truth of every STD, nothing measured; and the farthest from 1 where a measurement says something.

    bias: the largest error of the mean, root mean square over measurements, in posterior standard deviations.
    """
    data = np.array(DATA)
    cells = [moments(s, std, data) for s, std in zip(schedules, STDS, strict=True)]
    scale = [np.sqrt(data * (1.0 + data * std**2) / (data + 1.0 / (std**2 + s.sigma_min**2)))  # of the mean, in posterior ones
             for s, std in zip(schedules, STDS, strict=True)]
    return {"schedule": name, "predictor": NAMES[schedules[0].predictor], "gradients": max(map(gradients, schedules)),
            "unobserved": [float(cell.variance[0]) for cell in cells],
            "observed": max((float(v) for cell in cells for v in cell.variance[1:]), key=lambda v: abs(v - 1.0)),
            "bias": max(float((np.abs(cell.bias - 1.0) * each).max()) for cell, each in zip(cells, scale, strict=True))}


def table() -> list[dict[str, object]]:
    """Every schedule without and with each predictor, and what is chosen."""
    rows = [row(name, [replace(s, predictor=wanted)] * len(STDS)) for name, s in SCHEDULES.items() for wanted in NAMES]
    return [*rows, row("schedule=None, one for each", [chosen_for(std) for std in STDS]),
            row("schedule=None, one for all", [chosen_for_all()] * len(STDS))]


def chosen_for_all() -> Schedule:
    """What schedule=None chooses for directions of STDS side by side, with the published bound."""
    return ladder(0.1 * STDS[0], FIRST * STDS[-1], STDS[0], published, 0.0)


def symmetric(matrix: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A function of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * function(values)) @ vectors.T


def dense(schedule: Schedule, prior: np.ndarray, information: np.ndarray) -> np.ndarray:
    """Eigenvalues of the run's covariance seen through the exact one, for any prior (d, d) and AᴴA/η² (d, d); L = 1."""
    eye, ts = np.eye(len(prior)), schedule.t().tolist()
    covariance, shared = np.linalg.inv(information + eye / ts[0] ** 2), np.zeros_like(prior)
    for i, t in enumerate(ts):
        q, p = np.linalg.inv(prior + t * t * eye), np.linalg.inv(information + eye / t**2)
        step = last = StepScalars(t**-2, t**-2, t**-2, 1.0, t**-2, AVERAGED, 0, 0)
        if schedule.predictor == FOLDED and i + 1 < len(ts):
            last = folded(step, t, ts[i + 1], ts[i + 1] ** -2, 0.0)
        for each in (step,) * (schedule.steps - 1) + (last,):
            root = np.sqrt(0.5) * symmetric(np.linalg.inv(information + each.noise_lam * eye), np.sqrt)
            kept = p @ (eye / t**2 - each.w * t * t * q)
            cross = kept @ shared @ root
            covariance, shared = kept @ covariance @ kept.T + cross + cross.T + 2.0 * root @ root, root
        if schedule.predictor is True and i + 1 < len(ts):
            keep, moved = predictor(step, t, ts[i + 1], ts[i + 1] ** -2, 0.0)
            factor = (1.0 - keep) * eye + p @ (moved.lin * eye - moved.w * t * t * q)
            covariance, shared = factor @ covariance @ factor.T, factor @ shared
    precision = information + np.linalg.inv(prior + ts[-1] ** 2 * eye)
    half = symmetric(precision, np.sqrt)
    return np.linalg.eigvalsh(half @ covariance @ half)


def random_problem(seed: int, d: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """A prior of standard deviations .1 … 20 in random directions, and a measurement of d/2 numbers with η from .03 to 10."""
    g = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(g.normal(size=(d, d)))
    a = g.normal(size=(d // 2, d)) / np.sqrt(d) / np.geomspace(0.03, 10.0, d // 2)[:, None]
    return (turn * np.geomspace(0.1, 20.0, d) ** 2) @ turn.T, a.T @ a


def dense_row(name: str, schedule: Schedule) -> dict[str, object]:
    """The smallest, the mean and the largest eigenvalue over ten problems."""
    values = np.stack([dense(schedule, *random_problem(seed)) for seed in range(10)])
    return {"schedule": name, "predictor": NAMES[schedule.predictor], "least": float(values.min()),
            "mean": float(values.mean()), "most": float(values.max())}


def dense_table() -> list[dict[str, object]]:
    """`dense_row` of the published schedule without and with each predictor, and of what is chosen."""
    rows = [dense_row("published, 50 × 5", Schedule(predictor=wanted)) for wanted in NAMES]
    return [*rows, dense_row("schedule=None, one for all", chosen_for_all())]


def annealed_eta_table() -> list[dict[str, object]]:
    """What annealing η beside the prior adds, for a fixed ratio and for the one that is chosen, by σ_max and η."""
    rows: list[dict[str, object]] = []
    for high, eta in ((1.0, 0.02), (1.0, 0.005), (1.0, 0.002), (3.0, 0.01), (10.0, 0.01)):
        found = ladder(0.01, high, STDS[1], published, 0.0, tied=1.0, eta=eta)
        for ratio in (None, 20.0, found.eta_ratio):
            s = replace(found, eta_ratio=ratio)
            stds, data = np.geomspace(STDS[1], high / FIRST, 25)[:, None], np.geomspace(1e-2, 1e6, 60)[None]
            cells = moments(s, stds, data, eta=eta)
            scale = np.sqrt(data * (1.0 + data * stds**2) / (data + 1.0 / (stds**2 + s.sigma_min**2)))
            rows.append({"sigma_max": high, "eta": eta, "ratio": ratio, "least": float(cells.variance.min()),
                         "most": float(cells.variance.max()), "bias": float((np.abs(cells.bias - 1.0) * scale).max())})
    return rows


def pair_coverage(pairs: int, correlation: float, count: int = 100_000) -> float:
    """Share of `count` numbers N(0, 1) in `Posterior.interval(0.9)` of pairs of such numbers, so correlated within each."""
    g = torch.Generator().manual_seed(0)
    first, second, truth = torch.randn(2 * pairs + 1, 1, 1, count, generator=g).tensor_split([pairs, 2 * pairs])
    second = correlation * first + math.sqrt(1.0 - correlation**2) * second
    chains = torch.stack([first, second], 1).flatten(0, 1)
    found = units(chains[None], torch.ones(1, len(chains), dtype=torch.bool), 0, True)
    variance = found.mean[0].var(0) + found.apart[0].mean(0)
    low, high = Posterior(
        mean=chains.mean(0), channel_std=variance.sqrt(), samples=chains, count=torch.tensor(len(chains)), trace=chains[:, :, 0],
        chain_means=chains, polar_means=None, polar_std=None, by_level={}, acceptance=None, interrupted=False, broken=[], seed=0,
        schedule=Schedule(), seconds=0.0, gradients=0, pairs=True).interval(0.9)
    return float(((low < truth[0]) & (truth[0] < high)).float().mean())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser("python -m benchmarks.calibration", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--schedules", action="store_true", help="the tables of docs/exactness.md §4 and 12, by recursion")
    which.add_argument("--pairs", action="store_true", help="that of §6: intervals of pairs")
    which.add_argument("--levy", action="store_true", help="that of §7: Lévy processes beside a Gibbs sampler")
    which.add_argument("--ranks", action="store_true", help="that of §8: ranks of truths among draws")
    which.add_argument("--leaps", action="store_true", help="those of §9: weights of modes that lie apart")
    which.add_argument("--operators", action="store_true", help="that of §10: posteriors in closed form under every operator")
    which.add_argument("--shipped", action="store_true", help="that of §11: shipped priors under themselves")
    which.add_argument("--peers", action="store_true", help="that of §13: DeepInverse's samplers beside ours")
    parser.add_argument("--measurements", type=int, default=360,
                        help="of every cell of --levy, --ranks, --leaps, --operators, --shipped and --peers (default 360)")
    parser.add_argument("--json", action="store_true", help="one document in place of tables")
    arguments = parser.parse_args()
    if arguments.measurements < 2:
        parser.error(f"--measurements: got {arguments.measurements}; wanted an integer >= 2")
    if arguments.schedules:
        show_schedules(arguments.json)
    elif arguments.pairs:
        show_pairs(arguments.json)
    else:
        name = next(name for name in TABLES if getattr(arguments, name))
        try:
            show(TABLES[name], arguments.measurements, arguments.json)
        except ArgumentError as error:
            parser.error(str(error))


def show_schedules(as_json: bool) -> None:
    """Of §4 and 12."""
    rows, mixed, annealed = table(), dense_table(), annealed_eta_table()
    if as_json:
        print(json.dumps({"stds": STDS, "schedules": rows, "dense": mixed, "eta": annealed}, indent=1))
        return
    print("| schedule | predictor | gradients | " + " | ".join(f"{std:g}" for std in STDS) + " | observed | bias |")
    print("|---|---|--:|" + "--:|" * (len(STDS) + 2))
    for r in rows:
        cells = " | ".join(f"{v:.3f}" for v in (*r["unobserved"], r["observed"], r["bias"]))  # type: ignore[misc]
        print(f"| {r['schedule']} | {r['predictor']} | {r['gradients']} | {cells} |")
    print("\n| no common directions | predictor | least | mean | most |\n|---|---|--:|--:|--:|")
    for r in mixed:
        print(f"| {r['schedule']} | {r['predictor']} | {r['least']:.3f} | {r['mean']:.3f} | {r['most']:.3f} |")
    print("\n| σ_max | η | t/η at most | least | most | bias |\n|--:|--:|--:|--:|--:|--:|")
    for r in annealed:
        ratio = "σ_max/η" if r["ratio"] is None else f"{r['ratio']:.0f}"
        print(f"| {r['sigma_max']:g} | {r['eta']:g} | {ratio} | {r['least']:.3f} | {r['most']:.3f} | {r['bias']:.3f} |")


def show_pairs(as_json: bool) -> None:
    """Of §6."""
    rows = {pairs: [pair_coverage(pairs, correlation) for correlation in CORRELATIONS] for pairs in (2, 3, 4, 8)}
    if as_json:
        print(json.dumps({"correlations": CORRELATIONS, "coverage": rows}, indent=1))
        return
    print("| pairs | " + " | ".join(f"{c:g}" for c in CORRELATIONS) + " |\n|--:|" + "--:|" * len(CORRELATIONS))
    for pairs, shares in rows.items():
        print(f"| {pairs} | " + " | ".join(f"{share:.3f}" for share in shares) + " |")


class Table(NamedTuple):
    """What is sampled. rows: of so many measurements a cell, named tuples. heads: of columns, those of `figures` to the right.

    words, figures: of a row, what stands in its columns.
    """

    rows: Callable[[int], Iterable[Any]]
    heads: tuple[str, ...]
    words: Callable[[Any], tuple[str, ...]]
    figures: Callable[[Any], tuple[str, ...]]


def show(table: Table, count: int, as_json: bool) -> None:
    """Every row as it is found, or one document."""
    if as_json:
        print(json.dumps({"measurements": count, "rows": [plain(row) for row in table.rows(count)]}, indent=1))
        return
    for i, row in enumerate(table.rows(count)):
        words, figures = table.words(row), table.figures(row)
        if i == 0:
            print(f"| {' | '.join(table.heads)} |\n|{'---|' * len(words)}{'--:|' * len(figures)}")
        print(f"| {' | '.join((*words, *figures))} |", flush=True)


def plain(value: Any) -> Any:
    """Named tuples as dictionaries, also within each other."""
    if hasattr(value, "_asdict"):
        return {key: plain(v) for key, v in value._asdict().items()}
    return value


def decimals(*values: float) -> tuple[str, ...]:
    """Three of each."""
    return tuple(f"{v:.3f}" for v in values)


def of_stein(ksd: stein.Discrepancy) -> str:
    """In thousandths, with its standard error."""
    return f"{1e3 * ksd.value:.1f} ± {1e3 * ksd.error:.1f}"


def weights(values: list[float]) -> str:
    """All but the last, which they leave."""
    return " ".join(decimals(*values[:-1]))


TABLES = {
    "levy": Table(
        levy.table, ("increments", "operator", "coverage", "Gibbs", "gap, dB", "limit", "CRPS", "KSD², ‰", "gradients"),
        lambda c: (c.process, c.operator),
        lambda c: (*decimals(c.coverage, c.exact_coverage, c.gap, c.limit, c.crps), of_stein(c.ksd), str(c.gradients))),
    "ranks": Table(
        ranks.table, ("problem", "correction", *(f"χ², {name}" for name in ranks.STATISTICS), "coverage"),
        lambda r: (r.problem, r.correction),
        lambda r: (*(f"{v:.1f}" for v in r.chi2.values()), f"{r.coverage:.3f}")),
    "leaps": Table(
        leaps.table, ("modes", "way", "exact", "found", "error", "acceptance", "gradients", "time"),
        lambda r: (r.problem, r.way),
        lambda r: (weights(r.exact), weights(r.found), f"{r.error:.3f}", "" if r.acceptance is None else f"{r.acceptance:.2f}",
                   str(r.gradients), f"{r.times:.2f}")),
    "operators": Table(
        closed_forms.table,
        ("prior", "operator", *(f"{100 * level:.0f} % of {chains}" for level in closed_forms.LEVELS
                                for chains in closed_forms.CHAINS), "gap, dB", "CRPS", "KSD², ‰", "gradients"),
        lambda c: (c.prior, c.operator),
        lambda c: (*decimals(*(shares[i] for i in range(len(closed_forms.LEVELS)) for shares in c.coverage.values()),
                             c.figures.gap, c.figures.crps), of_stein(c.figures.ksd), str(c.gradients))),
    "shipped": Table(
        shipped.table, ("prior", "measurement", "gradients", "50 %", "90 %", "error", "variance/error²", "CRPS"),
        lambda c: (c.prior, c.operator),
        lambda c: (str(c.gradients), *decimals(*c.coverage, c.error), f"{c.ratio:.2f}", f"{c.crps:.4f}")),
    "peers": Table(
        beside.table, ("prior", "operator", "sampler", "coverage", "gap, dB", "CRPS", "KSD², ‰", "gradients"),
        lambda c: (c.prior, c.operator, c.sampler),
        lambda c: (*decimals(c.coverage, c.figures.gap, c.figures.crps), of_stein(c.figures.ksd), str(c.gradients))),
}


if __name__ == "__main__":
    main()
