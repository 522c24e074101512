"""What nvcc makes of csrc/cuda, run on the CPU instruction by instruction: bits, addresses, and the memory it touches."""

from __future__ import annotations

import shutil
import struct

import numpy as np
import pytest
import torch
from dense import fft_law
from step_checks import in_double, states
from test_conv_grad import LAW, make, single
from test_ridge_grad import check_against_torch, constants

from alps_fast.ops.conv_grad import conv_grad_reference
from alps_fast.ops.langevin_fourier import langevin_fourier
from alps_fast.ops.langevin_pixel import langevin_pixel
from alps_fast.ops.langevin_sense import langevin_sense, langevin_sense_cg, sense_spectrum
from alps_fast.ops.moments import moments
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, LANGEVIN, NO_NOISE, philox_normal
from alps_fast.ops.ridge_langevin import ridge_langevin
from alps_fast.profile import cuda

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the PATH")

LEVEL = {"lam": 2.0, "lin": 1.5, "w": 0.7, "inv_eta2": 9.0, "noise_lam": 3.0, "seed": 11, "step": 5}


@pytest.fixture
def ptx():
    return cuda.module


@pytest.mark.parametrize("n", [5, 1021, 1024])
def test_philox_normal_has_the_bits_of_the_reference(n):
    arguments = torch.tensor([0, 7, 2**32 - 1]), n, 11, 5, LANGEVIN
    (out,), _ = cuda.philox_normal(*arguments)
    assert torch.equal(out.view(torch.int32), philox_normal(*arguments, "torch").view(torch.int32))


def pixel_step(rows, shape):
    """Of one measurement, `a` of a pixel."""
    x, grad = torch.randn(2, rows, *shape)
    return {"x": x.clone(), "grad": grad.clone(), "b": torch.randn(1, *shape), "a": torch.rand(1, *shape[:2], 1),
            "chains": torch.arange(rows) + 3 + (2 << 32), **LEVEL}


