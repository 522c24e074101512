"""langevin_sense_cg against dense matrices, its reference, and langevin_sense."""

from __future__ import annotations

import warnings

import pytest
import torch
from dense import posterior_power
from sense_inputs import H, W, cg_arguments, coil_maps, dense_normal, line_arguments, line_mask, noise_shape, plane_mask, solver
from step_checks import (
    LEVEL,
    check_bad_arguments,
    check_noise_modes,
    check_opcheck,
    check_rows_stand_alone,
    dense_step,
    in_double,
    on_gpu,
)

from alps_fast.layout import as_complex, as_real
from alps_fast.ops.langevin_sense import langevin_sense
from alps_fast.ops.langevin_sense_cg import langevin_sense_cg, sense_normal, sense_spectrum
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, NO_NOISE


def test_cg_step_is_the_dense_one():
    a = cg_arguments()
    xi = torch.randn(noise_shape(a), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    maps, mask = a["maps"], a["mask"]
    normal = dense_normal(maps, mask)
    p, q = (posterior_power(normal, LEVEL["inv_eta2"], LEVEL[k], -1.0) for k in ("lam", "noise_lam"))
    samples = torch.fft.ifft2(torch.view_as_complex(xi[:, 1:]) * mask, norm="ortho") * maps.conj()
    perturbation = LEVEL["inv_eta2"] ** 0.5 * as_real(samples.sum(1)[..., None]) + LEVEL["noise_lam"] ** 0.5 * xi[:, 0]
    for ours, dense in zip(langevin_sense_cg(**a, xi=xi), dense_step(a, p, q, perturbation), strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("axis", [0, 1])
def test_cg_and_lines_agree(axis):
    a = cg_arguments(mask=line_mask(axis))
    torch.testing.assert_close(langevin_sense_cg(**a)[1], langevin_sense(**line_arguments(axis))[1], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("t", [0.1, 3.0, 100.0])
def test_cg_stops_at_the_error_asked_for(t):
    """eᵀP⁻¹e is about tol² n, also where the condition is 4e8; then a step of a chain that holds the posterior is enough."""
    height, width, eta, tol = 16, 12, 0.005, 0.03
    g = torch.Generator().manual_seed(7)
    grid = torch.stack(torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")).double()
    where = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)[..., None, None]
    maps = torch.exp(-(grid - where).square().sum(1)) * torch.exp(1j * (grid * where).sum(1))
    mask = (torch.rand(height, width, generator=g) < 0.4).double()
    mask[0, 0] = 1
    normal = dense_normal(maps, mask)
    precision = normal * eta**-2 + torch.eye(len(normal)) * t**-2
    root = posterior_power(normal, eta**-2, t**-2, -0.5)
    x = (torch.randn(3, len(normal), generator=g, dtype=torch.float64) @ root).view(3, height, width, 2)
    a = {**LEVEL, "x": x, "grad": x, "b": torch.zeros(1, height, width, 2, dtype=torch.float64), "ids": torch.arange(3),
         "lam": t**-2, "lin": t**-2, "w": 0.5 * t**-2, "inv_eta2": eta**-2, "noise_lam": t**-2, "maps": maps, "mask": mask}
    exact = langevin_sense_cg(**a, tol=1e-9, max_iter=20000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rough = langevin_sense_cg(**{k: v.float() if k in ("x", "grad", "b", "mask") else v for k, v in a.items()}
                                  | {"maps": maps.to(torch.complex64)}, tol=tol)
    for ours, truth in zip(rough, exact, strict=True):
        e = (ours - truth).flatten(1)
        error = ((e @ precision * e).sum(1) / e.shape[1]).sqrt()
        assert error.max() < 2 * 2**0.5 * tol  # two systems in x⁺; the rule itself is within a factor of two


def test_spectrum_is_the_diagonal_in_fourier_space():
    maps, mask = coil_maps(), plane_mask()
    basis = torch.fft.ifft2(torch.eye(H * W, dtype=torch.complex128).view(-1, H, W), norm="ortho")
    normal = as_complex(sense_normal(as_real(basis[..., None]), maps, mask))[..., 0]
    diagonal = (basis.conj() * normal).sum((1, 2)).real.view(H, W)
    torch.testing.assert_close(diagonal, sense_spectrum(maps, mask), rtol=1e-12, atol=1e-12)


def test_cg_warns_where_it_may_not_go_on():
    with pytest.warns(UserWarning, match="1 iterations did not reach the tolerance"):
        langevin_sense_cg(**cg_arguments(), max_iter=1)


def test_early_stopping_still_lowers_the_quadratic():
    """From x, any number of iterations lowers ½⟨x, Mx⟩ − ⟨r, x⟩: a MAP step never makes the energy rise."""
    a = cg_arguments() | {"noise": 0}
    matrix = dense_normal(a["maps"], a["mask"]) * LEVEL["inv_eta2"] + LEVEL["lam"] * torch.eye(2 * H * W)
    r = a["b"].repeat_interleave(2, 0) + a["lin"] * a["x"] - a["w"] * a["grad"]

    def quadratic(v):
        return 0.5 * (v.flatten(1) @ matrix * v.flatten(1)).sum(1) - (r * v).flatten(1).sum(1)

    last = quadratic(a["x"])
    for iterations in (1, 2, 3, 5):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            now = quadratic(langevin_sense_cg(**a, max_iter=iterations)[0])
        assert (now < last).all()
        last = now


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_every_step_must_do(dtype):
    a = cg_arguments(dtype=dtype, tol=1e-9)
    check_noise_modes(langevin_sense_cg, a, noise_shape(a))
    check_rows_stand_alone(langevin_sense_cg, a)


def test_float32_against_float64():
    a, wide = (cg_arguments(dtype=dtype) for dtype in (torch.float32, torch.float64))
    for d, s in zip(langevin_sense_cg(**wide), langevin_sense_cg(**a), strict=True):
        assert (s - d).norm() <= 5e-6 * d.norm()  # ten iterations: worst measured 7e-7; condition of the system about 50


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 1), (5, 8), (16, 15), (20, 33), (35, 18)])
def test_cg_on_cpu_is_the_reference(isa, size, guarded):
    """33 = 3 · 11 goes to the reference. Law: 1e-6; measured 2.4e-7."""
    for n, b, coils in ((1, 1, 1), (4, 2, 3), (2, 2, 17)):
        a = solver(size, coils, n, b)
        a["xi"] = torch.randn(n, 1 + coils, *size, 2, generator=torch.Generator().manual_seed(2))
        wide = in_double(a) | {"tol": 1e-10}
        for noise in (NO_NOISE, INDEPENDENT):
            want = langevin_sense_cg(**wide | {"noise": noise})
            for w, g in zip(want, langevin_sense_cg(**a | {"noise": noise}), strict=True):
                assert (w - g).norm() <= 1e-6 * w.norm()
    if 33 not in size:
        guarded()


@pytest.mark.parametrize("mask", ["ones", "zeros"])
def test_cg_on_cpu_with_everything_and_nothing_measured(isa, mask):
    a = solver((9, 10), 3, 2, 1)
    a["mask"] = getattr(torch, mask)(9, 10)
    for w, g in zip(langevin_sense_cg(**a | {"backend": "torch"}), langevin_sense_cg(**a), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-5)


def test_cg_on_cpu_draws_the_noise_of_philox(isa):
    for size, coils in (((1, 1), 1), ((5, 3), 2), ((18, 7), 3)):
        a = solver(size, coils, 3, 1) | {"ids": torch.tensor([0, 2**31, 2**32 - 1])}
        for seed, step in ((0, 0), (-1, 2**32 - 2)):
            check_noise_modes(langevin_sense_cg, a | {"seed": seed, "step": step}, (3, 1 + coils, *size, 2))


def test_cg_on_cpu_has_the_same_bits_on_any_threads_and_alone(isa, threads):
    for size in ((5, 3), (18, 20)):
        for noise in (NO_NOISE, AVERAGED):
            a = solver(size, 2, 6, 2, tol=0.03) | {"noise": noise}
            threads(1)
            want = langevin_sense_cg(**a)
            for count in (2, 3):
                threads(count)
                assert all(torch.equal(w, g) for w, g in zip(want, langevin_sense_cg(**a), strict=True))
            check_rows_stand_alone(langevin_sense_cg, a)


def test_cg_on_cpu_stops_where_the_reference_does(isa):
    """With few iterations allowed both warn, and hold the same iterate; with enough neither does."""
    a = solver((24, 20), 4, 2, 1) | {"inv_eta2": 400.0}
    for iterations in (1, 3, 10):
        with pytest.warns(UserWarning, match=f"{iterations} iterations did not reach"):
            got = langevin_sense_cg(**a, max_iter=iterations)
        with pytest.warns(UserWarning, match=f"{iterations} iterations did not reach"):
            want = langevin_sense_cg(**a | {"backend": "torch"}, max_iter=iterations)
        for w, g in zip(want, got, strict=True):
            assert (w - g).norm() <= 2e-5 * w.norm()
    langevin_sense_cg(**a | {"tol": 0.03})


def test_cg_on_cpu_sees_that_maps_changed():
    a = solver((9, 10), 3, 2, 1)
    before = langevin_sense_cg(**a)[0]
    a["maps"] *= 1.5
    after = langevin_sense_cg(**a)[0]
    assert not torch.equal(after, before) and torch.equal(after, langevin_sense_cg(**a | {"maps": a["maps"].clone()})[0])


def test_a_broken_chain_of_cg_stays_alone(isa):
    a = solver((9, 10), 3, 4, 1)
    want = langevin_sense_cg(**a)
    a["x"][1], a["grad"][2] = torch.nan, torch.inf
    for w, g in zip(want, langevin_sense_cg(**a), strict=True):
        assert torch.equal(w[[0, 3]], g[[0, 3]]) and not g[1:3].isfinite().any()


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (16, 15), (20, 33), (35, 18), (128, 128), (320, 12)])
def test_cg_on_cuda_is_the_reference(size):
    for n, b, coils, noise in ((1, 1, 1, NO_NOISE), (4, 2, 3, AVERAGED), (2, 2, 17, INDEPENDENT)):
        a = solver(size, coils, n, b) | {"noise": noise}
        got = langevin_sense_cg(**on_gpu(a))
        for w, g in zip(langevin_sense_cg(**in_double(a) | {"tol": 1e-10}), got, strict=True):
            assert (w - g.cpu()).norm() <= 1e-6 * w.norm()
        alone = a | {k: a[k][-1:] for k in ("x", "grad", "b", "ids")}
        assert all(torch.equal(o[0], g[-1]) for o, g in zip(langevin_sense_cg(**on_gpu(alone)), got, strict=True))


def test_opcheck():
    a = cg_arguments(dtype=torch.float32)
    check_opcheck(langevin_sense_cg, a, noise_shape(a))


def test_bad_arguments():
    a = cg_arguments()
    check_bad_arguments(langevin_sense_cg, a, {"maps": a["maps"][:, :2], "mask": a["mask"].float(), "tol": 0.0, "max_iter": 0})
