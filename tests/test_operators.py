"""Every operator against its dense matrix: adjoint, normal, P_t, the covariance of the noise, and the errors users see."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
from dense import fft_law, image_matrix, matrix, posterior_power, real_rows

from alps_fast.errors import ArgumentError
from alps_fast.layout import from_state, to_state
from alps_fast.operators import CartesianMRI, CircularBlur, Denoising, Inpainting, LinearOperator, SoftSenseMRI, SuperResolution
from alps_fast.ops._scalars import StepScalars
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT

G = torch.Generator().manual_seed(0)


def rand(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=G, dtype=dtype)


def mask2d(h: int, w: int) -> torch.Tensor:
    mask = torch.rand(h, w, generator=G) < 0.5
    mask[0, 0], mask[-1, -1], mask[0, -1] = True, False, True
    return mask


def maps(coils: int, h: int, w: int) -> torch.Tensor:
    return rand(coils, h, w, dtype=torch.complex128) / math.sqrt(coils)


def mask1d(n: int) -> torch.Tensor:
    return torch.arange(n) % 3 == 1 if n > 1 else torch.ones(1)


def dense_operator(m: int, image: tuple[int, int, int], eta: float, complex_x: bool, complex_y: bool) -> LinearOperator:
    n = math.prod(image)
    a = rand(m, n, dtype=torch.complex128 if complex_x or complex_y else torch.float64) / math.sqrt(n)

    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).to(a.to(x.dtype.to_complex() if a.is_complex() else x.dtype).dtype) @ a.to(
            x.dtype.to_complex() if a.is_complex() else x.dtype).T

    def adjoint(y: torch.Tensor) -> torch.Tensor:
        x = (y @ a.to(y.dtype).conj()).unflatten(1, image)
        return x if complex_x else x.real

    return LinearOperator(forward, adjoint, eta, image, is_complex=complex_x, tol=1e-9)


CASES = {
    "denoising": (lambda e: Denoising(e), (2, 3, 5)),
    "denoising complex, one pixel": (lambda e: Denoising(e, is_complex=True), (1, 1, 1)),
    "inpainting": (lambda e: Inpainting(mask2d(5, 7), e), (3, 5, 7)),
    "inpainting, a mask a channel": (lambda e: Inpainting(torch.stack([mask2d(4, 3)] * 2), e, is_complex=True), (2, 4, 3)),
    "blur": (lambda e: CircularBlur(rand(3, 4), e), (2, 8, 6)),
    "blur, odd": (lambda e: CircularBlur.gaussian(0.8, e), (1, 7, 5)),
    "blur, wraps": (lambda e: CircularBlur.gaussian(1.5, e), (1, 3, 2)),
    "blur complex": (lambda e: CircularBlur(rand(2, 3), e, is_complex=True), (2, 3, 5)),
    "motion": (lambda e: CircularBlur.motion(4.5, 30, e), (1, 1, 11)),
    "super-resolution": (lambda e: SuperResolution(2, e, 0.7), (2, 6, 4)),
    "super-resolution, no blur": (lambda e: SuperResolution(3, e), (1, 3, 9)),
    "super-resolution complex": (lambda e: SuperResolution(2, e, rand(3, 3), is_complex=True), (1, 6, 4)),
    "super-resolution, factor 1": (lambda e: SuperResolution(1, e, 0.7), (1, 4, 5)),
    "mri, 2-D mask": (lambda e: CartesianMRI(mask2d(5, 6), noise_std=e), (1, 5, 6)),
    "mri, 1-D mask": (lambda e: CartesianMRI(mask1d(7), axis=1, noise_std=e), (1, 4, 7)),
    "sense, along W": (lambda e: CartesianMRI(mask1d(7), maps(3, 4, 7), axis=1, noise_std=e), (1, 4, 7)),
    "sense, along H": (lambda e: CartesianMRI(mask1d(6), maps(3, 6, 5), axis=0, noise_std=e), (1, 6, 5)),
    "sense, one coil": (lambda e: CartesianMRI(mask1d(5)[None].expand(3, 5), maps(1, 3, 5), noise_std=e), (1, 3, 5)),
    "sense, all ones": (lambda e: CartesianMRI(torch.ones(4, 5), maps(2, 4, 5), noise_std=e), (1, 4, 5)),
    "sense, one line": (lambda e: CartesianMRI(torch.ones(1, 1), maps(2, 1, 5), noise_std=e), (1, 1, 5)),
    "sense, 2-D mask": (lambda e: CartesianMRI(mask2d(5, 4), maps(2, 5, 4), noise_std=e, tol=1e-9), (1, 5, 4)),
    "soft sense": (lambda e: SoftSenseMRI(mask2d(5, 4), maps(6, 5, 4).view(2, 3, 5, 4), noise_std=e, tol=1e-9), (2, 5, 4)),
    "linear real": (lambda e: dense_operator(9, (2, 3, 2), e, False, False), (2, 3, 2)),
    "linear complex": (lambda e: dense_operator(5, (1, 3, 2), e, True, True), (1, 3, 2)),
    "linear real to complex": (lambda e: dense_operator(5, (1, 3, 4), e, False, True), (1, 3, 4)),
}


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request):
    G.manual_seed(1)
    make, image = CASES[request.param]
    return make, image


def images(op, image, count, dtype=torch.float64):
    return rand(count, *image, dtype=dtype.to_complex() if op.is_complex else dtype)


def state_shape(op, image):
    c, h, w = image
    return h, w, 2 * c if op.is_complex else c


def noise_shape(op, image):
    """The shape of xi of one chain."""
    if isinstance(op, (LinearOperator, SoftSenseMRI)):
        y = op.forward(images(op, image, 1, torch.float32))
        return (math.prod(state_shape(op, image)) + real_rows(y).shape[1],)
    if isinstance(op, CartesianMRI) and op.maps is not None and op.line_axis is None:
        return (1 + len(op.maps), *image[1:], 2)
    return state_shape(op, image)


def test_adjoint_and_normal_are_those_of_the_dense_matrix(case):
    make, image = case
    op = make(0.1)
    a = image_matrix(op.forward, image, op.is_complex)
    y = op.forward(images(op, image, 1))
    assert op.check_measurement(y).shape == y.shape and op.image_shape(y) == image
    one = y.shape[1:]

    def adjoint_state(rows):
        rows = torch.view_as_complex(rows.view(len(rows), *one, 2)) if y.is_complex() else rows.view(len(rows), *one)
        return op.adjoint_state(rows)

    back = matrix(adjoint_state, (real_rows(y).shape[1],))
    # 1e-12: float64 against the same algebra in another order; worst measured 1.8e-15
    torch.testing.assert_close(back, a.T, rtol=0, atol=1e-12)
    normal = matrix(op.normal_state, state_shape(op, image))
    torch.testing.assert_close(normal, a.T @ a, rtol=0, atol=1e-12)


def test_forward_is_linear_and_takes_one_image_or_many(case):
    make, image = case
    op = make(0.1)
    x = images(op, image, 3)
    torch.testing.assert_close(op.forward(2 * x - x.flip(0)), 2 * op.forward(x) - op.forward(x).flip(0), rtol=1e-12, atol=1e-12)
    y = op.forward(x)
    for f, v in ((op.forward, x), (op.normal, x), (op.adjoint, y)):
        torch.testing.assert_close(f(v[1]), f(v)[1], rtol=1e-12, atol=1e-12)
    strided = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    torch.testing.assert_close(op.forward(strided), y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(op.project(strided, 0.7), op.project(x, 0.7), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("t", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("eta", [0.01, 0.3])
def test_project_solves_the_dense_system(case, t, eta):
    make, image = case
    op = make(eta)
    a = image_matrix(op.forward, image, op.is_complex)
    p = posterior_power(a.T @ a, eta**-2, t**-2, -1.0)
    ours = matrix(lambda s: op.project_state(s, t), state_shape(op, image))
    # the system's condition times the rounding of float64, and some room; worst measured 3 % of it
    condition = 1 + float(torch.linalg.matrix_norm(a, 2)) ** 2 * (t / eta) ** 2
    torch.testing.assert_close(ours, p, rtol=0, atol=1e-14 * condition * float(p.abs().max()) + 1e-14)
    x = images(op, image, 2)
    dense = (real_rows(to_state(x)) @ p.T).view(2, *state_shape(op, image))
    torch.testing.assert_close(op.project(x, t), from_state(dense, op.is_complex), rtol=1e-6, atol=1e-6 * t**2)


@pytest.mark.parametrize("t, eta", [(0.05, 0.3), (1.0, 0.1), (10.0, 0.05)])
def test_covariance_of_the_noise_is_the_dense_posterior(case, t, eta):
    """The map ξ -> x⁺ − m has a matrix S; its noise has covariance S Sᵀ, no Monte Carlo needed."""
    make, image = case
    op = make(eta)
    shape = state_shape(op, image)
    s = StepScalars(lam=t**-2, lin=t**-2, w=t**-2, inv_eta2=eta**-2, noise_lam=2 * t**-2, noise=INDEPENDENT, seed=0, step=0)

    def noise(xi):
        zero = torch.zeros(len(xi), *shape, dtype=torch.float64)
        ids = torch.arange(len(xi))
        after, mean = op.langevin(zero, zero, zero[:1], ids, s, xi=xi)
        assert mean.abs().max() < 1e-12
        return after

    root = matrix(noise, noise_shape(op, image))
    normal = matrix(op.normal_state, shape)
    p = posterior_power(normal, eta**-2, 2 * t**-2, -1.0)
    # exact in float64 but for tol = 1e-9 of the iterative operators
    torch.testing.assert_close(root @ root.T, p, rtol=0, atol=1e-8 * float(p.abs().max()))


def test_a_chain_is_the_same_alone_and_in_any_batch(case):
    make, image = case
    op = make(0.1)
    if isinstance(op, (LinearOperator, SoftSenseMRI)):
        pytest.skip("depends on the user's functions")
    s = StepScalars(lam=4.0, lin=4.0, w=4.0, inv_eta2=100.0, noise_lam=4.0, noise=AVERAGED, seed=3, step=7)
    shape = state_shape(op, image)
    x, grad, b = (rand(n, *shape, dtype=torch.float32) for n in (66, 66, 2))
    ids = torch.arange(66)
    together = op.langevin(x, grad, b, ids, s)
    for rows in (slice(0, 1), slice(4, 5), slice(1, 4), slice(0, 33)):
        alone = op.langevin(x[rows], grad[rows], b[:1], ids[rows], s)
        assert torch.equal(alone[0], together[0][rows]) and torch.equal(alone[1], together[1][rows])
    last = op.langevin(x[65:], grad[65:], b[1:], ids[65:], s)
    assert torch.equal(last[0], together[0][65:])


@pytest.mark.parametrize("image", [(3, 16, 20), (1, 17, 13), (1, 110, 110), (1, 120, 96)])
def test_threads_change_nothing(image):
    """Also of images that are shared among threads, and whose sides have larger prime factors."""
    c, h, w = image
    ops = [CircularBlur.gaussian(1.2, 0.1), CircularBlur(rand(3, 3), 0.1, is_complex=True),
           CartesianMRI(mask1d(w), maps(2, h, w), axis=1, noise_std=0.1),
           CartesianMRI(mask2d(h, w), maps(3, h, w), noise_std=0.1)]
    if h % 2 == w % 2 == 0:
        ops.append(SuperResolution(2, 0.1, 0.8))
    s = StepScalars(lam=4.0, lin=4.0, w=4.0, inv_eta2=100.0, noise_lam=4.0, noise=AVERAGED, seed=3, step=7)
    before = torch.get_num_threads()
    try:
        for op in ops:
            x, grad, b = (rand(n, h, w, 2 if op.is_complex else c, dtype=torch.float32) for n in (4, 4, 1))
            results = []
            for threads, rows in ((1, slice(0, 4)), (2, slice(0, 4)), (2, slice(0, 1))):
                torch.set_num_threads(threads)
                after = op.langevin(x[rows], grad[rows], b, torch.arange(4)[rows], s)[0]
                results.append(torch.stack([after, op.normal_state(x[rows].clone())]))
            assert torch.equal(results[0], results[1]) and torch.equal(results[0][:, :1], results[2])
    finally:
        torch.set_num_threads(before)


def test_a_broken_chain_breaks_alone(case):
    make, image = case
    op = make(0.1)
    if isinstance(op, (LinearOperator, SoftSenseMRI)):
        op.tol = 1e-4  # 1e-9 is for double
    s = StepScalars(lam=4.0, lin=4.0, w=4.0, inv_eta2=100.0, noise_lam=4.0, noise=AVERAGED, seed=3, step=7)
    x, grad, b = (rand(n, *state_shape(op, image), dtype=torch.float32) for n in (4, 4, 1))
    whole = op.langevin(x, grad, b, torch.arange(4), s)
    grad[2].view(-1)[0] = torch.nan
    after, mean = op.langevin(x, grad, b, torch.arange(4), s)
    others = [0, 1, 3]
    assert after[2].isnan().any() and mean[2].isnan().any()
    assert torch.equal(after[others], whole[0][others]) and torch.equal(mean[others], whole[1][others])


def test_float32_is_as_good_as_its_law(case):
    make, image = case
    op = make(0.2)
    x = images(op, image, 3)
    single = x.to(torch.complex64 if op.is_complex else torch.float32)
    # FFT law times the condition 1 + ‖A‖² t²/η² of the system (here up to 26 ‖A‖²)
    gain = 1 + 26 * float(op.normal(x).norm() / x.norm())
    for f in (op.forward, op.normal, lambda v: op.project(v, 1.0)):
        error = (f(single).to(f(x).dtype) - f(x)).norm() / f(x).norm()
        assert error <= fft_law(math.prod(image)) * gain


@pytest.mark.parametrize("make", [lambda: SuperResolution(2, 0.005, 0.8), lambda: CircularBlur.gaussian(0.8, 0.005),
                                  lambda: CartesianMRI(mask1d(12), maps(3, 12, 12), axis=1, noise_std=0.005)])
def test_what_was_measured_stays_precise_when_the_prior_is_flat(make):
    """At t = 100, η = 0.005 gains span 4e8; the rounding of float32 may blur the free directions, never A x."""
    op = make()
    x = images(op, (1, 12, 12), 2)
    rhs = op.adjoint(op.forward(x)) / 0.005**2
    there = op.forward(op.project(rhs, 100.0))
    here = op.forward(op.project(rhs.to(torch.complex64 if op.is_complex else torch.float32), 100.0)).to(there.dtype)
    assert (here - there).norm() / there.norm() < 1e-5  # worst measured 1.1e-6; η itself is 5e-3


def test_mri_is_the_centred_orthonormal_transform():
    h, w = 5, 4
    y, x = torch.arange(h) - h // 2, torch.arange(w) - w // 2
    fh = torch.exp(-2j * math.pi * torch.outer(y, y) / h).to(torch.complex128) / math.sqrt(h)
    fw = torch.exp(-2j * math.pi * torch.outer(x, x) / w).to(torch.complex128) / math.sqrt(w)
    s, mask, image = maps(2, h, w), mask2d(h, w), rand(1, h, w, dtype=torch.complex128)
    expected = mask * (fh @ (s * image) @ fw.T)
    torch.testing.assert_close(CartesianMRI(mask, s, noise_std=1.0).forward(image), expected, rtol=0, atol=1e-6)


def test_blur_and_decimation_by_their_definition():
    psf, x = rand(3, 2), rand(1, 6, 6)
    expected = torch.zeros_like(x)
    for i in range(3):
        for j in range(2):
            expected += psf[i, j] * x.roll((i - 1, j - 1), (-2, -1))
    torch.testing.assert_close(CircularBlur(psf, 1.0).forward(x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(SuperResolution(3, 1.0, psf).forward(x), expected[..., ::3, ::3], rtol=0, atol=1e-12)


def test_motion_runs_counter_clockwise_from_the_w_axis():
    flat, tilted = CircularBlur.motion(5, 0, 1.0).psf, CircularBlur.motion(5, 30, 1.0).psf
    assert flat[3].sum() == pytest.approx(1) and flat[3].count_nonzero() == 7
    rows, columns = torch.meshgrid(torch.arange(7.0) - 3, torch.arange(7.0) - 3, indexing="ij")
    assert (tilted * rows * columns).sum() < -0.5  # up is towards row 0
    torch.testing.assert_close(CircularBlur.motion(5, 90, 1.0).psf, flat.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1])
def test_lines_and_conjugate_gradients_agree_on_a_mask_of_one_axis(axis):
    s = maps(3, 9, 9)
    line = CartesianMRI(mask1d(9), s, axis=axis, noise_std=0.05)
    assert line.line_axis == axis
    cg = CartesianMRI(line.mask, s, noise_std=0.05, max_iter=2000)
    cg.line_axis = None
    x = rand(2, 1, 9, 9, dtype=torch.complex128)
    torch.testing.assert_close(cg.project(x, 0.5), line.project(x, 0.5), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(cg.normal(x), line.normal(x), rtol=1e-12, atol=1e-12)


def test_masks_that_do_not_vary_are_recognised():
    s = maps(2, 6, 8)
    columns = (torch.arange(8) % 2 == 0)[None].expand(6, 8)
    assert CartesianMRI(columns, s, noise_std=1.0).line_axis == 1
    assert CartesianMRI(columns[:, :6].T, maps(2, 6, 6), noise_std=1.0).line_axis == 0
    assert CartesianMRI(torch.ones(6, 8), s, noise_std=1.0).line_axis == 0  # the shorter lines
    assert CartesianMRI(mask2d(6, 8), s, noise_std=1.0).line_axis is None


def test_factors_are_kept_and_reproduce_the_normal_operator():
    op = CartesianMRI(mask1d(11), maps(4, 5, 11).to(torch.complex64), axis=1, noise_std=0.1)
    u, eigenvalues = op.factors(torch.complex64, torch.device("cpu"))
    assert op.factors(torch.complex64, torch.device("cpu"))[0] is u and u.dtype == torch.complex64
    assert eigenvalues.min() >= 0
    x = rand(1, 5, 11, dtype=torch.complex64)
    lines = (u * eigenvalues[:, None] @ u.mH @ x[0][..., None])[..., 0]
    assert (lines - op.normal(x)[0]).norm() <= fft_law(11) * x.norm()
    assert (u.mH @ u - torch.eye(11)).abs().max() < 1e-6


def test_factors_are_the_same_on_any_threads(threads):
    """96 columns: with more threads LAPACK finds other vectors where eigenvalues are zero, and a chain gets other noise."""
    s = maps(4, 6, 96)
    found = []
    for count in (1, 2):
        threads(count)
        found.append(CartesianMRI(mask1d(96), s, axis=1, noise_std=0.1).factors(torch.complex64, torch.device("cpu")))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_fresh_processes_agree_on_any_threads():
    """Factors, where LAPACK first runs in a process of that many threads, and the chains that they make, to the bit."""
    code = """
