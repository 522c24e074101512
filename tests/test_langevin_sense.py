"""langevin_sense against dense matrices and its reference."""

from __future__ import annotations

import pytest
import torch
from dense import image_matrix, posterior_power
from sense_inputs import SIZES, H, W, coil_maps, dense_normal, line_arguments, line_mask, random_lines
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

from alps_fast.errors import ArgumentError
from alps_fast.ops.langevin_sense import langevin_sense
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, NO_NOISE


@pytest.mark.parametrize("axis", [0, 1])
def test_line_step_is_the_dense_one(axis):
    a = line_arguments(axis)
    xi = torch.randn(a["x"].shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    normal = dense_normal(coil_maps(), line_mask(axis))

    def synthesis(x):  # coefficients laid out like the image -> image
        return torch.einsum("ljk,nkl->njl" if axis == 0 else "ljk,nlk->nlj", a["u"], x[:, 0])[:, None]

    basis = image_matrix(lambda x: torch.view_as_real(synthesis(x)), (1, H, W), True)
    p = posterior_power(normal, LEVEL["inv_eta2"], LEVEL["lam"], -1.0)
    root = posterior_power(normal, LEVEL["inv_eta2"], LEVEL["noise_lam"], -0.5) @ basis
    for ours, dense in zip(langevin_sense(**a, xi=xi), dense_step(a, p, root, xi), strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_every_step_must_do(dtype, axis):
    a = line_arguments(axis, 34, dtype=dtype)  # more chains than one product takes
    same = torch.equal if dtype == torch.float32 else torch.allclose  # a BLAS's product, which may hang on a column's place
    check_noise_modes(langevin_sense, a, tuple(a["x"].shape), same)
    check_rows_stand_alone(langevin_sense, a, same)


def test_float32_against_float64():
    a, wide = (line_arguments(1, dtype=dtype) for dtype in (torch.float32, torch.float64))
    for d, s in zip(langevin_sense(**wide), langevin_sense(**a), strict=True):
        assert (s - d).norm() <= 5e-6 * d.norm()  # two products of length n: worst measured 7e-7


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", SIZES)
def test_lines_on_cpu_are_the_reference(isa, size, axis, guarded):
    """Law: over many rows, twice the error that torch makes; measured 0.5 to 1.3 times."""
    ours = theirs = torch.zeros(2, dtype=torch.float64)
    for n, b in ((1, 1), (6, 2), (16, 16), (17, 1)):
        a = random_lines(size, axis, n, b)
        a["xi"] = torch.randn(a["x"].shape, generator=torch.Generator().manual_seed(2))
        wide = in_double(a)
        for noise in (NO_NOISE, INDEPENDENT):
            exact = torch.stack(langevin_sense(**wide | {"noise": noise}))
            torch_step = torch.stack(langevin_sense(**a | {"noise": noise, "backend": "torch"}))
            step = torch.stack(langevin_sense(**a | {"noise": noise}))
            ours = ours + (step - exact).square().flatten(1).sum(1)
            theirs = theirs + (torch_step - exact).square().flatten(1).sum(1)
    assert (ours <= 4 * theirs).all(), (ours / theirs).sqrt()
    guarded()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", SIZES)
def test_lines_on_cpu_draw_the_noise_of_philox(isa, size, axis):
    a = random_lines(size, axis, 3, 1)
    for seed, step in ((0, 0), (-1, 2**32 - 2), (0x123456789ABCDEF, 250)):
        check_noise_modes(langevin_sense, a | {"seed": seed, "step": step, "ids": torch.tensor([0, 2**31, 2**32 - 1])},
                          tuple(a["x"].shape))


@pytest.mark.parametrize("axis", [0, 1])
def test_lines_on_cpu_have_the_same_bits_on_any_threads_and_alone(isa, axis, threads):
    for size in ((5, 3), (11, 18), (18, 11)):
        for noise in (NO_NOISE, INDEPENDENT, AVERAGED):
            a = random_lines(size, axis, 34, 2) | {"noise": noise}
            threads(1)
            want = langevin_sense(**a)
            for count in (2, 3):
                threads(count)
                assert all(torch.equal(w, g) for w, g in zip(want, langevin_sense(**a), strict=True))
            check_rows_stand_alone(langevin_sense, a)


def test_a_broken_chain_stays_alone(isa):
    a = random_lines((9, 10), 0, 4, 1)
    want = langevin_sense(**a)
    a["x"][1], a["grad"][2] = torch.nan, torch.inf
    for w, g in zip(want, langevin_sense(**a), strict=True):
        assert torch.equal(w[[0, 3]], g[[0, 3]]) and not g[1:3].isfinite().any()


def test_lines_on_cpu_take_any_real_xi_and_strided_chains(isa):
    a = random_lines((6, 7), 1, 4, 2)
    xi = torch.randn(a["x"].shape, dtype=torch.float64).transpose(1, 2).contiguous().transpose(1, 2)
    given, same = (langevin_sense(**a, xi=noise)[0] for noise in (xi, xi.float().contiguous()))
    assert torch.equal(given, same)
    a["noise"] = AVERAGED
    assert torch.equal(langevin_sense(**a)[0], langevin_sense(**a | {"ids": a["ids"].repeat_interleave(2, 0)[::2]})[0])


@pytest.mark.gpu
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [*SIZES, (320, 5), (5, 640)])
def test_lines_on_cuda_are_the_reference(size, axis):
    for rows, noise in ((1, NO_NOISE), (7, AVERAGED), (34, INDEPENDENT)):
        a = random_lines(size, axis, rows, 1) | {"noise": noise}
        got = langevin_sense(**on_gpu(a))
        for w, g in zip(langevin_sense(**in_double(a)), got, strict=True):
            assert (w - g.cpu()).norm() <= (5e-7 + 1e-7 * a["u"].shape[1] ** 0.5) * w.norm()
        alone = a | {k: a[k][-1:] for k in ("x", "grad", "ids")}
        assert all(torch.equal(o[0], g[-1]) for o, g in zip(langevin_sense(**on_gpu(alone)), got, strict=True))


def test_opcheck():
    a = line_arguments(0, dtype=torch.float32)
    check_opcheck(langevin_sense, a, tuple(a["x"].shape))


def test_bad_arguments():
    a = line_arguments(0)
    check_bad_arguments(langevin_sense, a, {"u": a["u"][:, :2], "eigenvalues": a["eigenvalues"].float(), "axis": 2})


@pytest.mark.parametrize("each", [2, 7, 18])
@pytest.mark.parametrize("axis", [0, 1])
def test_rows_have_the_vectors_of_their_operator(isa, axis, each, threads):
    """To the bit that of each operator's rows alone, few chains and many, by the kernel and the definition."""
    a = random_lines((13, 9), axis, 3 * each, 3)
    u = torch.stack([a["u"] * scale for scale in (1, 1j, -1)])
    eigenvalues = torch.stack([a["eigenvalues"] * scale for scale in (1.0, 0.3, 2.0)])
    for backend, count in (("cpu", 1), ("cpu", 2), ("torch", 2)):
        threads(count)
        every = {**a, "backend": backend}
        together = langevin_sense(**every | {"u": u, "eigenvalues": eigenvalues})
        for k in range(3):
            rows = slice(each * k, each * (k + 1))
            alone = langevin_sense(**every | {name: a[name][rows] for name in ("x", "grad", "ids")}
                                   | {"b": a["b"][k:k + 1], "u": u[k], "eigenvalues": eigenvalues[k]})
            assert all(torch.equal(one, all_of_them[rows]) for one, all_of_them in zip(alone, together, strict=True))
    with pytest.raises(ArgumentError, match="^eigenvalues: "):
        langevin_sense(**a | {"u": u})
    with pytest.raises(ArgumentError, match="^b: "):
        langevin_sense(**a | {"u": u[:2], "eigenvalues": eigenvalues[:2]})
