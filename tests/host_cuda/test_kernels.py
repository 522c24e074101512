"""The CUDA kernels and their Python side on the CPU: against the torch reference in several orders, and free of races."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from dense import fft_law
from inputs import NETWORK_LAW, check_ridge_grad, conv_network, ridge_constants, ridge_steps, single
from step_checks import from_a_row, ids_of, in_double, states

from alps_fast.errors import ArgumentError, BackendError
from alps_fast.ops.conv_grad import CUDA_KERNELS, _cuda_kernel, conv_grad, conv_grad_reference
from alps_fast.ops.langevin_fourier import langevin_fourier
from alps_fast.ops.langevin_pixel import langevin_pixel
from alps_fast.ops.langevin_sense import langevin_sense
from alps_fast.ops.langevin_sense_cg import langevin_sense_cg
from alps_fast.ops.moments import moments
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, LANGEVIN, MIRRORED, NO_NOISE, philox_normal
from alps_fast.ops.ridge_grad import ridge_grad
from alps_fast.ops.ridge_langevin import ridge_langevin, ridge_langevin_reference
from alps_fast.profile import cases
from build import Crashed

IDS = torch.tensor([[0, 0], [7, 3], [2**31, 2**24 - 1 + MIRRORED], [(3 << 32) - 1, 2**23]])
LEVEL = {**cases.LEVEL, "seed": -11}


def bits(x):
    return x.view(torch.int32 if x.element_size() == 4 else torch.int64)


def same(got, want):
    return all(torch.equal(bits(g), bits(w)) for g, w in zip(got, want, strict=True))


def pixel_step(n, b, shape, a, noise):
    x, grad = torch.randn(2, n, *shape)
    diagonal = torch.rand(a[0], *shape[:2], a[1])
    diagonal[:, 0] = 0
    data, ids = torch.randn(b, *shape), ids_of(n, b)
    return {"x": x, "grad": grad, "b": data, "a": diagonal, "ids": ids, "noise": noise, **LEVEL}


def fourier_step(size, channels, is_complex, noise, given=False):
    kernel = torch.randn(2, *size, dtype=torch.float64)
    h = torch.fft.fft2(torch.complex(*kernel) if is_complex else kernel[0], norm="ortho").to(torch.complex64)
    shape = (*size, 2 * channels if is_complex else channels)
    return states(4, 2, shape, torch.float32) | {"h": h, "factor": 1, "is_complex": is_complex, "noise": noise,
                                                 "xi": torch.randn(4, *shape) if given else None}


def lines_step(size, axis, rows, noise, given=False):
    lines, n = size[::-1] if axis == 0 else size
    u = torch.linalg.qr(torch.randn(lines, n, n, dtype=torch.complex128))[0].to(torch.complex64).contiguous()
    eigenvalues = torch.rand(lines, n) * (torch.rand(lines, n) > 0.3)
    return states(rows, 1, (*size, 2), torch.float32) | {"u": u, "eigenvalues": eigenvalues, "axis": axis, "noise": noise,
                                                         "xi": torch.randn(rows, *size, 2) if given else None}


def solver_step(size, coils, noise, given=False, max_iter=2):
    mask = (torch.rand(size) < 0.5).float()
    mask[0, 0] = 1
    return states(4, 2, (*size, 2), torch.float32) | {
        "maps": torch.complex(*torch.randn(2, coils, *size)), "mask": mask, "noise": noise, "tol": 1e-6, "max_iter": max_iter,
        "xi": torch.randn(4, 1 + coils, *size, 2) if given else None}


def last_two(a):
    """The last two of four chains, and their measurement."""
    return a | {k: a[k][2:] for k in ("x", "grad", "ids", "xi") if a[k] is not None} | {"b": a["b"][1:]}


def moments_state(groups, rows, shape, dtype):
    x, keep = 3 + torch.randn(rows, *shape, dtype=dtype), torch.rand(rows) < 0.7
    return {"count": torch.arange(groups) + 2, "mean": torch.randn(groups, *shape, dtype=dtype),
            "m2": torch.rand(groups, *shape, dtype=dtype), "x": x, "keep": keep}


@pytest.mark.parametrize("n", [1, 5, 64, 1021, 4100])
def test_philox_normal(fibers, n):
    arguments = {"ids": IDS, "n": n, "seed": -5, "step": 250, "tag": LANGEVIN}
    want = philox_normal(**arguments, backend="torch")
    assert all(same([fibers("philox_normal", arguments, order)], [want]) for order in (0, 1))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 1), (3, 7, 2), (4, 16, 1), (13, 11, 3), (32, 32, 3)])
def test_langevin_pixel_has_the_bits_of_the_cpu_kernel(fibers, shape):
    """Which tests/test_langevin_pixel.py holds against the reference; skipped where that kernel is not built."""
    pytest.importorskip("alps_fast._cpu")
    for n, b in ((1, 1), (6, 2), (5, 1)):
        for a in {(1, 1), (b, shape[2])}:
            for noise, given in ((NO_NOISE, True), (INDEPENDENT, False), (AVERAGED, False), (AVERAGED, True)):
                arguments = pixel_step(n, b, shape, a, noise)
                arguments["xi"] = torch.randn(arguments["x"].shape) if given else None
                want = langevin_pixel(**arguments, backend="cpu")
                assert same(fibers("langevin_pixel", arguments, n), want)
                torch.testing.assert_close(want, langevin_pixel(**arguments, backend="torch"))


STEPS = {
    "langevin_pixel": lambda noise: [pixel_step(5, 1, (7, 9, 3), (1, 1), noise), pixel_step(5, 1, (4, 4, 2), (1, 2), noise)],
    "langevin_fourier": lambda noise: [fourier_step(size, channels, is_complex, noise) for size, channels, is_complex in
                                       (((6, 10), 3, False), ((6, 10), 1, True), ((64, 64), 1, True), ((64, 64), 1, False))],
    "langevin_sense": lambda noise: [lines_step((5, 8), axis, 5, noise) for axis in (0, 1)],
    "langevin_sense_cg": lambda noise: [solver_step(size, 2, noise) for size in ((6, 5), (64, 4))],
    "ridge_langevin": lambda noise: [ridge_steps(1, 1, (9, 7, 2), 2) | {"count": 2, "noise": noise}]}
OTHER = {"lam": 0.7, "lin": 0.4, "w": 1.1, "inv_eta2": 3.0, "noise_lam": 0.9}


@pytest.mark.parametrize("op", STEPS)
def test_a_graph_serves_levels_that_lie_in_memory(fibers, op):
    """Captured with one level and replayed with another it has the bits of both, as given by number without a graph."""
    for noise in (NO_NOISE, INDEPENDENT, AVERAGED):
        for a in STEPS[op](noise):
            levels = [{name: value for name, value in (a | more).items() if name != "backend"} for more in ({}, OTHER)]
            wanted = [fibers(op, level) for level in levels]
            assert not same(*wanted)
            assert same(fibers(op, from_a_row(levels[1])), wanted[1])
            replayed = fibers(op, [from_a_row(level) for level in levels])
            assert all(same(got, want) for (got, _), want in zip(replayed, wanted, strict=True))


def test_langevin_pixel_does_not_feel_the_order(fibers):
    arguments = pixel_step(6, 2, (40, 40, 3), (1, 1), AVERAGED)
    want = fibers("langevin_pixel", arguments, 0)
    assert all(same(fibers("langevin_pixel", arguments, order), want) for order in (1, 2))


@pytest.mark.parametrize("is_complex, channels", [(False, 1), (False, 3), (True, 1), (True, 2)])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (5, 14), (18, 24), (7, 64), (64, 10), (4, 128), (128, 2), (1, 256), (256, 3),
                                  (3, 320), (320, 1)])
def test_langevin_fourier_keeps_the_fft_law(fibers, size, is_complex, channels):
    """Four chains fill the stand-in's GPU and take a block each, two are done in passes: the same bits. Every length that is
    transformed in registers, as rows and as columns. Measured: a twelfth."""
    for noise, given in ((NO_NOISE, False), (INDEPENDENT, True), (AVERAGED, False)):
        a = fourier_step(size, channels, is_complex, noise, given)
        got, few = fibers("langevin_fourier", a, channels), fibers("langevin_fourier", last_two(a), 3)
        for w, g in zip(langevin_fourier(**in_double(a), backend="torch"), got, strict=True):
            assert (w - g).norm() <= fft_law(size[0] * size[1]) * w.norm()
        assert same(few, [g[2:] for g in got])


@pytest.mark.parametrize("size, factor, dtype", [((11, 6), 1, torch.float32), ((4, 6), 2, torch.float32),
                                                 ((4, 6), 1, torch.float64), ((1, 16384), 1, torch.float32)])
def test_langevin_fourier_leaves_the_rest(fibers, size, factor, dtype):
    a = fourier_step(size, 3, False, AVERAGED) | {"factor": factor}
    assert fibers("langevin_fourier", in_double(a) if dtype == torch.float64 else a) is None


@pytest.mark.parametrize("axis, size, steps", [
    *((axis, size, ((2, NO_NOISE, False), (5, INDEPENDENT, True), (18, AVERAGED, False)))
      for axis in (0, 1) for size in ((1, 1), (7, 4), (5, 9))), (1, (2, 330), ((2, INDEPENDENT, False),))])
def test_langevin_sense_is_the_reference(fibers, axis, size, steps):
    """Blocks of 4, 8 and 16 chains; a line of more pixels than the warps take at once. Law: 5e-7; measured 2.7e-7."""
    for rows, noise, given in steps:
        a = lines_step(size, axis, rows, noise, given)
        got = fibers("langevin_sense", a, rows)
        for w, g in zip(langevin_sense(**in_double(a), backend="torch"), got, strict=True):
            assert (w - g).norm() <= 5e-7 * w.norm()
        if not given:
            two = a | {k: a[k][-2:] for k in ("x", "grad", "ids")}
            assert same(fibers("langevin_sense", two), [g[-2:] for g in got])


@pytest.mark.parametrize("axis, n, noise", [(0, 5, NO_NOISE), (1, 35, AVERAGED)])
def test_langevin_sense_takes_chains_of_any_size(fibers, axis, n, noise):
    """Far beyond what float16 has, nothing, infinities and NaN, side by side: each chain has the bits that it has alone."""
    sizes = torch.tensor([1e-30, 1e30, 0, 1e-37, 1e36, 1, 1, 1e5, 1])
    a = lines_step((2, n) if axis else (n, 2), axis, len(sizes), noise)
    a |= {k: a[k].expand_as(a["x"]) * sizes[:, None, None, None] for k in ("x", "grad", "b")}
    a["x"][5, 0, 0, 0], a["x"][6, 0, 0, 1] = torch.inf, torch.nan
    got = fibers("langevin_sense", a, 1)
    for w, g in zip(langevin_sense(**in_double(a), backend="torch"), got, strict=True):
        assert torch.equal(g.isfinite(), w.isfinite())
        whole = w.flatten(1).isfinite().all(1)
        assert whole.sum() == 7 and all((x - y).norm() <= 5e-7 * y.norm() for x, y in zip(g[whole], w[whole], strict=True))
    for k in range(len(sizes)):
        assert same(fibers("langevin_sense", a | {name: a[name][k:k + 1] for name in ("x", "grad", "b", "ids")}, k),
                    [g[k:k + 1] for g in got])


@pytest.mark.filterwarnings("ignore:conjugate gradients")
@pytest.mark.parametrize("size, coils", [((2, 1), 1), ((5, 14), 3), ((18, 21), 2), ((3, 64), 3), ((64, 18), 1), ((1, 128), 9),
                                         ((128, 3), 2), ((5, 256), 2), ((256, 1), 1), ((3, 320), 7), ((320, 2), 1)])
def test_langevin_sense_cg_holds_the_iterate_of_the_reference(fibers, size, coils):
    """After two iterations, where rounding has not grown yet. Law: 1e-6; measured 2e-7. Every length that has a kernel of its
    own, as rows and as columns, coils that come in several rounds among them."""
    for noise, given in ((NO_NOISE, False), (INDEPENDENT, True), (AVERAGED, False)):
        a = solver_step(size, coils, noise, given)
        got = fibers("langevin_sense_cg", a, coils)
        for w, g in zip(langevin_sense_cg(**in_double(a), backend="torch"), got, strict=True):
            assert (w - g).norm() <= 1e-6 * w.norm()
        if noise == AVERAGED:
            assert same(fibers("langevin_sense_cg", last_two(a), 3), [g[2:] for g in got])


def test_langevin_sense_cg_stops_each_system_by_itself(fibers):
    """A chain of zeros has nothing to solve, one of NaN stays alone; at the tolerance the others are as the reference's."""
    a = solver_step((3, 4), 2, INDEPENDENT, given=True, max_iter=100)
    for name in ("x", "grad", "b", "xi"):
        a[name][0] = 0
    a["x"][1] = torch.nan
    mean_after = fibers("langevin_sense_cg", a)
    for w, g in zip(langevin_sense_cg(**in_double(a) | {"tol": 1e-10}, backend="torch"), mean_after, strict=True):
        assert not g[0].any() and g[1].isnan().all() and (w[2:] - g[2:]).norm() <= 1e-6 * w[2:].norm()


