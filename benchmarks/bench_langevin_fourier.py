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

    def drawn(self):
        xi = self.normals()
        if self.last is not None:
            self.last, xi = xi, (self.last + xi) / 2**0.5
        return xi

    def __call__(self, xi=None):
        p = 1 / (self.h.abs() ** 2 * LEVEL["inv_eta2"] + LEVEL["lam"])
        r = self.b + LEVEL["lin"] * self.x - LEVEL["w"] * self.grad
        mean = torch.fft.ifft2(p * torch.fft.fft2(r))
        after = mean + torch.fft.ifft2(p.sqrt() * torch.fft.fft2(self.drawn() if xi is None else xi))
        return (after, mean) if self.is_complex else (after.real, mean.real)


class Tuned:
    """Gains once a level, in place, half spectra of real images, noise of complex ones in k-space, R_{k+1} kept."""

    def __init__(self, x, grad, b, h, is_complex, averaged):
        self.x, self.grad, self.b = (Plain.image(v, is_complex).contiguous() for v in (x, grad, b))  # a layout of its own choice
        half = h if is_complex else h[:, :h.shape[1] // 2 + 1]
        self.gain = 1 / (half.abs() ** 2 * LEVEL["inv_eta2"] + LEVEL["lam"])
        self.scale = (0.5**0.5 if averaged else 1) * (math.sqrt(h.numel()) * 2**0.5 if is_complex else 1)
        self.root = self.gain.sqrt() * self.scale
        self.is_complex = is_complex
        self.r, self.drawn, self.after = (torch.empty_like(self.x) for _ in range(3))
        self.last = torch.randn_like(self.x) if averaged else None

    def begun(self):
        """r, in its place, and ξ but for its scale."""
        torch.add(self.b, self.x, alpha=LEVEL["lin"], out=self.r).sub_(self.grad, alpha=LEVEL["w"])
        self.drawn.normal_()
        xi = self.drawn if self.last is None else self.last.add_(self.drawn)
        if self.last is not None:
            self.last, self.drawn = self.drawn, self.last
        return xi

    def __call__(self):
        xi = self.begun()
        if self.is_complex:
            spectrum = torch.fft.fft2(self.r).mul_(self.gain)
            mean = torch.fft.ifft2(spectrum)
            return torch.fft.ifft2(torch.addcmul(spectrum, xi, self.root)), mean
        mean = torch.fft.irfft2(torch.fft.rfft2(self.r).mul_(self.gain), s=self.r.shape[-2:])
        noise = torch.fft.irfft2(torch.fft.rfft2(xi).mul_(self.root), s=self.r.shape[-2:])
        return torch.add(mean, noise, out=self.after), mean


class PlainDecimated(Plain):
    """The same with every factor-th pixel kept: AᴴA = a aᴴ on the aliases of a frequency, a = h̄/factor."""

    def __init__(self, x, grad, b, h, factor, is_complex, averaged):
        super().__init__(x, grad, b, h, is_complex, averaged)
        self.factor = factor

    def power(self, image, exponent):
        """(AᴴA/η² + λ)^exponent."""
        groups = self.factor, self.h.shape[0] // self.factor, self.factor, self.h.shape[1] // self.factor
        a, v = self.h.conj().view(groups) / self.factor, torch.fft.fft2(image)
        v, energy = v.view(*v.shape[:-2], *groups), (a.abs() ** 2).sum((0, 2), keepdim=True)
        along = a * (a.conj() * v).sum((-4, -2), keepdim=True) / energy
        gained = along * (energy * LEVEL["inv_eta2"] + LEVEL["lam"]) ** exponent + (v - along) * LEVEL["lam"] ** exponent
        return torch.fft.ifft2(gained.view(image.shape))

    def __call__(self, xi=None):
        mean = self.power(self.b + LEVEL["lin"] * self.x - LEVEL["w"] * self.grad, -1.0)
        after = mean + self.power(self.drawn() if xi is None else xi, -0.5)
        return (after, mean) if self.is_complex else (after.real, mean.real)


class TunedDecimated(Tuned):
    """As Tuned; aliases are summed over in half spectra of real images, where some are mirrored."""

    def __init__(self, x, grad, b, h, factor, is_complex, averaged):
        super().__init__(x, grad, b, h, is_complex, averaged)
        self.factor, self.rows, self.width = factor, h.shape[0] // factor, h.shape[1] // factor
        groups = factor, self.rows, factor, self.width
        energy = (h.view(groups).abs() / factor).square().sum((0, 2))
        unit = h.conj() / factor / energy.sqrt().repeat(factor, factor)
        if not is_complex:
            energy, unit = energy[:, :self.width // 2 + 1], unit[:, :h.shape[1] // 2 + 1].contiguous()
        self.unit, self.dual = (v.view(groups) if is_complex else v for v in (unit, unit.conj().resolve_conj()))
        self.rest = 1 / LEVEL["lam"], self.scale / LEVEL["lam"] ** 0.5
        gain = 1 / (energy * LEVEL["inv_eta2"] + LEVEL["lam"])
        self.head = gain - self.rest[0], gain.sqrt() * self.scale - self.rest[1]

    def mirrored(self, small):
        return torch.roll(small.flip(-2, -1), 1, -2).conj()

    def power(self, v, k):
        """Of the spectrum of r, k = 0, or ξ, k = 1."""
        if self.is_complex:
            v = v.view(*v.shape[:-2], *self.unit.shape)
            sums = (v * self.dual).sum((-4, -2), keepdim=True).mul_(self.head[k][:, None])
            return torch.addcmul(v * self.rest[k], self.unit, sums).flatten(-4, -3).flatten(-2)
        half, width, factor = self.width // 2, self.width, self.factor
        part = (v * self.dual).unflatten(-2, (factor, self.rows)).sum(-3)
        sums = sum(part[..., j * width:j * width + half + 1] for j in range((factor + 1) // 2))
        sums = sums + self.mirrored(sum(part[..., j * width - half:j * width + 1] for j in range(1, factor // 2 + 1)))
        sums *= self.head[k]
        out, mirrored = torch.empty_like(part), self.mirrored(sums)
        for j in range(1, factor // 2 + 1):
            out[..., j * width - half:j * width + 1] = mirrored
        for j in range((factor + 1) // 2):
            out[..., j * width:j * width + half + 1] = sums
        v *= self.rest[k]
        v.unflatten(-2, (factor, self.rows)).addcmul_(self.unit.unflatten(-2, (factor, self.rows)), out.unsqueeze(-3))
        return v

    def __call__(self):
        xi = self.begun()
        if self.is_complex:
            spectrum = self.power(torch.fft.fft2(self.r), 0)
            return torch.fft.ifft2(self.power(xi, 1).add_(spectrum)), torch.fft.ifft2(spectrum)
        mean, noise = (torch.fft.irfft2(self.power(torch.fft.rfft2(v), k), s=v.shape[-2:]) for k, v in enumerate((self.r, xi)))
        return torch.add(mean, noise, out=self.after), mean


def blurring(x, grad, b, h):
    """DeepInverse's step with the same blur, on real images."""
    size, psf = tuple(h.shape), torch.fft.fftshift(torch.fft.ifft2(h).real)
    return ula(lambda deepinv: deepinv.physics.BlurFFT((x.shape[-1], *size), psf[None, None]), x, grad, b,
               lambda v: torch.fft.ifft2(torch.fft.fft2(v) * h.abs() ** 2).real, LEVEL["inv_eta2"], LEVEL["w"])


def states(images, is_complex):
    return as_real(images.movedim(1, -1)) if is_complex else images.movedim(1, -1)


def timed(measure, chains, size, channels, is_complex, noise, factor):
    """A case; contenders must agree on the mean, and on given noise where all count it in pixels."""
    device = measure.device
    x, grad = torch.randn(2, chains, size, size, channels, device=device)
    b, ids = torch.randn(1, size, size, channels, device=device), counters(torch.arange(chains, device=device))
    h = CircularBlur.gaussian(1.5, 0.05).transfer(size, size, torch.complex64, x.device)
    backend, averaged = fastest("langevin_fourier", device), noise == AVERAGED
    given = x, grad, b, h
    baselines: dict[str, Callable[..., Any]]
    if factor == 1:
        baselines = {"plain": Plain(*given, is_complex, averaged), "tuned": Tuned(*given, is_complex, averaged)}
    else:
        baselines = {"plain": PlainDecimated(*given, factor, is_complex, averaged),
                     "tuned": TunedDecimated(*given, factor, is_complex, averaged)}

    def ours(xi=None, backend=backend):
        return langevin_fourier(x, grad, b, h, factor, is_complex, ids, **LEVEL, noise=noise, seed=7, step=3, xi=xi,
                                backend=backend)

    for mine, reference in zip(ours(), ours(backend="torch"), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)
    for run in baselines.values():
        torch.testing.assert_close(states(run()[1], is_complex), ours()[1], rtol=1e-4, atol=1e-5)
    if not is_complex:  # complex: ours counts ξ in k-space
        xi = torch.randn_like(x)
        torch.testing.assert_close(states(baselines["plain"](xi.movedim(-1, 1))[0], False), ours(xi)[0], rtol=1e-4, atol=1e-5)
    kind = f"{channels // 2} complex" if is_complex else f"{channels} real"
    kept = "" if factor == 1 else f", factor {factor}"
    peer = blurring(x, grad, b, h) if factor == 1 and not is_complex else {}
    case = f"langevin_fourier, {chains} x {size}²{kept}, {kind}, {'averaged' if averaged else 'independent'}"
    measure(case, backend, ours, baselines | peer, work(chains, size, channels, is_complex), rounds=15)


@parametrize("noise", [INDEPENDENT, AVERAGED], ids=["independent", "averaged"])
@parametrize("chains, size, channels, is_complex",
                         [(64, 128, 1, False), (64, 128, 2, True), (16, 128, 3, False), (1, 128, 2, True), (16, 320, 2, True)])
def test_langevin_fourier(measure, chains, size, channels, is_complex, noise):
    timed(measure, chains, size, channels, is_complex, noise, 1)


@parametrize("noise", [INDEPENDENT, AVERAGED], ids=["independent", "averaged"])
@parametrize("factor, chains, size, channels, is_complex",
                         [(2, 64, 128, 1, False), (4, 64, 128, 1, False), (2, 64, 128, 2, True), (2, 16, 128, 3, False),
                          (3, 16, 192, 3, False), (2, 1, 128, 1, False)])
def test_langevin_fourier_decimated(measure, factor, chains, size, channels, is_complex, noise):
    timed(measure, chains, size, channels, is_complex, noise, factor)
