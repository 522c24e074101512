"""Whole runs of the published schedule against the loop as papers write it (plain) and as a careful torch user would (tuned).

plain: autograd, ten iterations of conjugate gradients on torch.fft, noise coloured by the mask alone, every constant anew.
tuned: the gradient written out and compiled, constants once a level, updates in place, and for MRI the kernel's own algebra: one
factorisation, then two products of matrices a step. All three with the same weights, precision and number of gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import alps_fast as af
from alps_fast import data
from alps_fast.bench.common import Measure, Work, full_float32, parametrize
from alps_fast.energies import CompactNet, DenoiserEnergy, Energy, RidgeEnergy
from alps_fast.operators import CartesianMRI, Inpainting
from alps_fast.ops.conv_grad import conv_grad_reference
from alps_fast.ops.ridge_grad import down, ridge_grad_reference

Gradient = Callable[[float], Callable[[Tensor], Tensor]]  # t -> x (N, C, H, W) -> ∇E(x, t)
Projection = Callable[[Tensor, float], Tensor]  # (r, lam) -> (AᴴA/η² + lam)⁻¹ r
STEPS = 5
ETA = 0.05


# --- the gradient --------------------------------------------------------------------------------------------------

def ridge_value(x: Tensor, filters: list[Tensor], w: Tensor, r: Tensor, q: Tensor, mu: Tensor) -> Tensor:
    """Σ E of `ops.ridge_grad`, forward alone."""
    n, channels = x.shape[:2]
    level, value = (x - mu).flatten(0, 1)[:, None], x.new_zeros(())
    for s in range(len(q)):
        level = down(level) if s else level
        value = value + 0.5 * q[s, 0] * (level * level).sum()
        if s < len(filters):
            z = F.conv2d(level, filters[s], padding=filters[s].shape[-1] // 2).unflatten(0, (n, channels))
            square = (z * z).sum(1)
            for ws, rs in zip(w[s, :, 0, :, None, None], r[s, :, 0, :, None, None], strict=True):
                value = value + (0.5 * ws / rs * torch.log(1 + square * rs)).sum()
    return value


def images_of(energy: Energy, x: Tensor) -> Tensor:
    """x (N, C, H, W) as images of as many channels as the energy has."""
    assert energy.channels is not None
    return x.reshape(-1, energy.channels, *x.shape[2:])


def plain_gradient(energy: Energy, precision: str) -> Gradient:
    """By autograd."""
    def at(t: float) -> Callable[[Tensor], Tensor]:
        def gradient(x: Tensor) -> Tensor:
            image = images_of(energy, x).detach().requires_grad_()
            if isinstance(energy, RidgeEnergy):
                value = ridge_value(image, *energy._constants(t, image))
            else:
                assert isinstance(energy, DenoiserEnergy)
                if next(energy.network.parameters()).device != image.device:
                    energy.network.to(image.device)
                with torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "fast"):
                    psi = energy.network(image, t)
                value = 0.5 * (image - psi).square().sum()
            return torch.autograd.grad(value, image)[0].reshape(x.shape)
        return gradient
    return at


def constants_of(energy: Energy, precision: str, t: float, device: torch.device) -> tuple[object, ...]:
    """What the op of this energy takes beside x."""
    like = torch.empty(1, device=device)
    if isinstance(energy, RidgeEnergy):
        return energy._constants(t, like)
    assert isinstance(energy, DenoiserEnergy) and isinstance(energy.network, CompactNet)
    net = energy.network.to(device)
    return net.weights(), *energy._constants(net, t, like), net.blocks, precision


def tuned_gradient(energy: Energy, precision: str, measure: Measure) -> Gradient:
    """Written out, compiled, its constants once a level."""
    reference = measure.compile(ridge_grad_reference if isinstance(energy, RidgeEnergy) else conv_grad_reference)

    def at(t: float) -> Callable[[Tensor], Tensor]:
        constants = constants_of(energy, precision, t, measure.device)

        def gradient(x: Tensor) -> Tensor:
            image = images_of(energy, x)
            image = image if isinstance(energy, RidgeEnergy) else image.contiguous(memory_format=torch.channels_last)
            return reference(image, *constants)[0].reshape(x.shape)
        return gradient
    return at


# --- the data term -------------------------------------------------------------------------------------------------

def as_pair(z: Tensor) -> Tensor:
    """Complex (N, H, W) as real (N, 2, H, W)."""
    return torch.stack([z.real, z.imag], 1)


class PlainPixels:
    def __init__(self, op: Inpainting, device: torch.device):
        self.mask, self.eta = op.mask.to(device), op.noise_std

    def project(self, r: Tensor, lam: float) -> Tensor:
        return r / (self.mask / self.eta**2 + lam)

    def noise(self, like: Tensor, lam: float) -> Tensor:
        return torch.randn_like(like) / (self.mask / self.eta**2 + lam).sqrt()


class PlainMRI:
    def __init__(self, op: CartesianMRI, device: torch.device, iterations: int = 10):
        assert op.maps is not None
        self.maps, self.mask = op.maps.to(device), torch.fft.ifftshift(op.mask).to(device)
        self.eta, self.iterations = op.noise_std, iterations

    def normal(self, z: Tensor) -> Tensor:
        samples = self.mask * torch.fft.fft2(self.maps * z[:, None], norm="ortho")
        return (self.maps.conj() * torch.fft.ifft2(samples, norm="ortho")).sum(1)

    def project(self, r: Tensor, lam: float) -> Tensor:
        r = torch.complex(r[:, 0], r[:, 1])
        z, p, rr = torch.zeros_like(r), r, r.abs().square().sum((1, 2), keepdim=True)
        for _ in range(self.iterations):
            q = self.normal(p) / self.eta**2 + lam * p
            alpha = rr / (p.conj() * q).real.sum((1, 2), keepdim=True)
            z, r, last = z + alpha * p, r - alpha * q, rr
            rr = r.abs().square().sum((1, 2), keepdim=True)
            p = r + rr / last * p
        return as_pair(z)

    def noise(self, like: Tensor, lam: float) -> Tensor:
        xi = torch.complex(*torch.randn_like(like).unbind(1))
        return as_pair(torch.fft.ifft2(torch.fft.fft2(xi) / (self.mask / self.eta**2 + lam).sqrt()))


def plain_loop(a: PlainPixels | PlainMRI, gradient: Gradient, curvature: Callable[[float], float | None], b: Tensor, chains: int,
               t: list[float], steps: int, noisy: bool = True) -> Tensor:
    """The published loop: the last step of a level adds the noise of the next, the last of all none."""
    lam = [(curvature(s) or 1.0) / s**2 for s in t]
    b = b.expand(chains, *b.shape[1:])
    x = a.project(b, lam[0]) + (a.noise(b, lam[0]) if noisy else 0)
    for i, level in enumerate(t):
        for k in range(steps):
            x = a.project(b + lam[i] * x - gradient(level)(x) / level**2, lam[i])
            following = i + (k == steps - 1)
            if noisy and following < len(t):
                x = x + a.noise(x, lam[following])
    return x


class TunedPixels:
    def __init__(self, op: Inpainting, device: torch.device):
        self.normal = op.mask.to(device) / op.noise_std**2

    def level(self, lam: float) -> None:
        self.p = 1 / (self.normal + lam)
        self.root = self.p.sqrt() * 0.5**0.5

    def step(self, r: Tensor, xi: Tensor | None) -> Tensor:
        mean = r.mul_(self.p)
        return mean if xi is None else torch.addcmul(mean, xi, self.root)


class TunedMRI:
    def __init__(self, op: CartesianMRI, device: torch.device):
        self.u, eigenvalues = op.factors(torch.complex64, device)
        self.mh, self.along_h = self.u.mH.contiguous(), op.line_axis == 0
        self.normal = eigenvalues[..., None] / op.noise_std**2

    def level(self, lam: float) -> None:
        self.gain = 1 / (self.normal + lam)
        self.root = (self.gain.sqrt() * 0.5**0.5).to(self.u.dtype)

    def lines(self, x: Tensor) -> Tensor:
        return torch.complex(x[:, 0], x[:, 1]).permute((2, 1, 0) if self.along_h else (1, 2, 0)).contiguous()

    def step(self, r: Tensor, xi: Tensor | None) -> Tensor:
        c = (self.mh @ self.lines(r)).mul_(self.gain)
        if xi is not None:
            c = torch.addcmul(c, self.lines(xi), self.root)
        return as_pair((self.u @ c).permute((2, 1, 0) if self.along_h else (2, 0, 1)))


@torch.no_grad()
def tuned_loop(a: TunedPixels | TunedMRI, gradient: Gradient, curvature: Callable[[float], float | None], b: Tensor, chains: int,
               t: list[float], steps: int, noisy: bool = True) -> Tensor:
    """Averaged noise, as ours."""
    b = b.expand(chains, *b.shape[1:]).contiguous()
    last, drawn = torch.randn_like(b), torch.empty_like(b)
    x, r = None, torch.empty_like(b)
    for level in t:
        lam = (curvature(level) or 1.0) / level**2
        a.level(lam)
        slope = gradient(level)
        if x is None:
            x = a.step(b.clone(), last * 2**0.5 if noisy else None)
        for _ in range(steps):
            grad = slope(x)
            torch.add(b, x, alpha=lam, out=r).sub_(grad, alpha=level**-2)
            if noisy:
                last.add_(drawn.normal_())
            x = a.step(r, last if noisy else None)
            last, drawn = drawn, last
    assert x is not None
    return x


# --- the cases -----------------------------------------------------------------------------------------------------

def work(energy: Energy, image: tuple[int, ...], chains: int, steps: int, algebra: int, device: torch.device) -> Work:
    """A step reads x and writes x⁺; the energy's products are counted by torch; `algebra`: flops of a chain's projection."""
    reference = ridge_grad_reference if isinstance(energy, RidgeEnergy) else conv_grad_reference
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        reference(images_of(energy, torch.zeros(1, *image, device=device)), *constants_of(energy, "high", 1.0, device))
    numbers = steps * chains * torch.Size(image).numel()
    return Work(bytes=8 * numbers, flops=steps * chains * (counter.get_total_flops() + algebra))


def run(measure: Measure, case: str, op: Inpainting | CartesianMRI, y: Tensor, name: str, precision: str, chains: int,
        algebra: int) -> None:
    """Check the three against each other without noise and in float32, then time them."""
    energy, device, y = af.energies.load(name, precision=precision), measure.device, y.to(measure.device)
    mri = isinstance(op, CartesianMRI)
    plain: Any = PlainMRI if mri else PlainPixels
    tuned: Any = TunedMRI if mri else TunedPixels
    b = op.adjoint(op.check_measurement(y)) / op.noise_std**2
    b = as_pair(b[:, 0]) if mri else b

    bound = energy.curvature
    tuned_a, tuned_slope = tuned(op, device), tuned_gradient(energy, precision, measure)
    plain_a, plain_slope = plain(op, device), plain_gradient(energy, precision)

    near = af.Schedule(sigma_max=0.2, sigma_min=0.1, levels=2, steps=1)
    exact = af.map_estimate(y, op, af.energies.load(name), schedule=near, progress=False).image[None]
    exact = as_pair(exact[:, 0]) if mri else exact
    checked = near.t().tolist(), 1, False
    converged = PlainMRI(op, device, 100) if isinstance(op, CartesianMRI) else plain_a
    with full_float32():
        found = (plain_loop(converged, plain_gradient(energy, "high"), bound, b, 1, *checked),
                 tuned_loop(tuned_a, tuned_gradient(energy, "high", Measure(True, device=device)), bound, b, 1, *checked))
    for mine in found:
        assert (mine - exact).norm() <= 1e-3 * exact.norm(), f"{case}: a baseline computes something else"

    schedule = af.Schedule(levels=50, steps=STEPS)
    t = schedule.t().tolist()[:measure.levels]  # the first, as near to each other as all: a step costs as much at any of them
    shortened = af.Schedule(sigma_max=t[0], sigma_min=t[-1], levels=len(t), steps=STEPS)
    sampler = af.Sampler(op, energy, chains=chains, schedule=shortened, progress=False)
    tuned_loop(tuned_a, tuned_slope, bound, b, chains, t[:1], 1)  # compiles for this many chains
    steps = len(t) * STEPS
    fast = isinstance(energy, DenoiserEnergy) and precision == "fast"
    measure(f"{case}, {name}{f', {precision}' if isinstance(energy, DenoiserEnergy) else ''}, {len(t)} of 50 levels",
            "auto", lambda: sampler(y), {"plain": lambda: plain_loop(plain_a, plain_slope, bound, b, chains, t, STEPS),
                                       "tuned": lambda: tuned_loop(tuned_a, tuned_slope, bound, b, chains, t, STEPS)},
            work(energy, tuple(b.shape[1:]), chains, steps, algebra, device), rounds=1 if measure.quick or len(t) > 5 else 3,
            gemm=torch.bfloat16 if fast else torch.float32)


def inpainting(measure: Measure, name: str, precision: str, chains: int) -> None:
    mask = data.pixel_mask(64, 64, keep=0.4)
    op = Inpainting(mask, noise_std=ETA)
    colours = torch.cat([data.photograph()[:, i:i + 64, i:i + 64] for i in (40, 42, 44)])
    run(measure, f"inpainting 64x64x3, {chains} chains", op, data.measure(op, colours, mask), name, precision, chains, 0)


def mri(measure: Measure, name: str, precision: str, chains: int, size: int, coils: int) -> None:
    mask = data.line_mask(size, size, 4)
    op = CartesianMRI(mask, maps=data.coil_maps(coils, size, size), noise_std=ETA)
    brain = data.brain()
    rows, columns = (max(0, (side - size) // 2) for side in brain.shape[1:])
    brain = brain[:, rows:rows + size, columns:columns + size]
    missing = [size - side for side in brain.shape[1:]]  # a larger field of view, nothing in its margin
    brain = F.pad(brain, (missing[1] // 2, missing[1] - missing[1] // 2, missing[0] // 2, missing[0] - missing[0] // 2))
    y = data.measure(op, brain, mask)
    case = f"MRI {size}², {coils} coils, {chains} chain{'s' * (chains > 1)}"
    run(measure, case, op, y, name, precision, chains, 3 * 8 * size**3)


MRI = "size, coils", [(128, 8), (320, 12)]


@parametrize(*MRI)
@parametrize("chains", [1, 16])
def test_alps_mri_ridge(measure: Measure, chains: int, size: int, coils: int) -> None:
    mri(measure, "brain-ridge", "high", chains, size, coils)


@parametrize(*MRI)
@parametrize("precision", ["fast", "high"])
@parametrize("chains", [1, 16])
def test_alps_mri_denoiser(measure: Measure, chains: int, precision: str, size: int, coils: int) -> None:
    mri(measure, "brain-denoiser", precision, chains, size, coils)


@parametrize("chains", [16, 64])
def test_alps_inpainting_ridge(measure: Measure, chains: int) -> None:
    inpainting(measure, "natural-ridge", "high", chains)


@parametrize("precision", ["fast", "high"])
@parametrize("chains", [16, 64])
def test_alps_inpainting_denoiser(measure: Measure, chains: int, precision: str) -> None:
    inpainting(measure, "natural-denoiser", precision, chains)
