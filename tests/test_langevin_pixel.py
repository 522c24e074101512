"""langevin_pixel: the reference against its formula, the kernels against the reference."""

from __future__ import annotations

import pytest
import torch
from inputs import PIXEL_SHAPE, pixel_arguments, pixel_layouts, pixel_roundings
from step_checks import (
    LEVEL,
    check_bad_arguments,
    check_noise_modes,
    check_opcheck,
    check_rows_stand_alone,
    dense_step,
    on_gpu,
    shifted,
)

from alps_fast.errors import ArgumentError
from alps_fast.ops.langevin_pixel import langevin_pixel
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, NO_NOISE

# images of 1, 2, 3, 5, 127 … numbers: below a vector, over several, and over a tile of 2048 and its tail
SHAPES = ((1, 1, 1), (1, 2, 1), (1, 1, 3), (5, 1, 1), (1, 127, 1), (3, 7, 2), (4, 16, 1), (13, 11, 3), (27, 29, 3), (32, 32, 2))
NOISES = (NO_NOISE, INDEPENDENT, AVERAGED)


@pytest.mark.parametrize("b", [1, 2, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_step_is_the_formula(b, channels):
    a = pixel_arguments(4, b, (1, channels))
    xi = torch.randn(a["x"].shape, dtype=torch.float64)
    diagonal = a["a"].expand(1, *PIXEL_SHAPE).flatten()
    maps = torch.diag(1 / (diagonal * LEVEL["inv_eta2"] + LEVEL["lam"])), torch.diag((diagonal * 9 + LEVEL["noise_lam"]) ** -0.5)
    for ours, dense in zip(langevin_pixel(**a, xi=xi), dense_step(a, *maps, xi), strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-12, atol=1e-12)


def test_a_diagonal_of_each_measurement():
    a = pixel_arguments(4, 2, (2, 1))
    together = langevin_pixel(**a)
    for m in range(2):
        rows = slice(2 * m, 2 * m + 2)
        one = {k: a[k][rows] for k in ("x", "grad", "ids")} | {k: a[k][m:m + 1] for k in ("a", "b")}
        assert torch.equal(langevin_pixel(**{**a, **one})[0], together[0][rows])


def test_float32_rounds_a_few_times():
    double, single = langevin_pixel(**pixel_arguments()), langevin_pixel(**pixel_arguments(dtype=torch.float32))
    for d, s in zip(double, single, strict=True):
        assert s.dtype == torch.float32
        assert (s - d).abs().max() <= 4 * 2**-24 * d.abs().max()  # worst measured 1.5 roundings


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_every_step_must_do(dtype, backend):
    a = pixel_arguments(dtype=dtype, backend=backend)
    check_noise_modes(langevin_pixel, a, tuple(a["x"].shape))
    check_rows_stand_alone(langevin_pixel, a)


@pytest.mark.parametrize("shape", SHAPES)
def test_cpu_is_the_reference(isa, shape, guarded):
    """Law: twice what torch loses, 3.3 roundings of the terms; measured 3.9."""
    for n, b, layout in pixel_layouts(shape):
        a = pixel_arguments(n, b, layout, torch.float32, shape, "cpu")
        a = {k: shifted(v) if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in a.items()}
        a["xi"] = torch.randn(a["x"].shape, generator=torch.Generator().manual_seed(2))
        for noise in (NO_NOISE, INDEPENDENT):
            a["noise"] = noise
            assert pixel_roundings(a, langevin_pixel(**a)) <= 6.6
    guarded()


@pytest.mark.parametrize("shape", SHAPES)
def test_cpu_draws_the_noise_of_philox(isa, shape):
    a = pixel_arguments(3, 1, (1, 1), torch.float32, shape, "cpu")
    for seed, step in ((0, 0), (-1, 2**32 - 2), (0x123456789ABCDEF, 250)):
        check_noise_modes(langevin_pixel, a | {"seed": seed, "step": step, "ids": torch.tensor([0, 2**31, 2**32 - 1])},
                          tuple(a["x"].shape))


def test_cpu_has_the_same_bits_on_every_isa_and_any_threads(isa, threads, monkeypatch):
    cases = (((27, 29, 3), (2, 1), AVERAGED), ((40, 67, 1), (1, 1), INDEPENDENT), ((1, 5, 3), (1, 3), NO_NOISE))
    for shape, layout, noise in cases:
        a = pixel_arguments(34, 2, layout, torch.float32, shape, "cpu") | {"noise": noise}
        monkeypatch.setenv("ALPS_FAST_ISA", "portable")
        threads(1)
        want = langevin_pixel(**a)
        monkeypatch.setenv("ALPS_FAST_ISA", isa)
        for count in (1, 2, 3):
            threads(count)
            assert all(torch.equal(w, g) for w, g in zip(want, langevin_pixel(**a), strict=True))


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 4, 3), (31, 23, 3)])
def test_cpu_rows_stand_alone(isa, shape):
    for noise in NOISES:
        check_rows_stand_alone(langevin_pixel, pixel_arguments(6, 2, (1, 1), torch.float32, shape, "cpu") | {"noise": noise})


def test_cpu_takes_any_real_xi_and_strided_chains(isa):
    a = pixel_arguments(4, 2, (1, 3), torch.float32, backend="cpu")
    xi = torch.randn(a["x"].shape, dtype=torch.float64).transpose(1, 2).contiguous().transpose(1, 2)
    given, same = (langevin_pixel(**a, xi=noise)[0] for noise in (xi, xi.float().contiguous()))
    assert torch.equal(given, same)
    a["noise"] = AVERAGED
    assert torch.equal(langevin_pixel(**a)[0], langevin_pixel(**a | {"ids": a["ids"].repeat_interleave(2, 0)[::2]})[0])


def test_a_broken_chain_stays_alone(isa):
    a = pixel_arguments(4, 1, (1, 1), torch.float32, backend="cpu")
    want = langevin_pixel(**a)
    a["x"][1], a["grad"][2] = torch.nan, torch.inf
    for w, g in zip(want, langevin_pixel(**a), strict=True):
        assert torch.equal(w[[0, 3]], g[[0, 3]]) and not g[1:3].isfinite().any()


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES)
def test_cuda_has_the_bits_of_the_cpu_kernel(shape):
    pytest.importorskip("alps_fast._cpu")
    for n, b, layout in pixel_layouts(shape):
        for noise in NOISES:
            a = pixel_arguments(n, b, layout, torch.float32, shape, "cpu") | {"noise": noise}
            for want, got in zip(langevin_pixel(**a), langevin_pixel(**on_gpu(a)), strict=True):
                assert torch.equal(want, got.cpu())


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_steps_that_do_not_fit_their_counter_word(backend):
    a = pixel_arguments(dtype=torch.float32, backend=backend)
    for wrong in ({"step": -1}, {"step": 2**32}, {"step": 2**32 - 1, "noise": AVERAGED}):
        with pytest.raises(ArgumentError, match="^step: got"):
            langevin_pixel(**a | wrong)
    langevin_pixel(**a | {"step": 2**32 - 1})


def test_opcheck():
    a = pixel_arguments(dtype=torch.float32, backend="auto")
    check_opcheck(langevin_pixel, a, tuple(a["x"].shape))


def test_bad_arguments():
    a = pixel_arguments()
    check_bad_arguments(langevin_pixel, a, {"a": a["a"][:, :2]})
