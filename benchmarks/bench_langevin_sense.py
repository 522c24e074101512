"""langevin_sense against CG on torch.fft, ten iterations (plain), and the same products of matrices in torch (tuned)."""

from collections.abc import Callable
from typing import Any

import torch

from alps_fast.bench.common import LEVEL, Work, fastest, parametrize
from alps_fast.bench.peers import ula
from alps_fast.layout import as_complex, as_real
from alps_fast.operators import CartesianMRI
from alps_fast.ops.langevin_sense import langevin_sense
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, counters


def work(chains: int, size: int) -> Work:
    """Reads x, grad and U, writes x⁺ and m; three complex products with n × n matrices a line and chain."""
    return Work(bytes=8 * (4 * chains * size**2 + size**3), flops=3 * 8 * chains * size**3)


def coil_maps(coils: int, size: int) -> torch.Tensor:
    """Smooth complex sensitivities around the image."""
    grid = torch.linspace(-1, 1, size)
    angles = 2 * torch.pi * torch.arange(coils)[:, None, None] / coils
    away = (grid[:, None] - angles.sin()) ** 2 + (grid - angles.cos()) ** 2
    maps = torch.exp(-away) * torch.exp(1j * (grid * angles.cos() - grid[:, None] * angles.sin()))
    return maps / maps.abs().square().sum(0).sqrt()


def line_mask(size: int, generator: torch.Generator) -> torch.Tensor:
    """A quarter of the lines along W, the centre among them."""
    mask = (torch.rand(size, generator=generator) < 0.2).float()
    mask[size // 2 - size // 24:size // 2 + size // 24] = 1
    return mask


class Plain:
    """The step of docs/design.md §3 as it is written: perturb and solve, by ten iterations of conjugate gradients."""

    def __init__(self, x, grad, b, maps, mask):
        self.x, self.grad, self.b = (as_complex(v)[..., 0][:, None] for v in (x, grad, b))
        self.maps, self.mask = maps, torch.fft.ifftshift(mask)

    def adjoint(self, y):
        return (self.maps.conj() * torch.fft.ifft2(self.mask * y, norm="ortho")).sum(1, keepdim=True)

    def normal(self, v):
        return self.adjoint(torch.fft.fft2(self.maps * v, norm="ortho"))

    def apply(self, v):
        return self.normal(v) * LEVEL["inv_eta2"] + LEVEL["lam"] * v

    def __call__(self, iterations=10, noise=True):
        r = self.b + LEVEL["lin"] * self.x - LEVEL["w"] * self.grad
        if noise:
            eps = torch.randn(len(r), *self.maps.shape, dtype=r.dtype, device=r.device) * 2**0.5
            r = r + LEVEL["inv_eta2"]**0.5 * self.adjoint(eps) + LEVEL["lam"]**0.5 * 2**0.5 * torch.randn_like(r)
        v = torch.zeros_like(r)
        p, rr = r, (r.conj() * r).real.sum((1, 2, 3), keepdim=True)
        for _ in range(iterations):
            q = self.apply(p)
            alpha = rr / (p.conj() * q).real.sum((1, 2, 3), keepdim=True)
            v, r, last = v + alpha * p, r - alpha * q, rr
            rr = (r.conj() * r).real.sum((1, 2, 3), keepdim=True)
            p = r + rr / last * p
        return v


class Tuned:
    """The kernel's algebra: gains once a level, everything in place, two batched products, R_{k+1} kept for the next step."""

    def __init__(self, x, grad, b, u, eigenvalues, averaged):
        self.x, self.grad, self.b, self.u, self.mh = x, grad, b, u, u.mH
        self.gain = 1 / (eigenvalues[..., None] * LEVEL["inv_eta2"] + LEVEL["lam"])
        self.root = self.gain.sqrt() * (0.5**0.5 if averaged else 1)
        self.r, self.drawn = torch.empty_like(x), torch.empty_like(x)
        self.last = torch.randn_like(x) if averaged else None
        (lines, n), chains = u.shape[:2], len(x)
        self.columns, self.coefficients, self.both, self.out = (
            torch.empty(lines, n, chains * k, dtype=u.dtype, device=u.device) for k in (1, 1, 2, 2))

    def lines(self, state):  # lines run along W
        return as_complex(state)[..., 0].permute(1, 2, 0)

    def __call__(self):
        torch.add(self.b, self.x, alpha=LEVEL["lin"], out=self.r).sub_(self.grad, alpha=LEVEL["w"])
        chains = len(self.x)
        self.columns.copy_(self.lines(self.r))
        torch.bmm(self.mh, self.columns, out=self.coefficients)
        torch.mul(self.coefficients, self.gain, out=self.both[..., :chains])
        self.drawn.normal_()
        xi = self.drawn if self.last is None else self.last.add_(self.drawn)
        torch.addcmul(self.both[..., :chains], self.lines(xi), self.root.to(self.u.dtype), out=self.both[..., chains:])
        if self.last is not None:
            self.last, self.drawn = self.drawn, self.last
        torch.bmm(self.u, self.both, out=self.out)
        mean, after = (as_real(self.out[..., k * chains:(k + 1) * chains].permute(2, 0, 1)[..., None]) for k in (0, 1))
        return after, mean


@parametrize("noise", [INDEPENDENT, AVERAGED], ids=["independent", "averaged"])
@parametrize("chains, size, coils", [(16, 128, 8), (1, 128, 8), (64, 128, 8)])
def test_langevin_sense(measure, chains, size, coils, noise):
    device = measure.device
    x, grad = torch.randn(2, chains, size, size, 2, device=device)
    b = torch.randn(1, size, size, 2, device=device)
    maps, mask = coil_maps(coils, size).to(device), line_mask(size, torch.Generator().manual_seed(3)).to(device)
    operator = CartesianMRI(mask, maps, noise_std=0.05, axis=1)
    axis = operator.line_axis
    assert axis is not None
    u, eigenvalues = operator.factors(torch.complex64, x.device)
    ids, backend, averaged = counters(torch.arange(chains, device=device)), fastest("langevin_sense", device), noise == AVERAGED
    plain = Plain(x, grad, b, maps, operator.mask)
    baselines: dict[str, Callable[..., Any]] = {"plain": plain, "tuned": Tuned(x, grad, b, u, eigenvalues, averaged)}

    def normal(v):
        z = plain.normal(torch.complex(v[:, 0], v[:, 1])[:, None])
        return torch.cat([z.real, z.imag], 1)

    peer = ula(lambda deepinv: deepinv.physics.MultiCoilMRI(mask.expand(size, size)[None, None], maps[None], (size, size)),
               x, grad, b, normal, LEVEL["inv_eta2"], LEVEL["w"])
    timed = baselines | peer if chains <= 16 else {"tuned": baselines["tuned"]}  # two seconds a call

    def ours(backend=backend):
        return langevin_sense(x, grad, b, u, eigenvalues, axis, ids, **LEVEL, noise=noise, seed=7, step=3,
                              backend=backend)

    for mine, reference in zip(ours(), ours("torch"), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(baselines["tuned"]()[1], ours()[1], rtol=1e-4, atol=1e-4)
    exact = as_real(plain(iterations=60, noise=False)[:, 0, ..., None])
    torch.testing.assert_close(exact, ours()[1], rtol=1e-3, atol=1e-3 * exact.abs().max().item())
    measure(f"langevin_sense, {chains} x {size}², {coils} coils, {'averaged' if averaged else 'independent'}", backend, ours,
            timed, work(chains, size), rounds=9 if chains == 16 else 31)
