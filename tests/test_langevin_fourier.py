"""langevin_fourier against dense matrices of convolution and decimation."""

from __future__ import annotations

import warnings

import pytest
import torch
from dense import fft_law, image_matrix, posterior_power
from inputs import fourier_arguments, transfer
from step_checks import (
    LEVEL,
    check_bad_arguments,
    check_noise_modes,
    check_opcheck,
    check_rows_stand_alone,
    dense_step,
    in_double,
    on_gpu,
    states,
)

from alps_fast.energies import GaussianEnergy
from alps_fast.errors import ArgumentError
from alps_fast.layout import from_state, to_state
from alps_fast.operators import SuperResolution
from alps_fast.ops.langevin_fourier import langevin_fourier, without_transform
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, NO_NOISE
from alps_fast.samplers import Schedule, sample

CASES = {  # height, width, image channels, factor, complex
    "real": (6, 5, 2, 1, False),
    "real, one pixel": (1, 1, 1, 1, False),
    "complex": (5, 4, 1, 1, True),
    "factor 2": (4, 6, 2, 2, False),
    "factor 3, complex": (3, 6, 1, 3, True),
    "factor 5, odd": (5, 15, 1, 5, False),
}


def arguments(name, n=4, b=2, dtype=torch.float64):
    height, width, channels, factor, is_complex = CASES[name]
    h = transfer(height, width, is_complex, dtype.to_complex())
    shape = (height, width, 2 * channels if is_complex else channels)
    return states(n, b, shape, dtype) | {"h": h, "factor": factor, "is_complex": is_complex}


def dense_normal(name):
    height, width, channels, factor, is_complex = CASES[name]
    h = transfer(height, width, is_complex)

    def forward(x):
        y = torch.fft.ifft2(torch.fft.fft2(x) * h)
        return (y if is_complex else y.real)[..., ::factor, ::factor]

    a = image_matrix(forward, (channels, height, width), is_complex)
    return a.T @ a


def fourier_basis(name):
    """The unitary matrix that takes Fourier coefficients, laid out like the image, to states."""
    height, width, channels, _, is_complex = CASES[name]
    assert is_complex

    def synthesis(x):
        return torch.view_as_real(torch.fft.ifft2(x, norm="ortho").movedim(1, -1).contiguous())

    return image_matrix(synthesis, (channels, height, width), True)


