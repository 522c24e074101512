"""langevin_fourier against the same step in torch.fft, written straight from the paper (plain) and with care (tuned)."""

import math
from collections.abc import Callable
from typing import Any

import torch

from alps_fast.bench.common import LEVEL, Work, fastest, parametrize
from alps_fast.bench.peers import ula
from alps_fast.layout import as_complex, as_real
from alps_fast.operators.fourier import CircularBlur
from alps_fast.ops.langevin_fourier import langevin_fourier
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, counters


def work(chains: int, size: int, channels: int, is_complex: bool) -> Work:
    """Reads x, grad, writes x⁺ and m. Complex transforms of 5 n log₂ n: two a real channel, three a complex one."""
    n = size * size
    transforms = 3 * channels // 2 if is_complex else 2 * channels
    return Work(bytes=16 * chains * n * channels, flops=int(chains * transforms * 5 * n * math.log2(n)))


class Plain:
    """docs/design.md §3 as it is written: complex transforms, P every step, each term a tensor of its own; ξ counts pixels."""

    def __init__(self, x, grad, b, h, is_complex, averaged):
        self.x, self.grad, self.b = (self.image(v, is_complex) for v in (x, grad, b))
        self.h, self.is_complex = h, is_complex
        self.last = self.normals() if averaged else None

    @staticmethod
    def image(state, is_complex):
        return (as_complex(state) if is_complex else state).movedim(-1, 1)

    def normals(self):
        return torch.randn_like(self.x) * (2**0.5 if self.is_complex else 1)

    def __call__(self, xi=None):
        p = 1 / (self.h.abs() ** 2 * LEVEL["inv_eta2"] + LEVEL["lam"])
        r = self.b + LEVEL["lin"] * self.x - LEVEL["w"] * self.grad
        mean = torch.fft.ifft2(p * torch.fft.fft2(r))
        if xi is None:
            xi = self.normals()
            if self.last is not None:
                self.last, xi = xi, (self.last + xi) / 2**0.5
        after = mean + torch.fft.ifft2(p.sqrt() * torch.fft.fft2(xi))
        return (after, mean) if self.is_complex else (after.real, mean.real)


class Tuned:
    """Gains once a level, in place, half spectra of real images, noise of complex ones in k-space, R_{k+1} kept."""

    def __init__(self, x, grad, b, h, is_complex, averaged):
        self.x, self.grad, self.b = (Plain.image(v, is_complex).contiguous() for v in (x, grad, b))  # a layout of its own choice
        half = h if is_complex else h[:, :h.shape[1] // 2 + 1]
        self.gain = 1 / (half.abs() ** 2 * LEVEL["inv_eta2"] + LEVEL["lam"])
        self.root = self.gain.sqrt() * (0.5**0.5 if averaged else 1) * (math.sqrt(h.numel()) * 2**0.5 if is_complex else 1)
        self.is_complex = is_complex
        self.r, self.drawn, self.after = (torch.empty_like(self.x) for _ in range(3))
        self.last = torch.randn_like(self.x) if averaged else None

    def __call__(self):
        torch.add(self.b, self.x, alpha=LEVEL["lin"], out=self.r).sub_(self.grad, alpha=LEVEL["w"])
        self.drawn.normal_()
        xi = self.drawn if self.last is None else self.last.add_(self.drawn)
        if self.last is not None:
            self.last, self.drawn = self.drawn, self.last
        if self.is_complex:
            spectrum = torch.fft.fft2(self.r).mul_(self.gain)
            mean = torch.fft.ifft2(spectrum)
            return torch.fft.ifft2(torch.addcmul(spectrum, xi, self.root)), mean
        mean = torch.fft.irfft2(torch.fft.rfft2(self.r).mul_(self.gain), s=self.r.shape[-2:])
        noise = torch.fft.irfft2(torch.fft.rfft2(xi).mul_(self.root), s=self.r.shape[-2:])
        return torch.add(mean, noise, out=self.after), mean


def blurring(x, grad, b, h):
    """DeepInverse's step with the same blur, on real images."""
    size, psf = tuple(h.shape), torch.fft.fftshift(torch.fft.ifft2(h).real)
    return ula(lambda deepinv: deepinv.physics.BlurFFT((x.shape[-1], *size), psf[None, None]), x, grad, b,
               lambda v: torch.fft.ifft2(torch.fft.fft2(v) * h.abs() ** 2).real, LEVEL["inv_eta2"], LEVEL["w"])


def states(images, is_complex):
    return as_real(images.movedim(1, -1)) if is_complex else images.movedim(1, -1)


@parametrize("noise", [INDEPENDENT, AVERAGED], ids=["independent", "averaged"])
@parametrize("chains, size, channels, is_complex",
                         [(64, 128, 1, False), (64, 128, 2, True), (16, 128, 3, False), (1, 128, 2, True), (16, 320, 2, True)])
def test_langevin_fourier(measure, chains, size, channels, is_complex, noise):
    device = measure.device
    x, grad = torch.randn(2, chains, size, size, channels, device=device)
    b, ids = torch.randn(1, size, size, channels, device=device), counters(torch.arange(chains, device=device))
    h = CircularBlur.gaussian(1.5, 0.05).transfer(size, size, torch.complex64, x.device)
    backend, averaged = fastest("langevin_fourier", device), noise == AVERAGED
    given = x, grad, b, h, is_complex, averaged
    baselines: dict[str, Callable[..., Any]] = {"plain": Plain(*given), "tuned": Tuned(*given)}

    def ours(xi=None, backend=backend):
        return langevin_fourier(x, grad, b, h, 1, is_complex, ids, **LEVEL, noise=noise, seed=7, step=3, xi=xi,
                                backend=backend)

    for mine, reference in zip(ours(), ours(backend="torch"), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)
    for run in baselines.values():
        torch.testing.assert_close(states(run()[1], is_complex), ours()[1], rtol=1e-4, atol=1e-5)
    if not is_complex:  # complex: ours counts ξ in k-space
        xi = torch.randn_like(x)
        torch.testing.assert_close(states(baselines["plain"](xi.movedim(-1, 1))[0], False), ours(xi)[0], rtol=1e-4, atol=1e-5)
    kind = f"{channels // 2} complex" if is_complex else f"{channels} real"
    peer = {} if is_complex else blurring(x, grad, b, h)
    case = f"langevin_fourier, {chains} x {size}², {kind}, {'averaged' if averaged else 'independent'}"
    measure(case, backend, ours, baselines | peer, work(chains, size, channels, is_complex), rounds=15)
