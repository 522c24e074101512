"""Inputs that several test files share, and the laws that results on them are held to."""

from __future__ import annotations

import json

import torch
from step_checks import ids_of, in_double, states

from alps_fast.energies import RidgeEnergy
from alps_fast.energies.compact import CompactNet, edm_coefficients
from alps_fast.ops.langevin_pixel import langevin_pixel
from alps_fast.ops.philox_normal import AVERAGED, MIRRORED
from alps_fast.ops.ridge_grad import ridge_grad
from alps_fast.posterior import Posterior

PHILOX_SIZES = (1, 2, 3, 4, 5, 31, 63, 64, 65, 127, 1021, 4095, 4097, 8209)
PHILOX_IDS = torch.tensor([  # of chains, steps ahead in their high bits, and of measurements
    [0, 0], [1, 0], [7, 1], [2**31, 2**24 - 1], [2**32 - 1, 2**23], [(3 << 32) + 1, 0], [-(1 << 32) + 7, 9 + MIRRORED]])
PIXEL_SHAPE = (5, 4, 3)
RIDGE_SCALARS = {"lam": 2.0, "lin": 1.5, "w": 1.0, "inv_eta2": 4.0, "noise_lam": 2.0, "seed": 9, "step": 4, "count": 3}
NETWORK_LAW = {"high": 2e-6, "fast": 2e-2}  # of the relative error against float64; measured 9e-7, 8e-3
COLUMNS = torch.arange(10) % 2 == 0  # of images of 10 by 10, as MASK is
MASK = torch.rand(10, 10, generator=torch.Generator().manual_seed(1)) < 0.6


def bits(x):
    """Of float32, as integers."""
    return x.view(torch.int32)