import hashlib, torch, alps_fast as af
from alps_fast import data
op = af.operators.CartesianMRI(torch.arange(96) % 3 == 0, data.coil_maps(4, 6, 96), axis=1, noise_std=0.1)
factors = op.factors(torch.complex64, torch.device("cpu"))
y = torch.complex(*torch.randn(2, 4, 6, 96, generator=torch.Generator().manual_seed(0)))
few = af.Schedule(1.0, 0.2, 2, 2)
runs = [af.sample(y, op, af.energies.GaussianEnergy(0.0, 0.5), chains=3, schedule=few, backend=backend, progress=False)
        for backend in ("auto", "torch")]
for v in (*factors, *(run.samples for run in runs), *(run.mean for run in runs)):
    print(torch.get_num_threads(), hashlib.sha256(v.resolve_conj().numpy().tobytes()).hexdigest())
"""
    told = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           env=os.environ | {"OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}).stdout.split()
            for count in (1, 2)]
    assert told[0][::2] == ["1"] * 6
    assert told[1][::2] == ["2"] * 6
    assert told[0][1::2] == told[1][1::2]


NAN = float("nan")
BAD = {
    "noise_std": lambda: Denoising(0.0),
    "noise_std nan": lambda: Denoising(NAN),
    "noise_std negative": lambda: CartesianMRI(mask2d(3, 3), noise_std=-1.0),
    "mask zero": lambda: Inpainting(torch.zeros(3, 3), 0.1),
    "mask grey": lambda: Inpainting(torch.full((3, 3), 0.5), 0.1),
    "mask shape": lambda: Inpainting(torch.ones(1, 1, 1, 3, 3), 0.1),
    "mask type": lambda: Inpainting([[1, 0]], 0.1),
    "mask mri zero": lambda: CartesianMRI(torch.zeros(3, 3), noise_std=0.1),
    "y shape": lambda: Inpainting(torch.ones(3, 3), 0.1).check_measurement(torch.zeros(1, 3, 4)),
    "y dims": lambda: Denoising(0.1).check_measurement(torch.zeros(3, 4)),
    "y dtype": lambda: Denoising(0.1).check_measurement(torch.zeros(1, 3, 4, dtype=torch.int64)),
    "y complex": lambda: Denoising(0.1).check_measurement(torch.zeros(1, 3, 4, dtype=torch.complex64)),
    "y nan": lambda: Denoising(0.1).check_measurement(torch.full((1, 3, 4), NAN)),
    "y nan blur": lambda: CircularBlur.gaussian(1, 0.1).check_measurement(torch.full((1, 3, 4), NAN)),
    "y real mri": lambda: CartesianMRI(mask2d(3, 3), noise_std=0.1).check_measurement(torch.zeros(3, 3)),
    "y coils": lambda: CartesianMRI(mask2d(3, 3), maps(2, 3, 3), noise_std=0.1).check_measurement(
        torch.zeros(3, 3, 3, dtype=torch.complex64)),
    "y size mri": lambda: CartesianMRI(mask2d(3, 3), noise_std=0.1).check_measurement(torch.zeros(4, 3, dtype=torch.complex64)),
    "y one coil": lambda: CartesianMRI(mask2d(3, 3), noise_std=0.1).check_measurement(
        torch.zeros(2, 3, 3, dtype=torch.complex64)),
    "y linear": lambda: dense_operator(5, (1, 2, 2), 0.1, False, False).check_measurement(torch.zeros(2, 4)),
    "y linear nan": lambda: dense_operator(5, (1, 2, 2), 0.1, False, False).check_measurement(torch.full((5,), NAN)),
    "maps size": lambda: CartesianMRI(mask2d(3, 3), maps(2, 4, 3), noise_std=0.1),
    "maps real": lambda: CartesianMRI(mask2d(3, 3), torch.ones(2, 3, 3), noise_std=0.1),
    "maps nan": lambda: CartesianMRI(mask2d(3, 3), maps(2, 3, 3) * NAN, noise_std=0.1),
    "maps dims": lambda: CartesianMRI(mask2d(3, 3), maps(2, 3, 3)[0], noise_std=0.1),
    "axis missing": lambda: CartesianMRI(torch.ones(3), noise_std=0.1),
    "axis extra": lambda: CartesianMRI(torch.ones(3, 3), noise_std=0.1, axis=0),
    "psf zero": lambda: CircularBlur(torch.zeros(3, 3), 0.1),
    "psf dims": lambda: CircularBlur(torch.ones(3), 0.1),
    "std": lambda: CircularBlur.gaussian(-1.0, 0.1),
    "length": lambda: CircularBlur.motion(0, 0, 0.1),
    "angle": lambda: CircularBlur.motion(3, NAN, 0.1),
    "factor": lambda: SuperResolution(0, 0.1),
    "x size": lambda: SuperResolution(2, 0.1).forward(torch.zeros(1, 5, 4)),
    "x real": lambda: CartesianMRI(mask2d(3, 3), noise_std=0.1).forward(torch.zeros(1, 3, 3)),
    "rhs": lambda: Denoising(0.1).project(torch.zeros(3, 3), 1.0),
    "t": lambda: Denoising(0.1).project(torch.zeros(1, 3, 3), 0.0),
    "image_shape": lambda: LinearOperator(lambda x: x, lambda y: y, 0.1, (3, 3)),
    "image_shape number": lambda: LinearOperator(lambda x: x, lambda y: y, 0.1, 5),
    "image_shape part": lambda: LinearOperator(lambda x: x, lambda y: y, 0.1, (1, 3, 2.5)),
    "forward": lambda: LinearOperator(3, lambda y: y, 0.1, (1, 3, 3)),
    "adjoint forward": lambda: LinearOperator(lambda x: 2 * x, lambda y: y, 0.1, (1, 3, 3)).forward(torch.zeros(1, 3, 3)),
    "adjoint normal": lambda: LinearOperator(lambda x: 2 * x, lambda y: y, 0.1, (1, 3, 3)).normal(torch.zeros(1, 3, 3)),
    "blur": lambda: SuperResolution(2, 0.1, -1.0),
    "blur psf": lambda: SuperResolution(2, 0.1, torch.ones(3)),
    "adjoint": lambda: LinearOperator(lambda x: 2 * x, lambda y: y, 0.1, (1, 3, 3)).check_measurement(torch.zeros(1, 3, 3)),
    "tol": lambda: CartesianMRI(mask2d(3, 3), noise_std=0.1, tol=0.0),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_that_names_the_argument(name):
    with pytest.raises(ArgumentError) as caught:
        BAD[name]()
    assert str(caught.value).startswith(name.split()[0] + ":") and "\n" not in str(caught.value)


@pytest.mark.parametrize("readings", [100, 400, 1200])
def test_a_solve_to_the_dtypes_rounding_stops_there(readings):
    """A dense random matrix: once its gradient was all rounding, single precision went on and away, to 1e18."""
    matrix = torch.randn(readings, 1024, generator=torch.Generator().manual_seed(0)) / readings**0.5
    op = LinearOperator(lambda x: x.flatten(1) @ matrix.T, lambda y: (y @ matrix).view(-1, 1, 32, 32), 0.05, (1, 32, 32))
    y = op.forward(torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(1)))
    wide, inv_eta2, lam = matrix.double(), op.noise_std**-2, 1e-2
    precision = wide.T @ wide * inv_eta2 + lam * torch.eye(1024, dtype=torch.float64)
    error = op.centre(y, inv_eta2, lam).flatten().double() - torch.linalg.solve(precision, wide.T @ y[0].double() * inv_eta2)
    assert float(error @ precision @ error) ** 0.5 < 1e-3 * 1024**0.5  # posterior standard deviations, rms; measured 1e-4