@pytest.mark.parametrize("noise", [NO_NOISE, INDEPENDENT, AVERAGED])
@pytest.mark.parametrize("rows, shape", [(1, (1, 3, 1)), (5, (13, 11, 3)), (4, (16, 16, 1)), (3, (7, 6, 2))])
def test_langevin_pixel_is_the_reference(rows, shape, noise):
    a = pixel_step(rows, shape)
    got, _ = cuda.langevin_pixel(**a, noise=noise)
    torch.testing.assert_close(got, langevin_pixel(**a, noise=noise, backend="torch"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels, size", [((1, 3), (5, 3)), ((2, 1), (5, 3)), ((2, 3), (4, 4))])
def test_langevin_pixel_takes_a_of_each_channel_and_measurement_and_given_noise(channels, size):
    """`channels`: a's measurements and channels, of two measurements of five chains and three channels."""
    x, grad, xi = torch.randn(3, 10, *size, 3)
    a = {"x": x, "grad": grad, "xi": xi, "b": torch.randn(2, *size, 3), "a": torch.rand(channels[0], *size, channels[1]),
         "chains": torch.arange(10), "noise": AVERAGED, **LEVEL}
    got, _ = cuda.langevin_pixel(**a)
    torch.testing.assert_close(got, langevin_pixel(**a, backend="torch"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows, channels", [(1, 3), (8, 3), (8, 1), (8, 2)])
def test_langevin_pixel_touches_what_it_must(rows, channels):
    """Sectors of 32 bytes: x, grad, x⁺, m of each chain, b and a once; at most 1.2 times that, measured 1.07 to 1.09."""
    _, counts = cuda.langevin_pixel(**pixel_step(rows, (32, 32, channels)), noise=AVERAGED)
    n = 32 * 32 * channels
    floor = 4 * (4 * rows * n + n + n // channels) / 32
    assert (counts["global_load_sectors"] + counts["global_store_sectors"]) / floor <= 1.2


@pytest.mark.parametrize("dtype, shape", [(torch.float32, (5, 7)), (torch.float32, (24, 24)), (torch.float64, (5, 7)),
                                          (torch.float64, (24, 24))])
def test_moments_has_the_bits_of_the_reference(dtype, shape):
    x, keep = 3 + torch.randn(15, *shape, dtype=dtype), torch.rand(15) < 0.7
    state = torch.arange(3) + 2, torch.randn(3, *shape, dtype=dtype), torch.rand(3, *shape, dtype=dtype)
    want = moments(*state, x, keep, "torch")
    x[~keep] = torch.nan
    got, _ = cuda.moments(*state, x, keep)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


def test_moments_touches_what_it_must():
    """Sectors of 32 bytes: x, mean and M2 read, mean and M2 written once; at most 1.2 times that, measured 1.06."""
    n = 32 * 32
    state = torch.tensor([2]), torch.randn(1, n), torch.rand(1, n)
    _, counts = cuda.moments(*state, torch.randn(16, n), torch.ones(16, dtype=torch.bool))
    assert (counts["global_load_sectors"] + counts["global_store_sectors"]) / (4 * n * (16 + 4) / 32) <= 1.2
    assert counts["global_store_sectors"] == 4 * n * 2 / 32 + 1  # and the count


@pytest.mark.parametrize("channels, shape, bank", [(1, (6, 7), (2, 5, 3, 2)), (2, (5, 9), (1, 3, 7, 1))])
def test_ridge_grad_is_the_reference(channels, shape, bank):
    x, args = torch.randn(3, channels, *shape), constants(*bank, 3, torch.float32)
    check_against_torch(x, args, cuda.ridge_grad(x, *args)[0])


@pytest.mark.parametrize("shape, room", [((5, 7, 2), True), ((3, 4, 3), False)])
def test_ridge_langevin_is_the_reference(shape, room):
    """Two steps of two chains of one measurement, a state of several one-channel images with tables of their own; the law is that
    of tests/host_cuda.
    """
    arguments = (torch.randn(2, *shape), torch.randn(1, *shape), torch.rand(1, *shape[:2], 1), torch.arange(2) + 3,
                 *constants(1, 3, 5, 2, 2 * shape[2], torch.float32))
    steps = {**LEVEL, "channels": 1, "noise": AVERAGED, "count": 2}
    got, _ = cuda.ridge_langevin(*arguments, **steps, room=room)
    exact, torchs = (ridge_langevin(*v, **steps, backend="torch") for v in (in_double(arguments), arguments))
    for g, e, t in zip(got, exact, torchs, strict=True):
        assert (g - e).norm() <= 2 * (t - e).norm() + 2 * 2**-24 * e.norm()


@pytest.mark.parametrize("shape", [(32, 32, 1), (16, 32, 2)])
def test_ridge_langevin_touches_what_it_must(shape):
    """x, b and a read, x⁺ and m written, the filters once; at most 1.2 times that, measured 1.04."""
    a = torch.rand(1, *shape[:2], 1)
    arguments = torch.randn(1, *shape), torch.randn(1, *shape), a, torch.arange(1), *constants(1, 2, 3, 1, dtype=torch.float32)
    _, count = cuda.ridge_langevin(*arguments, **LEVEL, channels=shape[2], noise=AVERAGED, count=1, room=True)
    floor = 4 * (4 * torch.Size(shape).numel() + a.numel() + 2 * 3 * 3) / 32
    assert (count["global_load_sectors"] + count["global_store_sectors"]) / floor <= 1.2


def test_ridge_langevin_keeps_an_image_of_several_between_steps():
    """Three images of a state: x⁺ and m are written once, and a later step reads b, of which an image's numbers are in every
    sector, and a, four times what it must. At most 1.2 times that, measured 1.12 with the tables of the energy."""
    shape, n = (16, 32, 3), 16 * 32
    arguments = (torch.randn(1, *shape), torch.randn(1, *shape), torch.rand(1, *shape[:2], 1), torch.arange(1),
                 *constants(1, 2, 3, 1, dtype=torch.float32))
    one, three = (cuda.ridge_langevin(*arguments, **LEVEL, channels=1, noise=INDEPENDENT, count=k, room=True)[1] for k in (1, 3))
    assert one["global_store_sectors"] == three["global_store_sectors"] == 3 * 4 * 2 * 3 * n / 32
    assert (three["global_load_sectors"] - one["global_load_sectors"]) / 2 <= 1.2 * 3 * 4 * (3 * n + 4 * n) / 32


@pytest.mark.parametrize("channels, blocks, size, warps", [(2, (0, 0, 1), (5, 7), 4), (1, (1, 0, 0), (7, 13), 8)])
def test_conv_grad_is_the_reference(channels, blocks, size, warps):
    """Law: that of the CPU kernel; measured 5e-3. With four warps two images, of a level each."""
    weights, scale, shift, coefficients, blocks = make(channels, 64, blocks)
    each = torch.tensor([1, 0.7], dtype=torch.float64)[:2 if warps == 4 else 1]
    args = weights, each[:, None] * scale, each[:, None] * shift, each * coefficients, blocks
    x = torch.randn(len(each), channels, *size, dtype=torch.float64)
    got, count = cuda.conv_grad(x.float(), *single(args), warps=warps)
    for g, e in zip(got, conv_grad_reference(x, *args), strict=True):
        for image, exact in zip(g, e, strict=True):
            assert (image - exact).norm() / exact.norm() < LAW["fast"]
    assert count["shared_load_conflicts"] <= 0.1 * count["shared_load_wavefronts"]  # all of pixels that are two apart


def step_of(a, between, numbers, more=b""):
    """FourierStep, SenseStep or SenseCgStep (csrc/common/arguments.h) of an op's arguments, with x⁺ and m that it will write."""
    after, mean = (np.full(a["x"].shape, np.nan, np.float32) for _ in range(2))
    arrays = [np.ascontiguousarray(a[k].numpy()) for k in ("x", "grad", "b", *between)]
    numbers += struct.pack("5fi", *(a[k] for k in ("lam", "lin", "w", "inv_eta2", "noise_lam")), a["noise"])
    numbers += b"\0" * (-len(numbers) % 8) + struct.pack("QI4x", a["seed"], a["step"]) + more
    return (*arrays, bytes(8), a["chains"].numpy(), after, mean, numbers), (after, mean)


def stream_of(a):
    return struct.pack("4I", a["seed"], 0, a["step"], LANGEVIN)


def transform_of(n):
    """Transform of csrc/cuda/fft.cuh, and the bytes of its tables."""
    radices = {1: (), 2: (2,), 5: (5,), 6: (3, 2), 14: (7, 2), 32: (4, 8), 64: (8, 8)}[n]
    return struct.pack("2IQ", n, len(radices), sum(r << 4 * i for i, r in enumerate(radices))), (10 * n + 15) // 16 * 16


def run_fourier(ptx, size, is_complex, whole, noise):
    """Errors of x⁺ and m over the law, and what each kernel did; one image channel, one chain."""
    (height, width), room = size, 16
    kernel = torch.complex(torch.randn(size, dtype=torch.float64), torch.randn(size, dtype=torch.float64) * is_complex)
    h = torch.fft.fft2(kernel, norm="ortho").to(torch.complex64)
    a = states(1, 1, (*size, 1 + is_complex), torch.float32) | {"h": h, "noise": noise}
    step, out = step_of(a, ("h",), struct.pack("5q?3x", 1, 1, height, width, 1 + is_complex, is_complex))
    (along_w, table_w), (along_h, table_h) = transform_of(width), transform_of(height)
    row = 8 * (width - 1 + (width - 1) // 16 + 1 | 1)
    workspace = np.full((1 + is_complex, height, width, 2), np.nan, np.float32)

    def run(kernel, tiles, room, cells, shared):
        layout = along_w + along_h + stream_of(a) + struct.pack(
            "3I2f?3x", 1, tiles, room, (a["inv_eta2"] + a["noise_lam"]) ** 0.5, 1 / (height * width), height * width % 4 == 0)
        threads = max(32, min(-(-(cells // 8) // 32) * 32, 448))
        more = [] if whole else [workspace]
        compiled = ptx("langevin_fourier").kernel(f"langevin_fourier_{kernel}")
        return compiled.launch((tiles,), (threads,), [step, layout, *more], shared)

    if whole:
        counts = [run("whole", 1, height, height * width, (height * row + 15) // 16 * 16 + table_w + table_h)]
    else:
        rows, columns = -(-height // room), -(-width // room) if is_complex else -(-(width // 2 + 1) // (room // 2))
        counts = [run("rows", rows, room, room * width, room * row + table_w),
                  run("columns", columns, room, room * height, 8 * room * height + table_h),
                  run("back", rows, room, room * width, room * row + table_w)]
    want = langevin_fourier(**in_double(a), factor=1, is_complex=is_complex, backend="torch")
    law = fft_law(height * width)
    return [float((torch.from_numpy(g) - w).norm() / w.norm()) / law for g, w in zip(out, want, strict=True)], counts


@pytest.mark.parametrize("size, is_complex, whole, noise", [
    ((5, 14), False, True, AVERAGED), ((14, 5), True, True, INDEPENDENT), ((6, 5), True, False, AVERAGED),
    ((5, 6), False, False, NO_NOISE)])
def test_langevin_fourier_keeps_the_fft_law(ptx, size, is_complex, whole, noise):
    assert max(run_fourier(ptx, size, is_complex, whole, noise)[0]) <= 1  # worst measured 0.06


@pytest.mark.parametrize("whole", [True, False])
def test_langevin_fourier_touches_what_it_must(ptx, whole):
    """The transfer's half and every state once, measured 1.04 and 1.08; one in eight passes to shared memory waits for a bank."""
    _, counts = run_fourier(ptx, (32, 64), False, whole, INDEPENDENT)
    total = sum(counts[1:], counts[0])
    n = 32 * 64
    floor = 4 * (5 * n + n + (0 if whole else 8 * n)) / 32
    assert (total["global_load_sectors"] + total["global_store_sectors"]) / floor <= 1.2
    waves = [sum(total[f"shared_{what}_{kind}"] for what in ("load", "store")) for kind in ("conflicts", "wavefronts")]
    assert waves[0] / waves[1] <= 0.15


def run_lines(ptx, size, axis, rows, noise):
    """x⁺ and m of the compiled kernel, those of the reference, and what the kernel did."""
    lines, n = size[::-1] if axis == 0 else size
    chains = 16 if rows > 8 else 8 if rows > 4 else 4
    u = torch.linalg.qr(torch.randn(lines, n, n, dtype=torch.complex128))[0].to(torch.complex64).contiguous()
    a = states(rows, 1, (*size, 2), torch.float32) | {"u": u, "eigenvalues": torch.rand(lines, n), "noise": noise}
    step, out = step_of(a, ("u", "eigenvalues"), struct.pack("4qi", rows, 1, lines, n, axis))
    kernel = ptx("langevin_sense").kernel(f"langevin_sense_kernelILi{chains}ELb{int(noise != NO_NOISE)}E")
    at = stream_of(a) + struct.pack("I??2x", 1, True, n % 2 == 0)
    counts = kernel.launch((lines,), (-(-n // 32) * 32,), [step, at], 8 * n * (2 * chains + 2))
    return [torch.from_numpy(v) for v in out], langevin_sense(**in_double(a), axis=axis, backend="torch"), counts


@pytest.mark.parametrize("size, axis, rows, noise", [((5, 3), 0, 3, AVERAGED), ((3, 6), 1, 7, INDEPENDENT),
                                                     ((2, 35), 1, 2, NO_NOISE), ((2, 3), 0, 11, AVERAGED)])
def test_langevin_sense_is_the_reference(ptx, size, axis, rows, noise):
    got, want, _ = run_lines(ptx, size, axis, rows, noise)
    assert all((g - w).norm() <= 1e-6 * w.norm() for g, w in zip(got, want, strict=True))


@pytest.mark.parametrize("size, axis", [((2, 32), 1), ((32, 4), 0)])
def test_langevin_sense_reads_each_number_of_u_twice(ptx, size, axis):
    """Whatever the number of chains; x, grad, b, x⁺ and m of each once, of which a line along axis 0 meets a pixel of the four
    in a sector. At most 1.2 times the sectors of that, measured 1.05 and 1.02; conflicts 3 %."""
    got, want, counts = run_lines(ptx, size, axis, 8, INDEPENDENT)
    assert all((g - w).norm() <= 1e-6 * w.norm() for g, w in zip(got, want, strict=True))
    lines, n = min(size), 32
    floor = 4 * lines * (2 * 2 * n * n + 8 * 5 * 2 * n * (1 if axis else 4)) / 32
    assert (counts["global_load_sectors"] + counts["global_store_sectors"]) / floor <= 1.2
    assert counts["shared_load_conflicts"] + counts["shared_store_conflicts"] <= 0.1 * counts["shared_load_wavefronts"]


@pytest.mark.filterwarnings("ignore:conjugate gradients")
def test_langevin_sense_cg_holds_the_iterate_of_the_reference(ptx):
    """Every kernel once or twice, as langevin_sense_cg_iterate launches them: one chain's two systems after one iteration."""
    (height, width), coils, systems, room = (5, 6), 2, 2, 16
    mask = (torch.rand(height, width) < 0.6).float()
    a = states(1, 1, (height, width, 2), torch.float32) | {
        "maps": torch.complex(*torch.randn(2, coils, height, width)), "mask": mask, "noise": INDEPENDENT}
    a["spectrum"] = sense_spectrum(a["maps"], mask).contiguous()
    step, (after, mean) = step_of(a, ("maps", "mask", "spectrum"), struct.pack("5q", 1, 1, coils, height, width),
                                  struct.pack("dq", 1e-6, 1))
    (along_w, table_w), (along_h, table_h) = transform_of(width), transform_of(height)
    every, pitch = np.float32(1 / (height * width)), width + 1
    images = np.full((3, systems, height, width, 2), np.nan, np.float32)
    k = np.full((systems, coils, height, width, 2), np.nan, np.float32)
    sums, state = np.full((2, systems, 1), np.nan), np.ones((systems, 5))
    work = (*images, k, *sums, state)

    def run(kernel, of_columns, first, blocks, purpose):
        at = along_w + along_h + stream_of(a) + struct.pack(
            "3I4f?3x", first, 1, room, a["inv_eta2"] * every, (a["inv_eta2"] * every) ** 0.5, a["noise_lam"] ** 0.5, every, True)
        shared = 8 * room * height + table_h if of_columns else 8 * room * (pitch + width) + table_w + 128
        ptx("langevin_sense_cg").kernel(f"langevin_sense_cg_{kernel}").launch((blocks,), (32,), [step, at, work, purpose], shared)

    def advance(starts):
        run("update", False, 0, systems, starts)
        run("columns", True, 0, systems, precondition)
        run("back", False, 0, systems, precondition)
        settle = ptx("langevin_sense_cg").kernel("langevin_sense_cg_settle")
        settle.launch((1,), (32,), [work, systems, 1, int(starts), 0, 1e-6])

    start, noise, apply, precondition = range(4)
    run("rows", False, 0, 1, True)
    run("columns", True, 0, coils, start)
    run("back", False, 0, 1, start)
    run("columns", True, 1, coils, noise)
    run("back", False, 1, 1, noise)
    advance(True)
    run("rows", False, 0, systems, False)
    run("columns", True, 0, systems * coils, apply)
    run("back", False, 0, systems, apply)
    advance(False)
    look, seen = ptx("langevin_sense_cg").kernel("langevin_sense_cg_look"), np.ones((3, 2))
    for windows, loop in ((2.0, seen[0]), (1.0, seen[1])):
        look.launch((1,), (32,), [state, systems, windows, loop])
    look.launch((1,), (32,), [np.zeros((67, 5)), 67, 2.0, seen[2]])
    assert seen.tolist() == [[2, 1], [2, 0], [2, 0]]  # another window; none is left; all have stopped
    ptx("langevin_sense_cg").kernel("langevin_sense_cg_sum").launch((1,), (32,), [mean, after, state, 1, 2 * height * width, 1])
    del a["spectrum"]
    want = langevin_sense_cg(**in_double(a), max_iter=1, backend="torch")
    assert all((torch.from_numpy(g) - w).norm() <= 2e-6 * w.norm() for g, w in zip((after, mean), want, strict=True))