def pixel_arguments(n=4, b=2, a=(1, 1), dtype=torch.float64, shape=PIXEL_SHAPE, backend="torch"):
    """A step for a diagonal whose first row is not measured; `a`: its batch and channels."""
    diagonal = torch.rand(a[0], *shape[:2], a[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    diagonal[:, 0] = 0
    return states(n, b, shape, dtype) | {"a": diagonal.to(dtype), "backend": backend}


def pixel_layouts(shape):
    """(chains, measurements, shape of a's batch and channels) of every layout."""
    return [(n, b, (each, channels)) for n, b in ((1, 1), (3, 1), (6, 2), (5, 5), (17, 1))
            for each in {1, b} for channels in {1, shape[2]}]


def pixel_roundings(a, got):
    """Error of float32 results against the reference in float64 on the same numbers and noise, in 2⁻²⁴ of the terms' size."""
    wide = in_double(a)
    size = {k: wide[k].abs() for k in ("x", "grad", "b")} | {"w": -a["w"]}
    if "xi" in a:
        size["xi"] = wide["xi"].abs()
    exact = langevin_pixel(**{**wide, "backend": "torch"})
    scale = langevin_pixel(**{**wide, **size, "backend": "torch"})
    return max(((g - e).abs() / s).max().item() * 2**24 for g, e, s in zip(got, exact, scale, strict=True))


def transfer(height, width, is_complex, dtype=torch.complex128):
    """A spectrum with zeros in it."""
    kernel = torch.zeros(height, width, dtype=torch.complex128)
    g = torch.Generator().manual_seed(2)
    kernel[:2, :3] = torch.randn(2, 3, generator=g, dtype=torch.complex128)[:height, :width]
    h = torch.fft.fft2(kernel if is_complex else kernel.real)
    h = h * (h.abs() > 0.3)  # a few frequencies are lost
    return h.to(dtype)


def fourier_arguments(size, channels, is_complex, n=4, b=2, factor=1):
    """A step by the CPU kernel where it has the size."""
    h = transfer(*size, is_complex, torch.complex64)
    shape = (*size, 2 * channels if is_complex else channels)
    return states(n, b, shape, torch.float32) | {"h": h, "factor": factor, "is_complex": is_complex, "backend": "cpu"}


def empty_moments(groups, shape, dtype=torch.float32):
    """Count, mean and M2 before the first row."""
    zeros = torch.zeros(groups, *shape, dtype=dtype)
    return torch.zeros(groups, dtype=torch.int64), zeros, zeros.clone()


def ridge_constants(scales=3, count=4, side=5, potentials=2, images=1, dtype=torch.float64):
    """Filters of zero mean, w, r, q and μ."""
    g = torch.Generator().manual_seed(3)
    filters = [torch.randn(count, 1, side, side, generator=g, dtype=torch.float64) / side for _ in range(scales)]
    filters = [(f - f.mean((-2, -1), keepdim=True)).to(dtype) for f in filters]
    w = torch.randn(scales, potentials, images, count, generator=g, dtype=torch.float64)
    r = torch.rand(scales, potentials, images, count, generator=g, dtype=torch.float64) + 0.2
    q = torch.rand(scales + 2, images, generator=g, dtype=torch.float64)
    return filters, w.to(dtype), r.to(dtype), q.to(dtype), torch.tensor([0.1], dtype=dtype)


def ridge_roundings(x, args, got):
    """Errors against float64 of gradients in 2⁻²⁴ of them, of values in that of their terms: norms over every third image."""
    x, (filters, w, r, q, mu) = in_double(x), in_double(args)
    grad, value = ridge_grad(x, filters, w, r, q, mu, backend="torch")
    _, size = ridge_grad(x, filters, w.abs(), r, q.abs(), mu, backend="torch")
    pairs = (got[0] - grad, grad), (got[1] - value, size)
    norms = [[v.unflatten(0, (-1, 3)).transpose(0, 1).flatten(1).norm(dim=1) for v in pair] for pair in pairs]
    return [(wrong / whole).square().mean().sqrt().item() * 2**24 for wrong, whole in norms]


def check_ridge_grad(x, args, got):
    """Law: twice torch's own error, and two roundings more, as torch has none now and then."""
    ours, torchs = ridge_roundings(x, args, got), ridge_roundings(x, args, ridge_grad(x, *args, backend="torch"))
    assert all(o <= 2 * t + 2 for o, t in zip(ours, torchs, strict=True)), (ours, torchs)


def ridge_steps(n, b, shape, channels, a=(1, 1), images=1):
    """n chains on b measurements of states (H, W, C') for energies of `channels`."""
    g = torch.Generator().manual_seed(n)
    x, data = torch.randn(n, *shape, generator=g), torch.randn(b, *shape, generator=g)
    names = ("filters", "weights", "r", "q", "mu")
    energy = dict(zip(names, ridge_constants(images=images, dtype=torch.float32), strict=True))
    diagonal = torch.rand(a[0], *shape[:2], a[1], generator=g)
    return {"x": x, "b": data, "a": diagonal, "ids": ids_of(n, b), **energy, "channels": channels, **RIDGE_SCALARS,
            "noise": AVERAGED, "backend": "cpu"}


def conv_network(channels=2, width=8, blocks=(1, 1, 2), dtype=torch.float64, t=0.4):
    """A small network's weights, and what its level gives: all that `ops.conv_grad` takes beside x."""
    torch.manual_seed(1)
    net = CompactNet(channels, width, blocks).to(dtype)
    torch.nn.init.normal_(net.tail.weight, std=0.1)  # training starts from zero, where the gradient says nothing
    level = torch.tensor([t], dtype=dtype)
    with torch.no_grad():
        weights = [w.detach() for w in net.weights()]
        return weights, *net.film_vectors(level), edm_coefficients(level, net.sigma_data), list(blocks)


def single(args):
    """The same in float32."""
    weights, *vectors, blocks = args
    return [w.float() for w in weights], *(v.float() for v in vectors), blocks


def small_ridge(channels: int = 1) -> RidgeEnergy:
    """An energy that is made at once: its bounds are given."""
    g = torch.Generator().manual_seed(3)
    filters = torch.randn(2, 4, 1, 3, 3, generator=g) / 3
    filters -= filters.mean((3, 4), keepdim=True)
    w, r = torch.rand(2, 2, 1, 4, generator=g) * 0.05, torch.rand(2, 2, 1, 4, generator=g) + 0.5
    bounds = torch.ones(2)
    return RidgeEnergy(filters, torch.tensor([-2.0, 1.0]), w, r, torch.ones(2, 2) * 0.3, bounds=bounds, channels=channels,
                       channelwise=True)


def same_posterior(a: Posterior, b: Posterior) -> None:
    """To the bit."""
    for name in ("mean", "channel_std", "samples", "count", "trace", "chain_means"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert a.gradients == b.gradients and json.dumps(a.by_level) == json.dumps(b.by_level)
