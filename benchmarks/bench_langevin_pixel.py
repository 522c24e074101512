"""langevin_pixel against the same step in eager torch, written straight from the paper (plain) and with care (tuned)."""

from collections.abc import Callable
from typing import Any

import torch

from alps_fast.bench.common import LEVEL, Work, fastest, parametrize
from alps_fast.bench.peers import ula
from alps_fast.ops.langevin_pixel import langevin_pixel
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, counters


def work(chains: int, numbers: int, pixels: int, draws: int) -> Work:
    """Reads x and grad, and b and a once; writes x⁺ and m. Two fma, a product and an fma, and the noise, a number."""
    noise = draws * (2 * 38 + 18 + 2 + 2) / 4 + (2 if draws == 2 else 0)
    return Work(bytes=4 * (4 * chains * numbers + numbers + pixels), flops=int(chains * numbers * (7 + noise)))


class Plain:
    """The step of docs/design.md §3 as it is written: P every step, every term a tensor of its own."""

    def __init__(self, x, grad, b, a, averaged):
        self.x, self.grad, self.b, self.a = x, grad, b, a
        self.last = torch.randn_like(x) if averaged else None

    def __call__(self, noise=None):
        p = 1 / (self.a * LEVEL["inv_eta2"] + LEVEL["lam"])
        mean = p * (self.b + LEVEL["lin"] * self.x - LEVEL["w"] * self.grad)
        xi = torch.randn_like(self.x) if noise is None else noise
        if self.last is not None and noise is None:
            self.last, xi = xi, (self.last + xi) / 2**0.5
        return mean + p.sqrt() * xi, mean


class Tuned:
    """P and its root once a level, everything in place, R_{k+1} kept for the next step, √½ in the root."""

    def __init__(self, x, grad, b, a, averaged):
        self.x, self.grad, self.b = x, grad, b
        self.p = 1 / (a * LEVEL["inv_eta2"] + LEVEL["lam"])
        self.root = self.p.sqrt() * (0.5**0.5 if averaged else 1)
        self.mean, self.after, self.drawn = (torch.empty_like(x) for _ in range(3))
        self.last = torch.randn_like(x) if averaged else None

    def __call__(self):
        torch.add(self.b, self.x, alpha=LEVEL["lin"], out=self.mean).sub_(self.grad, alpha=LEVEL["w"]).mul_(self.p)
        self.drawn.normal_()
        if self.last is None:
            torch.addcmul(self.mean, self.drawn, self.root, out=self.after)
        else:
            self.last.add_(self.drawn)
            torch.addcmul(self.mean, self.last, self.root, out=self.after)
            self.last, self.drawn = self.drawn, self.last
        return self.after, self.mean


@parametrize("noise", [AVERAGED, INDEPENDENT], ids=["averaged", "independent"])
@parametrize("chains, size", [(64, 64), (1, 64), (16, 256)])
def test_langevin_pixel(measure, chains, size, noise):
    device = measure.device
    x, grad = torch.randn(2, chains, size, size, 3, device=device)
    b, a = torch.randn(1, size, size, 3, device=device), (torch.rand(1, size, size, 1, device=device) < 0.5).float()
    ids, backend = counters(torch.arange(chains, device=device)), fastest("langevin_pixel", device)
    averaged = noise == AVERAGED
    baselines: dict[str, Callable[..., Any]] = {"plain": Plain(x, grad, b, a, averaged), "tuned": Tuned(x, grad, b, a, averaged)}
    mask = a.movedim(-1, 1)
    peer = ula(lambda deepinv: deepinv.physics.Inpainting((3, size, size), mask[0].expand(3, size, size).contiguous()),
               x, grad, b, lambda v: mask * v, LEVEL["inv_eta2"], LEVEL["w"])

    def ours(xi=None):
        return langevin_pixel(x, grad, b, a, ids, **LEVEL, noise=noise, seed=7, step=3, xi=xi, backend=backend)

    xi = torch.randn_like(x)
    torch.testing.assert_close(ours(xi), baselines["plain"](xi))
    torch.testing.assert_close(ours()[1], baselines["tuned"]()[1])
    few = (x[:1], grad[:1], b, a, ids[:1])
    reference = langevin_pixel(*few, **LEVEL, noise=noise, seed=7, step=3, backend="torch")
    torch.testing.assert_close(ours()[0][:1], reference[0])
    case = f"langevin_pixel, {chains} x {size}x{size}x3, {'averaged' if averaged else 'independent'}"
    measure(case, backend, ours, baselines | peer, work(chains, 3 * size * size, size * size, 1 + averaged))