@pytest.mark.parametrize("name", CASES)
def test_step_is_the_dense_one(name):
    a = arguments(name)
    xi = torch.randn(a["x"].shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    normal = dense_normal(name)
    p = posterior_power(normal, LEVEL["inv_eta2"], LEVEL["lam"], -1.0)
    root = posterior_power(normal, LEVEL["inv_eta2"], LEVEL["noise_lam"], -0.5)
    if a["is_complex"]:
        # ξ counts Fourier coefficients. For factor 1 the root is diagonal in them; for larger factors it is symmetric there.
        root = root @ fourier_basis(name)
    for ours, dense in zip(langevin_fourier(**a, xi=xi), dense_step(a, p, root, xi), strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_float32_keeps_the_fft_law(name):
    double, single = langevin_fourier(**arguments(name)), langevin_fourier(**arguments(name, dtype=torch.float32))
    points = CASES[name][0] * CASES[name][1]
    for d, s in zip(double, single, strict=True):
        assert s.dtype == torch.float32
        assert (s - d).norm() <= fft_law(points) * d.norm()  # worst measured: a twentieth of the law


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_what_every_step_must_do(name, dtype):
    a = arguments(name, dtype=dtype)
    check_noise_modes(langevin_fourier, a, tuple(a["x"].shape))
    check_rows_stand_alone(langevin_fourier, a)


def widened(a):
    """The same numbers in double, for the reference."""
    return in_double(a) | {"backend": "torch"}


# every radix, alone and after each other, primes that share a loop; passes in even and odd number; panels of 16 and their tails
SIZES = ((1, 1), (1, 2), (2, 1), (1, 17 * 2), (2, 2), (3, 4), (5, 7), (8, 3), (15, 16), (16, 15), (17, 3), (20, 21), (32, 9),
         (14, 49), (33, 5), (128, 64), (25, 128), (40, 320), (11, 13), (17, 19), (23, 29), (31, 37), (26, 22), (230, 90),
         (3, 218), (131, 4), (43 * 37, 1), (1, 1021))


@pytest.mark.parametrize("is_complex, channels", [(False, 1), (False, 3), (True, 1), (True, 2)])
@pytest.mark.parametrize("size", SIZES)
def test_cpu_keeps_the_fft_law(isa, size, is_complex, channels, guarded):
    """Measured: a twelfth of the law, and a sixth of it for the largest primes."""
    a = fourier_arguments(size, channels, is_complex)
    a["xi"] = torch.randn(a["x"].shape, generator=torch.Generator().manual_seed(3))
    for noise in (NO_NOISE, INDEPENDENT):
        want = langevin_fourier(**widened(a) | {"noise": noise})
        for w, g in zip(want, langevin_fourier(**a | {"noise": noise}), strict=True):
            assert (w - g).norm() <= fft_law(size[0] * size[1]) * w.norm()
    if without_transform(*size, "cpu") is None:
        guarded()


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("size", [(128, 128), (96, 100)])
def test_noise_is_as_exact_as_the_rest(isa, size, is_complex):
    """Where the data weigh 1e6 times more than the prior, nothing of r is lost to ξ or of ξ to r."""
    a = fourier_arguments(size, 1, is_complex, 2, 1) | {"inv_eta2": 1e6, "lam": 1.0, "lin": 1.0, "w": 1.0, "noise_lam": 1.0}
    a["b"] *= 1e6
    torch_error, error = torch.zeros(2), torch.zeros(2)
    want = torch.stack(langevin_fourier(**widened(a)))
    for result, backend in ((torch_error, "torch"), (error, "cpu")):
        result[:] = (torch.stack(langevin_fourier(**a | {"backend": backend})) - want).flatten(1).norm(dim=1)
    assert (error <= 2 * torch_error).all(), error / torch_error


@pytest.mark.parametrize("is_complex, channels", [(False, 1), (False, 3), (True, 2)])
@pytest.mark.parametrize("size, factor", [((1, 1), 1), ((3, 5), 1), ((7, 6), 1), ((20, 27), 1), ((33, 4), 1), ((6, 9), 3)])
def test_cpu_draws_the_noise_of_philox(isa, size, factor, is_complex, channels):
    a = fourier_arguments(size, channels, is_complex, 3, 1, factor)
    for seed, step in ((0, 0), (-1, 2**32 - 2), (0x123456789ABCDEF, 250)):
        check_noise_modes(langevin_fourier, a | {"seed": seed, "step": step, "ids": torch.tensor([0, 2**31, 2**32 - 1])},
                          tuple(a["x"].shape))


@pytest.mark.parametrize("is_complex", [False, True])
def test_cpu_has_the_same_bits_on_any_threads_and_alone(isa, is_complex, threads):
    for size, factor in (((5, 3), 1), ((20, 18), 1), ((35, 40), 1), ((74, 41), 1), ((6, 4), 2), ((20, 18), 2), ((39, 54), 3)):
        for noise in (NO_NOISE, INDEPENDENT, AVERAGED):
            a = fourier_arguments(size, 2, is_complex, 6, 2, factor) | {"noise": noise}
            threads(1)
            want = langevin_fourier(**a)
            for count in (2, 3, 7):  # the last: more threads than images, which then work on one together
                threads(count)
                assert all(torch.equal(w, g) for w, g in zip(want, langevin_fourier(**a), strict=True))
            check_rows_stand_alone(langevin_fourier, a)


# factor, height, width: small spectra of one number, odd and even, of a block to its last column and of one column more;
# rows in even and odd numbers of passes
DECIMATED = ((2, 2, 2), (3, 3, 3), (2, 2, 6), (2, 6, 4), (5, 5, 15), (7, 14, 7), (3, 9, 15), (2, 16, 28), (2, 30, 32),
             (3, 21, 48), (4, 20, 64), (4, 64, 60), (6, 18, 96), (8, 16, 40), (16, 16, 16), (2, 128, 64), (3, 33, 150),
             (4, 8, 148), (2, 86, 6), (64, 64, 128))


@pytest.mark.parametrize("is_complex, channels", [(False, 1), (False, 3), (True, 1), (True, 2)])
@pytest.mark.parametrize("factor, height, width", DECIMATED)
def test_cpu_keeps_the_fft_law_where_pixels_are_left_out(isa, factor, height, width, is_complex, channels, guarded):
    """Measured: a tenth of the law."""
    a = fourier_arguments((height, width), channels, is_complex, factor=factor)
    a["xi"] = torch.randn(a["x"].shape, generator=torch.Generator().manual_seed(3))
    for noise in (NO_NOISE, INDEPENDENT):
        want = langevin_fourier(**widened(a) | {"noise": noise})
        for w, g in zip(want, langevin_fourier(**a | {"noise": noise}), strict=True):
            assert (w - g).norm() <= fft_law(height * width) * w.norm()
    guarded()


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("factor, blur", [(2, 0.8), (3, 0.8), (4, 1.6)])
@pytest.mark.parametrize("t, eta", [(100.0, 0.005), (100.0, 0.05), (1.0, 0.005), (0.1, 0.005), (1.0, 0.3)])
def test_what_was_measured_stays_precise_and_the_rest_is_as_by_torch(isa, t, eta, factor, blur, is_complex):
    """Gains span (t/η)², up to 4e8; what rounding leaves of b where A sees nothing is large in x⁺ and m. Law: three times torch's
    own error and a tenth of the law of transforms; measured 2.3 times. Errors of A x⁺ and A m: the law of transforms, of x⁺, with
    which m is transformed; measured a sixtieth, and 3,000 laws where free directions are projected once only."""
    op, g = SuperResolution(factor, eta, blur, is_complex=is_complex), torch.Generator().manual_seed(3)
    size = 12 * factor, 8 * factor
    image = torch.rand(1, 1, *size, generator=g, dtype=torch.float64).to(torch.complex128 if is_complex else torch.float64)
    shape = (4, *size, 2 if is_complex else 1)
    x, xi = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(2))
    x = to_state(image) + t * x
    b = to_state(op.adjoint(op.forward(image))) / eta**2
    h = op.transfer(*size, torch.complex64, x.device)
    a = {"x": x, "grad": x - 0.5, "b": b, "xi": xi}
    a = {name: v.float() for name, v in a.items()} | {"ids": torch.arange(4), "h": h, "factor": factor, "is_complex": is_complex}
    a |= LEVEL | {"lam": t**-2, "lin": t**-2, "w": t**-2, "inv_eta2": eta**-2, "noise_lam": t**-2}
    want = langevin_fourier(**widened(a))

    law = fft_law(size[0] * size[1])
    for w, ours, torchs in zip(want, langevin_fourier(**a), langevin_fourier(**a | {"backend": "torch"}), strict=True):
        off, of_torch = ((v - w).norm() for v in (ours, torchs))
        assert off <= 3 * of_torch + 0.1 * law * w.norm()
        assert op.forward(from_state(ours - w, is_complex)).norm() <= law * want[0].norm()


@pytest.mark.parametrize("size", [0.0, 1e-25, 1e-12])
def test_what_the_transfer_loses_is_left_to_the_prior(isa, size):
    """Groups without energy, or with so little that its square is no number of float32."""
    a = fourier_arguments((8, 12), 1, False, factor=2)
    a["h"] = a["h"].clone()
    a["h"][1::4] *= size
    a["h"][3::4] *= size
    for w, g in zip(langevin_fourier(**widened(a)), langevin_fourier(**a), strict=True):
        assert (w - g).norm() <= fft_law(96) * w.norm()


@pytest.mark.parametrize("factor, is_complex, shape", [(2, False, (3, 24, 20)), (3, True, (1, 9, 30)), (4, False, (1, 16, 40))])
def test_a_run_of_super_resolution_is_the_kernel_s(monkeypatch, factor, is_complex, shape):
    """Every step of it, and nothing is told of another backend."""
    _cpu = pytest.importorskip("alps_fast._cpu")
    op = SuperResolution(factor, 0.05, 0.7, is_complex=is_complex)
    y = op.forward(torch.randn(shape, dtype=torch.complex64 if is_complex else torch.float32))
    calls, kernel = [], _cpu.langevin_fourier
    monkeypatch.setattr(_cpu, "langevin_fourier", lambda *given: calls.append(1) or kernel(*given))
    runs = {}
    for backend in ("cpu", "auto", "torch"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            runs[backend] = sample(y, op, GaussianEnergy(0.0, 1.0), chains=4, schedule=Schedule(10.0, 0.1, 6, 3), backend=backend,
                                   progress=False)
        assert len(calls) == (0 if backend == "torch" else 1 + 6 * 3)
        calls.clear()
    assert torch.equal(runs["cpu"].samples, runs["auto"].samples)
    torch.testing.assert_close(runs["cpu"].samples, runs["torch"].samples, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(runs["cpu"].mean, runs["torch"].mean, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("is_complex, channels", [(False, 1), (False, 3), (True, 1), (True, 2)])
@pytest.mark.parametrize("size", [*SIZES, (128, 128), (320, 256), (17, 2048)])
def test_cuda_keeps_the_fft_law(size, is_complex, channels):
    """Few images are done in passes, many one a block where they fit: the same bits."""
    for noise in (NO_NOISE, INDEPENDENT, AVERAGED):
        a = fourier_arguments(size, channels, is_complex) | {"noise": noise}
        got = langevin_fourier(**on_gpu(a))
        for w, g in zip(langevin_fourier(**widened(a)), got, strict=True):
            assert (w - g.cpu()).norm() <= fft_law(size[0] * size[1]) * w.norm()
        many = a | {k: a[k].repeat_interleave(50, 0) for k in ("x", "grad", "ids")}
        assert all(torch.equal(g, m[::50]) for g, m in zip(got, langevin_fourier(**on_gpu(many)), strict=True))


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("size, factor", [((9, 10), 1), ((9, 15), 3)])
def test_a_broken_chain_stays_alone(isa, size, factor, is_complex):
    a = fourier_arguments(size, 1, is_complex, 4, 1, factor)
    want = langevin_fourier(**a)
    a["x"][1], a["grad"][2] = torch.nan, torch.inf
    for w, g in zip(want, langevin_fourier(**a), strict=True):
        assert torch.equal(w[[0, 3]], g[[0, 3]]) and not g[1:3].isfinite().any()


def test_cpu_takes_any_real_xi_and_strided_chains(isa):
    a = fourier_arguments((6, 7), 1, True)
    xi = torch.randn(a["x"].shape, dtype=torch.float64).transpose(1, 2).contiguous().transpose(1, 2)
    given, same = (langevin_fourier(**a, xi=noise)[0] for noise in (xi, xi.float().contiguous()))
    assert torch.equal(given, same)
    a["noise"] = AVERAGED
    assert torch.equal(langevin_fourier(**a)[0], langevin_fourier(**a | {"ids": a["ids"].repeat_interleave(2, 0)[::2]})[0])


@pytest.mark.parametrize("size, factor, dtype", [((1031, 2), 1, torch.float32), ((2062, 2), 2, torch.float32),
                                                 ((6, 5), 1, torch.float64), ((4, 6), 2, torch.float64)])
def test_cpu_leaves_the_rest_to_the_reference(size, factor, dtype):
    a = fourier_arguments(size, 1, False) | {"factor": factor}
    a = {k: v.to(dtype.to_complex() if v.is_complex() else dtype) if isinstance(v, torch.Tensor) and k != "ids" else v
         for k, v in a.items()}
    for g, w in zip(langevin_fourier(**a), langevin_fourier(**a | {"backend": "torch"}), strict=True):
        assert torch.equal(g, w)


@pytest.mark.parametrize("name", ["real", "factor 3, complex"])
def test_opcheck(name):
    a = arguments(name, dtype=torch.float32)
    check_opcheck(langevin_fourier, a, tuple(a["x"].shape))


def test_bad_arguments():
    a = arguments("real")
    check_bad_arguments(langevin_fourier, a, {"h": a["h"][:2], "factor": 4})
    a = arguments("real, one pixel")
    with pytest.raises(ValueError, match="^x: got 1 real channels"):
        langevin_fourier(**{**a, "is_complex": True})


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("size, factor", [((6, 5), 1), ((17, 20), 1), ((31, 37), 1), ((4, 6), 2), ((36, 68), 4)])
def test_rows_have_the_transfer_of_their_operator(isa, size, factor, is_complex, threads):
    """To the bit that of each operator's rows alone, by the kernel, the definition, and a row of data a chain."""
    a = fourier_arguments(size, 2 if is_complex else 1, is_complex, 6, 3, factor)
    h = torch.stack([a["h"] * scale for scale in (1.0, 0.3, 2.0)])
    for backend, count in (("cpu", 1), ("cpu", 2), ("torch", 2)):
        threads(count)
        every = {**a, "backend": backend}
        together = langevin_fourier(**every | {"h": h})
        own_data = langevin_fourier(**every | {"h": h, "b": a["b"].repeat_interleave(2, 0)})
        for k in range(3):
            rows = slice(2 * k, 2 * k + 2)
            alone = langevin_fourier(**every | {name: a[name][rows] for name in ("x", "grad", "ids")}
                                     | {"b": a["b"][k:k + 1], "h": h[k]})
            for one, all_of_them, same in zip(alone, together, own_data, strict=True):
                assert torch.equal(one, all_of_them[rows]) and torch.equal(one, same[rows])
    with pytest.raises(ArgumentError, match="^b: "):
        langevin_fourier(**a | {"h": h[:2]})
    with pytest.raises(ArgumentError, match="^h: "):
        langevin_fourier(**a | {"h": h[None]})
