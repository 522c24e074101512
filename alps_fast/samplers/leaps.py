"""Leaps between modes that lie too far apart for steps: by how two modes differ that other chains are in (docs/exactness.md §9).

    x' = x ± e,   e all, or one connected block, of c − c',   c and c' the modes that two chains of the other half settle in

Chains leap in teams of 32, halves taking turns; e hangs on the half that stands still alone. The sign leads to the other side of
the middle of c and c', from where the same rule leads back, so that a leap is a reflection of the state space onto itself and

    α = min(1, p(x')/p(x)),   p ∝ exp(−E(x, t)/t² − ‖Ax − y‖²/(2η²) − ‖x − x₀‖²/(2σ²)),   t = σ_min

leaves p as it is, whatever e.

Source: leaps to repair the weights of modes are [Tawn]'s; theirs are between modes that were searched for beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..layout import from_state
from ..ops.philox_normal import LEAP, MIRRORED, NO_NOISE, philox_uniforms
from ..schedule import Level
from .chains import Ensemble
from .mala import row_dot, row_sum
from .targets import Target, Targets

TEAM, HALF = 32, 16  # chains that leap together, and those of them that do at a time
TEAMS = 8  # teams that leap at a time: what they work in does not grow with the chains
ROUNDS = 3  # of leaps before the last level that anneals; in each both halves have their turn
TRIES = 2  # leaps in a turn, by the same two modes
SHARE = 0.2  # of a run's gradients, which all rounds may take in evaluations
SETTLING = 24  # evaluations of ∇E, at most, that a mode is settled in by
COST = TRIES + 4 * SETTLING // TEAM  # evaluations a chain of a round: of E at x', and its part of four modes
KEPT = 8  # steps back that settling looks
SETTLED = 1e-8  # squares of what is left to go, in units of the step's noise and for each number, that count as none
SEED, GROWTH = 5.0, 0.25  # a block has an entry that differs by 5 standard errors, and what hangs together with it
APART = 25.0  # squared distance of modes, in standard deviations, below which there is nothing to leap


def team_of(pairs: bool) -> int:
    """Chains of neighbouring indices that hang together: of pairs, whose two never leap by each other, two teams."""
    return 2 * TEAM if pairs else TEAM


class Modes(NamedTuple):
    """What T teams leap by: their modes' difference and middle, (T, H, W, C'), and where `apart` (T,) says that there is one.

    labels: (T, H, W) of the blocks of the difference, 0 where there is none. roots: (T, H·W) bool, one place of every block.
    """

    difference: Tensor
    middle: Tensor
    labels: Tensor
    roots: Tensor
    apart: Tensor


@dataclass
class Leaps:
    """The leaps of a run, before the last of the levels that anneal and between draws.

    targets, levels, annealed: the run's. teams: (T, 2, 16) rows of its chains, measurement by measurement.
    """

    targets: Targets
    levels: list[Level]
    annealed: int
    teams: Tensor

    def rounds(self, i: int) -> int:
        """How many there are before level i: `ROUNDS` first, then as many between draws as `SHARE` leaves, evenly."""
        draws, k = len(self.levels) - self.annealed, i - self.annealed + 1
        if k <= 0:
            return ROUNDS if k == 0 else 0
        left = SHARE * sum(level.steps for level in self.levels) - (1 + ROUNDS * COST)
        rest = min(max(int(left / (1 + COST)), 0), draws)
        return k * rest // draws - (k - 1) * rest // draws

    def before(self, i: int, ensemble: Ensemble, most: int) -> None:
        """Leap as often as there are rounds before level i, evaluating at most `most` rows at a time."""
        rounds = self.rounds(i)
        if not rounds:
            return
        target = self.targets.at(self.levels[i], ensemble.data_noise[:0])
        x, told = ensemble.x.clone(), torch.zeros(2, len(ensemble.x), dtype=torch.float64, device=ensemble.x.device)
        each = len(self.teams) // len(self.targets.adjoint)
        for some in torch.arange(len(self.teams), device=x.device).split(max(min(TEAMS, most // TEAM), 1)):
            rows = self.teams[some]
            team = Team(target, self.targets, some // each, self.targets.ids[rows], x[rows], ensemble.alive[rows], most)
            for number in range(rounds):
                team.round(ensemble.step, number)
            x[rows.flatten()] = team.x.flatten(0, 2)
            told[:, rows.flatten()] = team.told.flatten(1)
        ensemble.leapt = told if ensemble.leapt is None else ensemble.leapt + told
        ensemble.x, ensemble.point = x, None
        ensemble.gradients += 1 + rounds * COST


def teams_of(measurements: int, chains: int, pairs: bool, device: torch.device) -> Tensor:
    """(T, 2, 16) rows of chains, measurement by measurement; the first of each pair and the second are in teams of their own."""
    rows = torch.arange(measurements * chains, device=device).view(-1, 2, HALF, 1 + pairs)
    return rows.movedim(3, 1).flatten(0, 1)


class Team:
    """Some teams' chains while they leap.

    x: (T, 2, 16, H, W, C') states, ids and alive like them. of: (T,) their measurements.
    told: (2, T, 2, 16) float64, how many leaps were tried and the sum of their probabilities.
    """

    def __init__(self, target: Target, targets: Targets, of: Tensor, ids: Tensor, x: Tensor, alive: Tensor, most: int):
        self.operator, self.energy_weight, self.seed = target.operator, target.scalars.w, targets.seed
        self.target, self.most = target, most
        self.settling = replace(target, b=target.b[of].repeat_interleave(2, 0))
        self.y = targets.y[of].repeat_interleave(HALF, 0)
        self.warm = None if targets.warm is None else targets.warm[of].repeat_interleave(HALF, 0)
        self.warm_lam = targets.warm_lam
        self.x, self.ids, self.alive = x, ids, alive
        self.told = torch.zeros(2, *alive.shape, dtype=torch.float64, device=x.device)
        self.value = self.values(x.flatten(0, 2)).view(alive.shape)

    def values(self, x: Tensor) -> Tensor:
        """E of states, (N,) float64."""
        return torch.cat([self.target.value_and_grad(part)[0].double() for part in x.split(self.most)])

    def round(self, step: int, number: int) -> None:
        """Leaps of the first half by the second, then of the second by the first as it stands now."""
        chances = [philox_uniforms(self.ids.flatten(0, 2), self.seed, step, LEAP, TRIES * number + k).view(*self.alive.shape, 4)
                   for k in range(TRIES)]
        for half in (0, 1):
            modes = found(self.settling, self.x[:, 1 - half], self.alive[:, 1 - half], chances[0][:, half, 0, 2:])
            for chance in chances:
                self._leap(half, modes, chance[:, half, :, :2])

    def _leap(self, half: int, modes: Modes, chance: Tensor) -> None:
        """Every chain of a half proposes, and accepts or rejects for itself; chance: (T, 16, 2)."""
        x, e = self.x[:, half].flatten(0, 1), pieces(modes, chance[..., 1]).flatten(0, 1)
        side = row_sum((x - modes.middle.repeat_interleave(HALF, 0)) * e)
        squares = row_sum(e * e)
        e = e * torch.where(side > 0, -1.0, 1.0).to(e.dtype).view(-1, 1, 1, 1)
        proposal = x + e
        value = self.values(proposal)
        rises = self.energy_weight * (value - self.value[:, half].flatten()) + self._misfit(x, e)
        log_alpha = torch.where(side.abs() < squares, -rises, -torch.inf).nan_to_num(-torch.inf, posinf=-torch.inf)
        probability = log_alpha.clamp(max=0.0).exp().float().view(chance.shape[:2])
        tried = self.alive[:, half] & modes.apart[:, None]
        drawn = chance[..., 0]
        mirrored = (self.ids[:, half, :, 1] & MIRRORED) != 0
        drawn = torch.where(mirrored, 1 - drawn, drawn).clamp(min=2.0**-33)  # so the two of a pair accept apart, where they can
        accept = (drawn <= probability) & tried
        self.x[:, half] = torch.where(accept.view(-1, 1, 1, 1), proposal, x).view_as(self.x[:, half])
        self.value[:, half] = torch.where(accept, value.view_as(accept), self.value[:, half])
        self.told[0, :, half] += tried
        self.told[1, :, half] += torch.where(tried, probability, 0.0)

    def _misfit(self, x: Tensor, e: Tensor) -> Tensor:
        """How far the quadratic terms rise from x to x + e, float64, by e alone: nothing large is subtracted."""
        def real(image: Tensor) -> Tensor:
            return torch.view_as_real(image) if image.is_complex() else image

        images, moved = (from_state(v, self.operator.is_complex) for v in (x, e))
        residual, seen = real(self.operator.misfit(images, self.y)), real(self.operator.whitened(self.operator.forward(moved)))
        rises = self.target.scalars.inv_eta2 * (row_dot(residual, seen) + 0.5 * row_dot(seen, seen))
        if self.warm is not None:
            rises = rises + self.warm_lam * (row_dot(x - self.warm, e) + 0.5 * row_dot(e, e))
        return rises


def found(target: Target, z: Tensor, alive: Tensor, chance: Tensor) -> Modes:
    """Two modes that chains z (T, 16, H, W, C') are in; chance (T, 2) says which, of those that are `alive` (T, 16).

    One chain at random, and another of those `beyond` its neighbours, the likelier the farther it is. Chains half as far are
    taken to be in the same mode, and the means of these two clusters settle in modes.
    """
    shape, count = z.shape[2:], alive.sum(1)
    z = torch.where(alive.view(*alive.shape, 1, 1, 1), z, 0)
    first = chosen_by(alive.double(), chance[:, 0])
    from_first = distances(z, first, alive)
    nearest = from_first.scatter(1, first[:, None], torch.inf).amin(1, keepdim=True)
    others = alive.scatter(1, first[:, None], False)
    away = others & beyond(torch.where(others, from_first, torch.inf))
    second = chosen_by(torch.where(away, (from_first - nearest).square(), 0), chance[:, 1])
    from_second = distances(z, second, alive)
    bound = (nearest + from_first.gather(1, second[:, None])) / 2
    members = [alive & (near <= bound) & (near < far) for near, far in ((from_first, from_second), (from_second, from_first))]
    sizes = [m.sum(1).clamp(min=1).view(-1, 1, 1, 1) for m in members]
    means = [over(z, m) / n for m, n in zip(members, sizes, strict=True)]
    of_own = torch.where(members[0].view(*alive.shape, 1, 1, 1), means[0][:, None], means[1][:, None])
    std = (over((z - of_own).square(), members[0] | members[1]) / (sizes[0] + sizes[1] - 2).clamp(min=1)).sqrt()
    centres = settled(target, torch.stack(means, 1).flatten(0, 1)).view(-1, 2, *shape)
    difference, middle = centres[:, 0] - centres[:, 1], centres.mean(1)
    error = std * (1 / sizes[0] + 1 / sizes[1]).sqrt()
    differs = difference.abs() > GROWTH * std
    seeds = (differs & ((means[0] - means[1]).abs() > SEED * error)).any(-1)  # of many places some means differ so by chance
    labels = components(differs.any(-1))
    roots = torch.zeros(len(z), labels[0].numel() + 1, dtype=torch.bool, device=z.device)
    roots.scatter_(1, torch.where(seeds, labels, 0).flatten(1), True)
    far = row_sum((difference / std.clamp(min=torch.finfo(std.dtype).tiny)).square())
    return Modes(difference, middle, labels, roots[:, 1:], (count >= 4) & (far > APART) & far.isfinite())


def chosen_by(weights: Tensor, chance: Tensor) -> Tensor:
    """One of each row's entries (T,), in proportion to its weight; chance in (0, 1]."""
    sums = weights.cumsum(1)
    return (sums >= chance.double()[:, None] * sums[:, -1:]).long().argmax(1)


def beyond(squares: Tensor) -> Tensor:
    """Which of squared distances (T, n), ∞ of what does not count, lie above the first gap that is half as wide as the widest.

    Chains of one mode are all about equally far from each other, the nearer to that the larger the image is.
    """
    ordered = squares.sort(1).values
    gaps = ordered.diff(dim=1).nan_to_num(0.0, posinf=0.0)
    first = (gaps >= 0.5 * gaps.amax(1, keepdim=True)).long().argmax(1, keepdim=True)
    return (squares > ordered.gather(1, first)) & squares.isfinite()


def distances(z: Tensor, to: Tensor, alive: Tensor) -> Tensor:
    """Squared, of chains z (T, 16, …) to one of them each, (T, 16); ∞ of those that are not alive."""
    apart = z - z[torch.arange(len(z), device=z.device), to][:, None]
    return torch.where(alive, row_sum(apart.square_().flatten(0, 1)).view(alive.shape), torch.inf)


def over(z: Tensor, members: Tensor) -> Tensor:
    """Sum over members (T, 16) of z (T, 16, …), along one fixed tree."""
    terms = torch.where(members.view(*members.shape, 1, 1, 1), z, 0)
    while terms.shape[1] > 1:
        terms = terms[:, ::2] + terms[:, 1::2]
    return terms[:, 0]


def settled(target: Target, x: Tensor) -> Tensor:
    """Where x <- m(x) leads from states x (N, H, W, C'), each for itself, by at most `SETTLING` gradients.

        f = m(x) − x,   x <- m(x) − Σ_j γ_j (m(x) − m(x_j)),   γ = argmin ‖f − Σ_j γ_j (f − f_j)‖

    over the last `KEPT` x_j: where E is quadratic as fast as GMRES, where plain steps crawl along directions wider than t.

    Source: Anderson, "Iterative procedures for nonlinear integral equations", 1965.
    """
    s = replace(target.scalars, noise=NO_NOISE)
    ids = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    moving = torch.ones(len(x), dtype=torch.bool, device=x.device)
    before: list[tuple[Tensor, Tensor]] = []  # m(x_j) and f_j
    products = x.new_zeros(len(x), 0, 0, dtype=torch.float64)  # ⟨f_i, f_j⟩ of them
    for _ in range(SETTLING):
        projected = target.langevin(x, target.grad(x), ids, s)[1]
        left = projected - x
        all_left = torch.stack([*(f for _, f in before), left])
        with_left = row_dot(all_left.flatten(0, 1), left.expand_as(all_left).flatten(0, 1)).view(-1, len(x)).T
        moving = moving & (s.lam * with_left[:, -1] > SETTLED * x[0].numel())
        if not bool(moving.any()):
            break
        ahead = projected
        for (m, _), gamma in zip(before, mixed(products, with_left).to(x.dtype).unbind(1), strict=True):
            ahead = ahead - gamma.view(-1, 1, 1, 1) * (projected - m)
        x = torch.where(moving.view(-1, 1, 1, 1), ahead, x)
        before = [*before, (projected, left)]
        products = torch.cat([torch.cat([products, with_left[:, :-1, None]], 2), with_left[:, None]], 1)
        if len(before) > KEPT:
            before, products = before[1:], products[:, 1:, 1:]
    return x


def mixed(products: Tensor, with_left: Tensor) -> Tensor:
    """γ (N, J) = argmin ‖f − Σ_j γ_j (f − f_j)‖, by ⟨f_i, f_j⟩ (N, J, J), and ⟨f_j, f⟩ with ‖f‖² behind them (N, J + 1)."""
    across, own = with_left[:, :-1], with_left[:, -1:]
    normal = own[..., None] - across[:, :, None] - across[:, None] + products
    damping = 1e-8 * normal.diagonal(dim1=1, dim2=2).sum(1).clamp(min=1e-30)
    damped = normal + damping.view(-1, 1, 1) * torch.eye(across.shape[1], dtype=normal.dtype, device=normal.device)
    return torch.linalg.solve_ex(damped, own - across)[0]


def components(mask: Tensor) -> Tensor:
    """Labels (T, H, W) of the connected parts of masks, neighbours by corners too: 1 + the last of a part's places, 0 outside."""
    _, height, width = mask.shape
    places = torch.arange(1, height * width + 1, device=mask.device).view(1, height, width)
    labels = torch.where(mask, places, 0)
    while True:
        grown = torch.nn.functional.max_pool2d(labels.double(), 3, 1, 1).long()
        root = torch.cat([torch.zeros_like(labels.flatten(1)[:, :1]), labels.flatten(1)], 1)
        grown = torch.where(mask, root.gather(1, grown.flatten(1)).view_as(labels).maximum(grown), 0)
        if bool((grown == labels).all()):
            return labels
        labels = grown


def pieces(modes: Modes, chance: Tensor) -> Tensor:
    """What every chain leaps by, (T, 16, H, W, C'): the whole difference, or half as often as not one of its blocks, if any."""
    count = modes.roots.sum(1, keepdim=True)
    which = ((2 * chance - 1) * count).ceil()  # 1 … count, or below one: all
    at = (modes.roots.cumsum(1)[:, None] == which[..., None]).long().argmax(2) + 1
    inside = (modes.labels[:, None] == at[..., None, None]) | (which < 1)[..., None, None]
    return modes.difference[:, None] * inside[..., None].to(modes.difference.dtype)
