"""The published call: its operators, networks and options are ours, and its rule is the published one."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from oracles import coil_maps
from torch import nn

import alps_fast as af
from alps_fast.integrations import ALPS, ALPS_MRI
from alps_fast.integrations.published import operator_of
from alps_fast.operators import CircularBlur, Inpainting, LinearOperator

S, ETA = 0.5, 0.05
OPTS = SimpleNamespace(num_steps=50, sigma_max=100.0, sigma_min=0.1, rho=5.0, K=5, inference_std=ETA)
QUICK = SimpleNamespace(**{**vars(OPTS), "num_steps": 6, "K": 2})


class Exact(nn.Module):
    """ψ of N(0, S²): E(x, t)/t² is ‖x‖²/(2 (S² + t²)). Called as the published networks are."""

    def forward(self, x, sigma, labels=0):
        sigma = sigma.reshape(-1, 1, 1, 1)
        return (1 - sigma / (S * S + sigma**2).sqrt()).to(x.dtype) * x


class Masked(nn.Module):
    """As the published inpainting is made."""

    def __init__(self, mask, eta):
        super().__init__()
        self.mask, self.eta2 = mask, eta**2


class Blurred(nn.Module):
    """As the published blurs are: a spectrum (1, 1, H, W) of a kernel that need not be in the middle."""

    def __init__(self, spectrum, eta):
        super().__init__()
        self.Hfreq, self.eta2 = spectrum, eta**2

    def forward(self, x):
        return torch.fft.ifft2(torch.fft.fft2(x) * self.Hfreq).real

    def adjoint(self, y):
        return torch.fft.ifft2(torch.fft.fft2(y) * self.Hfreq.conj()).real


def test_the_published_rules_variance_is_what_it_is():
    """0.119 where nothing is observed and 0.25 is true, 7.6e-5 where all is and 2.5e-3 is true: docs/design.md §8."""
    mask = torch.ones(1, 1, 40, 64)
    mask[..., 20:, :] = 0
    x = ALPS(Masked(mask, ETA), Exact(), torch.zeros(16, 1, 40, 64), OPTS, seed=0)
    seen, unseen = (float(v.var()) for v in (x[..., :20, :], x[..., 20:, :]))
    assert abs(unseen / 0.119 - 1) < 5 * (2 / (16 * 1280)) ** 0.5 + 0.005 and abs(seen / 7.6e-5 - 1) < 0.06
    x = ALPS(Masked(mask, ETA), Exact(), torch.zeros(16, 1, 40, 64), OPTS, seed=0, noise="averaged")
    assert abs(float(x[..., :20, :].var()) / (1 / (1 / ETA**2 + 1 / (S * S + 0.01))) - 1) < 5 * (2 / (16 * 1280)) ** 0.5 + 0.01


@pytest.mark.parametrize("size", [(8, 6), (7, 9)])
def test_operators_of_that_code_are_the_fused_ones(size):
    g = torch.Generator().manual_seed(0)
    mask = (torch.rand(1, 3, *size, generator=g) < 0.5).float()
    assert type(operator_of(Masked(mask, ETA), mask)) is Inpainting
    theirs = Blurred(torch.fft.fft2(torch.rand(size, generator=g))[None, None], ETA)
    ours = operator_of(theirs, mask)
    assert type(ours) is CircularBlur and ours.noise_std == pytest.approx(ETA)
    x = torch.randn(2, 3, *size, generator=g)
    torch.testing.assert_close(ours.forward(x), theirs(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.adjoint(x), theirs.adjoint(x), rtol=1e-4, atol=1e-4)
    other = SimpleNamespace(forward=theirs.forward, adjoint=theirs.adjoint, eta2=ETA**2)
    assert type(operator_of(other, x)) is LinearOperator
    with pytest.raises(af.ArgumentError, match="^A: got SimpleNamespace; wanted an operator with eta2"):
        operator_of(SimpleNamespace(), x)


def test_what_is_stored_are_states_without_the_next_levels_noise():
    mask = torch.ones(1, 1, 8, 8)
    y = torch.full((1, 1, 8, 8), 0.3)
    torch.manual_seed(3)
    x, states = ALPS(Masked(mask, ETA), Exact(), y, QUICK, isALPS=True, storeIntermediate=True)
    assert x.shape == y.shape and states.shape == (6, 1, 8, 8)
    torch.testing.assert_close(states[-1], x[0])
    torch.manual_seed(3)
    assert torch.equal(ALPS(Masked(mask, ETA), Exact(), y, QUICK), x)
    with pytest.raises(af.ArgumentError, match="^storeIntermediate: got True with 2 measurements"):
        ALPS(Masked(mask, ETA), Exact(), y.expand(2, 1, 8, 8), QUICK, storeIntermediate=True)


def test_map_is_the_mode_and_has_no_noise():
    y = torch.full((1, 1, 8, 8), 0.3)
    x, states = ALPS(Masked(torch.ones(1, 1, 8, 8), ETA), Exact(), y, OPTS, isALPS=False, storeIntermediate=True)
    mode = 0.3 / (1 + ETA**2 / (S * S + OPTS.sigma_min**2))
    torch.testing.assert_close(x, torch.full_like(x, mode), rtol=1e-4, atol=0)
    assert states.shape == (50, 1, 8, 8) and float(states.flatten(1).std(1).max()) < 1e-5


def swapped(x, inverse=False):
    """The published transform: shifts the other way round, which for odd sizes is not the same."""
    transform = torch.fft.ifft2 if inverse else torch.fft.fft2
    return torch.fft.ifftshift(transform(torch.fft.fftshift(x, (-2, -1)), norm="ortho"), (-2, -1))


@pytest.mark.parametrize("size", [(8, 6), (7, 6), (9, 7)])
def test_the_mri_twin_has_that_codes_transform_for_every_size(size):
    """Its MAP under a Gaussian solves (AᴴA/η² + 1/(S² + t²)) x = Aᴴy/η² with A as published."""
    g = torch.Generator().manual_seed(1)
    maps, mask = coil_maps(3, *size)[None], (torch.rand(1, 1, *size, generator=g) < 0.6).float()
    y = mask * swapped(maps * torch.randn(1, 1, *size, generator=g, dtype=torch.complex64))
    found, states = ALPS_MRI(OPTS, None, Exact(), y, maps, mask, None, False, True)
    assert states.shape == (50, 1, *size) and not states.is_complex()

    def adjoint(v):
        return (maps.conj() * swapped(mask * v, inverse=True)).sum(1, keepdim=True)

    lam = 1 / (S * S + OPTS.sigma_min**2)
    residual = adjoint(swapped(maps * found) - y) / ETA**2 + lam * found
    assert float(residual.norm() / (adjoint(y).norm() / ETA**2)) < 1e-3
    sample = ALPS_MRI(QUICK, None, Exact(), y, maps, mask[0, 0], None, seed=1)
    assert sample.shape == (1, 1, *size) and sample.is_complex() and math.isfinite(float(sample.abs().max()))
    with pytest.raises(af.ArgumentError, match=r"^A: got Exact; wanted a sense_v1, or None"):
        ALPS_MRI(QUICK, Exact(), Exact(), y, maps, mask)