@pytest.mark.filterwarnings("ignore:conjugate gradients")
@pytest.mark.parametrize("noise, max_iter, suffices", [(AVERAGED, 5, False), (INDEPENDENT, 100, True), (INDEPENDENT, 13, False),
                                                       (NO_NOISE, 16, False)])
def test_langevin_sense_cg_is_the_same_in_a_graph(fibers, noise, max_iter, suffices):
    """A loop on the device: systems of zeros and of NaN, and those that stop at different windows, or not at all.

    Without noise nothing is to be solved in the first replay and the last. What once did not suffice stays noted.
    """
    calls = [solver_step((3, 4), 2, noise, max_iter=max_iter) | {"b": torch.randn(4, 3, 4, 2)}]
    calls += [calls[0] | {k: torch.randn_like(calls[0][k]) for k in ("x", "grad", "b")}
              | {"ids": torch.stack([torch.arange(4) + k, torch.arange(4) // 2 + k], 1)}
              for k in (1, 9)]
    for call in calls:
        for name in ("x", "grad", "b"):
            call[name][0] = 0
            call[name][3] *= 1e-7
        call["x"][1] = torch.nan
    if suffices:  # the last chain is where it ends after one window, the third is not
        there = [fibers("langevin_sense_cg", calls[0] | {"max_iter": m})[1] for m in (8, max_iter)]
        assert torch.equal(there[0][3], there[1][3]) and not torch.equal(there[0][2], there[1][2])
    if noise == NO_NOISE:
        nothing = calls[0] | {k: torch.zeros_like(calls[0][k]) for k in ("x", "grad", "b")}
        calls = [nothing, calls[0], nothing]
    noted = [0 if suffices or (noise == NO_NOISE and not k) else max_iter for k in range(3)]
    for call, want, (got, seen) in zip(calls, noted, fibers("langevin_sense_cg", calls, 5), strict=True):
        assert same(got, fibers("langevin_sense_cg", call, 6)) and seen == want


def test_langevin_sense_cg_leaves_other_sizes(fibers):
    assert fibers("langevin_sense_cg", solver_step((11, 3), 2, AVERAGED, max_iter=100)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (3,), (13, 11, 3), (24, 24)])
def test_moments(fibers, shape, dtype):
    for groups, rows in ((1, 1), (1, 17), (3, 21), (5, 5)):
        arguments = moments_state(groups, rows, shape, dtype)
        want = moments(**arguments, backend="torch")
        arguments["x"][~arguments["keep"]] = torch.nan
        assert same(fibers("moments", arguments, rows), want)


def ridge_arguments(images, channels, shape, bank, each=False):
    x = torch.randn(images, channels, *shape) * torch.tensor([1.0, 0.01, 30.0]).repeat(images // 3)[:, None, None, None]
    names = ("filters", "weights", "r", "q", "mu")
    return {"x": x, **dict(zip(names, ridge_constants(*bank, images if each else 1, torch.float32), strict=True))}


# (scales, filters, side, potentials); the last two are larger than a tile and than what a block makes the pyramid of, and a strip
# wide, so that a tile is all that its memory holds
RIDGES = [((1, 1), 1, (2, 4, 5, 3)), ((2, 3), 2, (3, 5, 7, 1)), ((7, 16), 1, (2, 13, 3, 2)), ((17, 15), 2, (1, 1, 1, 1)),
          ((33, 41), 1, (3, 5, 5, 2)), ((43, 130), 2, (3, 5, 7, 2)), ((331, 3), 1, (2, 2, 7, 1))]


@pytest.mark.parametrize("shape, channels, bank", RIDGES)
def test_ridge_grad_is_the_reference(fibers, shape, channels, bank):
    """Law: inputs.check_ridge_grad."""
    a = ridge_arguments(3 if shape[0] > 16 else 48, channels, shape, bank, each=shape[0] % 2 > 0)
    got = fibers("ridge_grad", a, 1)
    check_ridge_grad(a["x"], tuple(a.values())[1:], got)
    if shape[0] > 16:
        alone, one = fibers("ridge_grad", a | {"want_value": False}, 2), {k: a[k][..., 1:2, :] for k in ("weights", "r")}
        assert same(alone[:1], got[:1]) and alone[1].shape == (0,)
        if bank[0] > 1:  # tables of each image
            alone = fibers("ridge_grad", a | one | {"x": a["x"][1:2], "q": a["q"][:, 1:2]})
            assert same(alone, [got[0][1:2], got[1][1:2]])


def test_a_broken_image_stays_alone(fibers):
    a = ridge_arguments(3, 1, (9, 10), (2, 4, 5, 2))
    want = fibers("ridge_grad", a)
    a["x"][1, 0, 3, 4] = torch.nan
    for w, g in zip(want, fibers("ridge_grad", a), strict=True):
        assert torch.equal(w[[0, 2]], g[[0, 2]]) and not g[1].isfinite().all()


@pytest.mark.parametrize("channels, bank", [(1, (1, 2, 9, 1)), (3, (1, 2, 5, 1))])
def test_ridges_without_a_kernel_are_left(fibers, channels, bank):
    assert fibers("ridge_grad", ridge_arguments(3, channels, (9, 8), bank)) is None


@pytest.mark.parametrize("shape, channels, noise", [
    ((1, 1, 1), 1, NO_NOISE), ((9, 7, 3), 1, AVERAGED), ((33, 31, 2), 2, AVERAGED), ((12, 10, 4), 2, INDEPENDENT),
    ((41, 130, 1), 1, INDEPENDENT), ((8, 12, 1), 1, AVERAGED)])
def test_ridge_langevin_is_the_reference(fibers, shape, channels, noise):
    """Law: twice what torch loses against float64, and two roundings more, as of the gradient. The bits are those of
    the two ops whose kernels it launches."""
    n, b = (4, 2) if shape[2] > 2 else (1, 1)
    a = ridge_steps(n, b, shape, channels, (b, shape[2] if n == 4 else 1), n * shape[2] // channels) | {"noise": noise}
    del a["backend"]
    given = {"xi": torch.randn(a["count"], *a["x"].shape)} if noise == INDEPENDENT else {}
    before, got = a["x"].clone(), fibers("ridge_langevin", a | given, 3)
    assert torch.equal(a["x"], before)
    exact, torchs = ridge_langevin_reference(**in_double(a | given)), ridge_langevin_reference(**a, **given)
    for g, e, t in zip(got, exact, torchs, strict=True):
        assert (g - e).norm() <= 2 * (t - e).norm() + 2 * 2**-24 * e.norm()
    x, energy = a["x"], {"want_value": False} | {name: a[name] for name in ("filters", "weights", "r", "q", "mu")}
    step = {name: v for name, v in a.items() if name not in ("filters", "weights", "r", "q", "mu", "channels", "count")}
    for k in range(a["count"]):
        images = x.movedim(-1, 1)
        grad, _ = fibers("ridge_grad", energy | {"x": images.reshape(-1, channels, *shape[:2])}, 4)
        now = {"x": x, "grad": grad.view(images.shape).movedim(1, -1).contiguous(), "step": a["step"] + k}
        x, mean = fibers("langevin_pixel", step | now | ({"xi": given["xi"][k]} if given else {}), 4)
    assert same(got, (x, mean))
    if n == 4:  # a chain is bitwise what it is alone
        images = slice(2 * shape[2] // channels, 3 * shape[2] // channels)
        tables = {"weights": a["weights"][:, :, images], "r": a["r"][:, :, images], "q": a["q"][:, images]}
        one = {"x": a["x"][2:3], "b": a["b"][1:], "a": a["a"][1:], "ids": a["ids"][2:3], **tables}
        xi = {"xi": given["xi"][:, 2:3]} if given else {}
        assert same(fibers("ridge_langevin", a | one | xi), [v[2:3] for v in got])


def test_the_noise_of_ridge_langevin_has_the_bits_of_the_stream(fibers):
    """Where nothing pulls at the state, a step is its noise: x⁺ = ξ for λ = noise_λ = 1 and b = x = w = 0."""
    for shape in ((5, 7, 1), (4, 3, 2), (3, 3, 3)):
        a = ridge_steps(2, 1, shape, 1) | {"lam": 1.0, "noise_lam": 1.0, "w": 0.0, "lin": 0.0, "inv_eta2": 0.0, "count": 2}
        a |= {"b": torch.zeros(1, *shape)}
        del a["backend"]
        want = [philox_normal(a["ids"], torch.Size(shape).numel(), a["seed"], k, LANGEVIN).view(2, *shape) for k in (5, 6)]
        assert same(fibers("ridge_langevin", a)[:1], [(want[0] + want[1]) * torch.tensor(0.5**0.5)])


def network_arguments(images, channels, blocks, size, levels=1, width=64):
    """In float64, as conv_grad_reference takes them, and what the CUDA kernel takes."""
    weights, *vectors, _ = conv_network(channels, width, blocks)
    vectors = [torch.cat([v * 0.9**k for k in range(levels)], 1) for v in vectors]
    exact = torch.randn(images, channels, *size, dtype=torch.float64), weights, *vectors, blocks
    names = "weights", "scale", "shift", "coefficients", "blocks"
    return exact, {"x": exact[0].float(), **dict(zip(names, single(exact[1:]), strict=True)), "precision": "fast"}


# several tiles at every scale, of which few are whole, two images at once where the cache is 48 KB; every scale; four channels
@pytest.mark.parametrize("images, channels, blocks, size, levels", [
    (3, 3, (1, 0, 1), (22, 26), 3), (2, 1, (0, 1, 0), (1, 2), 1), (2, 2, (1, 1, 1), (9, 13), 2), (1, 4, (1, 0, 0), (72, 5), 1)])
def test_conv_grad_is_the_reference(fibers, images, channels, blocks, size, levels):
    """Law: that of the CPU kernel; measured 7e-3. Products by warps and by warpgroups are the same here, and in the same order.
    With one multiprocessor each team has several tiles in turn; with more an image alone, or beside a broken one, has the same
    bits."""
    exact, a = network_arguments(images, channels, blocks, size, levels)
    last = {name: a[name][..., -1:, :] for name in ("scale", "shift")} | {"coefficients": a["coefficients"][:, -1:]}
    one, broken = a | {"x": a["x"][-1:]} | (last if levels > 1 else {}), a | {"x": a["x"].clone()}
    broken["x"][0, 0, -1, -1] = torch.nan
    by_kernel = []
    for kernel in CUDA_KERNELS:
        got = fibers("conv_grad", a, 1, ALPS_FAST_CONV_GRAD=kernel, HOST_CUDA_MULTIPROCESSORS="1")
        for g, e in zip(got, conv_grad_reference(*exact), strict=True):
            assert (g - e).norm() / e.norm() < NETWORK_LAW["fast"]
        assert same(fibers("conv_grad", one, 2, ALPS_FAST_CONV_GRAD=kernel), [v[-1:] for v in got])
        by_kernel.append(got)
    beside = fibers("conv_grad", broken, 2, ALPS_FAST_CONV_GRAD=kernel)
    assert same([v[1:] for v in beside], [v[1:] for v in got]) and all(v[0].isnan().any() for v in beside)
    (grad, value), (other_grad, other_value) = by_kernel
    assert same([grad], [other_grad])
    torch.testing.assert_close(value, other_value, rtol=2e-7, atol=0)  # summed in another order in double precision


# every layer, partial tiles and levels of their own; four tiles, of which one of three teams has two
@pytest.mark.parametrize("images, channels, blocks, size, levels", [(2, 2, (1, 0, 0), (9, 19), 2), (1, 1, (0, 0, 1), (8, 56), 1)])
def test_conv_grad_high_is_the_reference(fibers, images, channels, blocks, size, levels):
    """Law: that of the CPU kernel; measured 6e-7, where float32 has 4e-7 and the CPU kernel 7e-7: sums on tensor cores are cut
    off here. An image beside one beyond float16's range, which is NaN, has the bits that it has alone. Without the barrier after
    which the next tile may come, numbers are wrong here: threads of the OS take twenty seconds for this.
    """
    exact, a = network_arguments(images, channels, blocks, size, levels)
    a["precision"] = "high"
    if images > 1:
        a["x"][0, 0, 0, 0] = 1e7
    got = fibers("conv_grad", a, 1, HOST_CUDA_MULTIPROCESSORS="1")
    assert images == 1 or all(v[0].isnan().any() for v in got)
    for g, e in zip(got, conv_grad_reference(*exact), strict=True):
        assert (g[-1] - e[-1]).norm() / e[-1].norm() < NETWORK_LAW["high"]
    if images > 1:
        last = {name: a[name][..., -1:, :] for name in ("scale", "shift")} | {"coefficients": a["coefficients"][:, -1:]}
        assert same(fibers("conv_grad", a | last | {"x": a["x"][-1:]}, 2), [v[-1:] for v in got])


@pytest.mark.parametrize("unit", [2.0**-40, 2.0**40])
def test_conv_grad_high_in_other_units_has_the_same_bits(fibers, unit):
    """Of images, for which c_out and 1 / c_in are as large: what the backward pass begins with would have no float16."""
    _, a = network_arguments(1, 1, (0, 0, 1), (3, 4))
    a["precision"] = "high"
    grad, value = fibers("conv_grad", a)
    other = a | {"x": unit * a["x"], "coefficients": a["coefficients"] * torch.tensor([[1], [unit], [1 / unit]])}
    assert same(fibers("conv_grad", other), [unit * grad, unit**2 * value])


def test_a_conv_grad_kernel_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setenv("ALPS_FAST_CONV_GRAD", "warpgroups")
    monkeypatch.setattr("alps_fast._cuda", SimpleNamespace(conv_has_warpgroups=lambda: False), raising=False)
    with pytest.raises(BackendError, match="^ALPS_FAST_CONV_GRAD: got 'warpgroups'; wanted 'warps' on this GPU"):
        _cuda_kernel()
    monkeypatch.setenv("ALPS_FAST_CONV_GRAD", "blocks")
    with pytest.raises(ArgumentError, match="^ALPS_FAST_CONV_GRAD: got 'blocks'"):
        _cuda_kernel()
    monkeypatch.delenv("ALPS_FAST_CONV_GRAD")
    assert _cuda_kernel() == "warps"


@pytest.mark.parametrize("size, width, dtype, precision, kernel", [
    ((8, 8), 32, torch.float32, "fast", "warps"), ((8, 8), 64, torch.float64, "fast", "warps"),
    ((8, 8), 32, torch.float32, "high", "warpgroups"), ((8, 8), 64, torch.float64, "high", "warpgroups"),
    ((8, 8), 64, torch.float32, "high", "warps"), ((1, 1 << 23 | 1), 64, torch.float32, "fast", "warps"),
    ((1, 1 << 23 | 1), 64, torch.float32, "high", "warpgroups")])
def test_networks_without_a_kernel_are_left(fibers, size, width, dtype, precision, kernel):
    exact, a = network_arguments(1, 1, (0, 0, 1), size, width=width)
    a = {**a, **dict(zip(a, exact, strict=False))} if dtype == torch.float64 else a
    a["precision"] = precision
    assert fibers("conv_grad", a, ALPS_FAST_CONV_GRAD=kernel) is None


@pytest.mark.filterwarnings("ignore:conjugate gradients")
@pytest.mark.parametrize("size", [(15, 4), (18, 5), (3, 64), (64, 2), (2, 320)])
def test_transforms_have_no_races(threads_of_the_os, size):
    """In shared memory, and in registers by parts of a warp and by more than a warp."""
    for is_complex in (False, True):
        arguments = fourier_step(size, 1, is_complex, INDEPENDENT)
        for part in (arguments, last_two(arguments)):
            torch.testing.assert_close(threads_of_the_os("langevin_fourier", part), langevin_fourier(**part, backend="torch"),
                                       rtol=1e-4, atol=1e-5)
    arguments = last_two(solver_step(size, 2, INDEPENDENT, max_iter=2))
    torch.testing.assert_close(threads_of_the_os("langevin_sense_cg", arguments), langevin_sense_cg(**arguments, backend="torch"),
                               rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:conjugate gradients")
def test_no_races(threads_of_the_os):
    arguments = {"ids": IDS[:2], "n": 1030, "seed": 1, "step": 2, "tag": LANGEVIN}
    assert same([threads_of_the_os("philox_normal", arguments)], [philox_normal(**arguments, backend="torch")])
    arguments = pixel_step(5, 1, (7, 16, 3), (1, 1), AVERAGED)
    torch.testing.assert_close(threads_of_the_os("langevin_pixel", arguments), langevin_pixel(**arguments, backend="torch"))
    arguments = ridge_steps(1, 1, (29, 130, 1), 1) | {"count": 2}  # three tiles
    del arguments["backend"]
    torch.testing.assert_close(threads_of_the_os("ridge_langevin", arguments), ridge_langevin(**arguments, backend="torch"))
    arguments = ridge_arguments(3, 2, (9, 10), (2, 5, 5, 2))
    torch.testing.assert_close(threads_of_the_os("ridge_grad", arguments), ridge_grad(**arguments, backend="torch"))
    arguments = lines_step((7, 3), 0, 3, INDEPENDENT)
    torch.testing.assert_close(threads_of_the_os("langevin_sense", arguments), langevin_sense(**arguments, backend="torch"),
                               rtol=1e-4, atol=1e-5)
    _, arguments = network_arguments(1, 1, (1, 0, 0), (8, 72))  # a team has two tiles
    for kernel in CUDA_KERNELS:
        got = threads_of_the_os("conv_grad", arguments, ALPS_FAST_CONV_GRAD=kernel, HOST_CUDA_MULTIPROCESSORS="1")
        for g, w in zip(got, conv_grad(**arguments, backend="torch"), strict=True):
            assert (g - w).norm() <= 2 * NETWORK_LAW["fast"] * w.norm()  # both multiply bfloat16
    arguments = moments_state(2, 6, (9,), torch.float32)
    assert same(threads_of_the_os("moments", arguments), moments(**arguments, backend="torch"))


def test_a_buffer_that_is_too_small_stops_the_run(fibers):
    arguments = pixel_step(2, 1, (8, 8, 1), (1, 1), NO_NOISE)
    with pytest.raises(Crashed, match="heap-buffer-overflow"):
        fibers("langevin_pixel", arguments | {"grad": arguments["grad"][:1]})
    assert fibers("langevin_pixel", arguments)[0].isfinite().all()
