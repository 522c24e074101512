"""The CUDA C++ kernels as PTX for sm_80 on the CPU: their launches, packed as the hosts in csrc/cuda make them, and their cases.

Each function of an op's name takes what the op takes for one measurement, and returns its results and what the kernel did.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..ops._conv_weights import pack_fragments
from ..ops.langevin_sense import sense_spectrum
from ..ops.philox_normal import AVERAGED, INDEPENDENT, LANGEVIN, NO_NOISE
from . import nvcc
from .cases import CASES as TRITON_CASES
from .cases import (
    IMAGE,
    LEVEL,
    Case,
    conv_grad_case,
    langevin_sense_case,
    randn,
    ridge_grad_case,
    ridge_langevin_case,
    small_network,
)
from .ptxsim import Kernel, Module
from .work import Work, fft, philox, pixel

ARCH, SHARED = "sm_80", 163 << 10  # bytes of shared memory that a block can have there
CHAINS, GIVEN = 4, 3  # of langevin_pixel.cu

Results = tuple[tuple[Tensor, ...], Counter[str]]


@cache
def module(op: str) -> Module:
    """The PTX of an op's source."""
    return Module(nvcc.ptx(op, ARCH))


def _kernel(op: str, arguments: str) -> tuple[Kernel, int]:
    """The op's kernel with these mangled template arguments, and its threads."""
    kernel = module(op).kernel(f"{op}_kernelI{arguments}E")
    (threads,) = (k.threads for k in nvcc.kernels(nvcc.ptx(op, ARCH)) if k.symbol == kernel.name)
    return kernel, threads


class Launch(NamedTuple):
    """A kernel by its name with template arguments; blocks, threads of each, bytes of shared memory that it is launched with."""

    kernel: str
    blocks: int
    threads: int
    shared: int


_recorded: list[Launch] | None = None


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """The launches inside, none of which runs."""
    global _recorded
    before, _recorded = _recorded, []
    try:
        yield _recorded
    finally:
        _recorded = before


def _launch(kernel: Kernel, grid: tuple[int, ...], threads: int, arguments: Sequence[Any], shared: int = 0) -> Counter[str]:
    """What the launch did, which is nothing where it is recorded."""
    if _recorded is not None:
        _recorded.append(Launch(nvcc.readable(kernel.name), math.prod(grid), threads, shared))
        return Counter()
    return kernel.launch(grid, (threads,), arguments, shared)


def _fresh(like: Tensor | tuple[int, ...]) -> Tensor:
    return torch.full(like if isinstance(like, tuple) else tuple(like.shape), torch.nan)


def _stream(seed: int, step: int, tag: int = LANGEVIN) -> bytes:
    """csrc/common/philox.h: Stream."""
    return struct.pack("4I", seed, 0, step, tag)


def philox_normal(chains: Tensor, n: int, seed: int, step: int, tag: int) -> Results:
    kernel, threads = _kernel("philox_normal", f"Lb{int(n % 4 == 0)}E")
    out = _fresh((len(chains), n))
    grid = (-(-n // (4 * threads)), len(chains))
    arguments = [chains.numpy(), len(chains), n, _stream(seed, step, tag), out.numpy()]
    return (out,), _launch(kernel, grid, threads, arguments)


def _level(lam: float, lin: float, w: float, inv_eta2: float, noise_lam: float, seed: int, step: int) -> bytes:
    """csrc/cuda/pixel_step.h: PixelLevel."""
    return struct.pack("5f", lam, lin, -w, inv_eta2, noise_lam) + _stream(seed, step)


def langevin_pixel(x: Tensor, grad: Tensor, b: Tensor, a: Tensor, chains: Tensor, noise: int, xi: Tensor | None = None,
                   **level: Any) -> Results:
    """Of any number of measurements."""
    each, channels, n = len(x) // len(b), x.shape[3], x[0].numel()
    noise, a_stride = noise if xi is None else GIVEN, a[0].numel() if len(a) > 1 else 0
    kernel, threads = _kernel("langevin_pixel", f"Li{noise}ELb{int(n % 4 == 0)}ELi{int(a.shape[3] == channels)}E")
    after, mean, groups = _fresh(x), _fresh(x), -(-each // CHAINS)
    pieces, given = len(b) * groups, 0 if xi is None else xi.numpy()
    arrays = [v.numpy() for v in (x, grad, b, a)], [v.numpy() for v in (chains, after, mean)]
    count = _launch(kernel, (-(-n // (4 * threads)), pieces), threads,
                    [*arrays[0], given, *arrays[1], each, groups, pieces, n, channels, a_stride, _level(**level)])
    return (after, mean), count


def moments(count: Tensor, mean: Tensor, m2: Tensor, x: Tensor, keep: Tensor) -> Results:
    groups, n, wide = len(count), x[0].numel(), 16 // x.itemsize
    kernel, threads = _kernel("moments", f"{'f' if x.dtype == torch.float32 else 'd'}Lb{int(n % wide == 0)}E")
    after = torch.zeros_like(count), torch.full_like(mean, torch.nan), torch.full_like(m2, torch.nan)
    arrays = [v.numpy() for v in (count, mean, m2, x, keep, *after)]
    return after, _launch(kernel, (-(-n // (wide * threads)), groups), threads, [*arrays, groups, len(x) // groups, n])


def _energy(filters: Sequence[Tensor], w: Tensor, r: Tensor, q: Tensor, mu: Tensor) -> tuple[Any, ...]:
    """csrc/cuda/kernels.h: RidgeEnergy."""
    bank = torch.stack(list(filters))
    each = w.shape[2] > 1, r.shape[2] > 1, q.shape[1] > 1
    sizes = struct.pack("5i3?x", bank.shape[-1], len(bank), bank.shape[1], w.shape[1], len(q), *each)
    return *(v.numpy() for v in (bank, w, r, q, mu)), sizes


def _ridge_floats(tables: Sequence[Any], channels: int, height: int, width: int) -> int:
    """csrc/cuda/ridge.h: RidgeLayout::floats, of shared memory."""
    filters, w, _, q, _ = tables
    padded = _up(filters[0].shape[0], 4)
    end, rings = 140 + 56 * padded + 8 * ((w.shape[1] + 1) // 2) * padded, list[list[int]]()
    for s in range(len(q)):
        stride = _up(width, 4) + 8
        of_x, of_g = channels * (height + 6) * stride, channels * height * (stride - 8)
        if s:
            rings[-1][2] += of_g  # G of the next scale lies before the ring
        end += of_x + of_g
        rings.append([height, stride, end])
        height, width = (height + 1) // 2, (width + 1) // 2
    for high, stride, ring in rings[:len(filters)]:
        row = 4 * channels * stride
        free = ((SHARED // 4 - ring) // row - 6) // 4 * 4
        bands = -(-high // min(max(256 // ((stride - 8) // 4) * 4, 4), free))
        end = max(end, ring + row * (_up(-(-high // bands), 4) + 6))
    return end


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


class _RidgePlan(NamedTuple):
    """csrc/cuda/ridge_grad.cu: RidgePlan where the value is wanted; floats of the workspace, of a tile and of the finish."""

    plan: bytes
    tiles: int
    floats: int
    of_tile: int
    of_finish: int


def _apart(stride: int, channels: int) -> int:
    return next(n for n in range(stride, stride + 16, 4) if 2 // channels * n % 16 == 8)


def _ridge_plan(n: int, channels: int, height: int, width: int, scales: int, levels: int) -> _RidgePlan:
    plan, tiles, floats, of_tile, end = b"", 0, 0, 0, 0
    for s in range(levels):
        strips = -(-width // 4)
        plane = 4 * strips * height
        x, sums = floats, floats + n * channels * plane * (s > 0)
        floats = sums + n * channels * plane * (s < scales)
        cut = [0] * 6
        if s < scales:
            wide = -(-strips // -(-strips // (16 // channels)))
            threads, of_row, of_x = strips * height * channels, *(_apart(4 * wide + 8 + more, channels) for more in (0, 8))

            def of(rows: int, of_row: int = of_row, of_x: int = of_x) -> int:
                return channels * (4 * (rows + 6) * of_row + (rows + 14 - channels) * of_x)

            rows = 1 if threads <= 128 else 2 if threads <= 256 else 4
            most = max(n for n in range(rows, 128 // (wide * channels) * rows + 1, rows) if of(n) <= 17152)
            high, across = _up(-(-height // -(-height // most)), rows), -(-strips // wide)
            cut = [wide, high, rows, across, across * -(-height // high), tiles]
            tiles += cut[4]
            of_tile = max(of_tile, of(high))
        pitch, begin = min(width, (64 >> s) + 4), end if s > 1 else 0
        end = begin + min(height, (16 >> s) + 4) * pitch if s else 0
        plan += struct.pack("3i4x3q9i4x", height, width, 4 * strips, plane, x, sums, *cut, begin, pitch, end)
        height, width = (height + 1) // 2, (width + 1) // 2
    plan = struct.pack("3q3i4x", n, 0, n, levels, scales, tiles) + plan + bytes(80 * (12 - levels))
    return _RidgePlan(plan, tiles, floats, of_tile, max(end, 16))


def ridge_grad(x: Tensor, *tables: Any) -> Results:
    """`tables`: filters, w, r, q, mu as the op takes them; an image that a block's pyramid takes whole."""
    n, channels, height, width = x.shape
    filters, w, _, q, mu = tables
    planned = _ridge_plan(n, channels, height, width, len(filters), len(q))
    places = struct.pack("2q3i4x", 1, x[0].numel(), 0, height * width, 1)
    grad, value, workspace = _fresh(x), _fresh((n,)), _fresh((planned.floats,)).numpy()
    energies = np.full(n * planned.tiles, np.nan)
    counts: Counter[str] = Counter()

    def run(name: str, blocks: int, threads: int, arguments: Sequence[Any], floats: int) -> None:
        counts.update(_launch(module("ridge_grad").kernel(name), (blocks,), threads, arguments, 4 * floats))

    depth = len(q) - 1
    if depth:
        sizes = [-(-height >> j) * -(-width >> j) for j in range(1, depth + 1)]
        run("ridge_pyramid_kernel", n * channels, 512,
            [planned.plan, places, x.numpy(), mu.numpy(), workspace, channels, 0, depth, 4096, 1, 1], sum(sizes))
    staged = 4 * (56 + 8 * ((w.shape[1] + 1) // 2))
    run(f"ridge_tiles_kernelILi{channels}E", n * planned.tiles, 128,
        [_energy(*tables), planned.plan, places, x.numpy(), workspace, energies, n], 8 + 2 * staged + planned.of_tile)
    across = -(-width // 64)
    tiles = across * -(-height // 16)
    run("ridge_finish_kernel", n * (channels * tiles + 1), 256,
        [_energy(*tables), planned.plan, places, workspace, energies, grad.numpy(), value.numpy(), channels, across, tiles, n,
         width % 4 == 0], planned.of_finish)
    return (grad, value), counts


def ridge_langevin(x: Tensor, b: Tensor, a: Tensor, chains: Tensor, *tables: Any, channels: int, noise: int, count: int,
                   room: bool, **level: Any) -> Results:
    """`a` of a pixel; `room`: in shared memory, for the image between steps."""
    n, height, width, all_channels = x.shape
    images = n * all_channels // channels
    kernel, threads = _kernel("ridge_langevin", f"Li{channels}E")
    after, mean, floats = _fresh(x), _fresh(x), _ridge_floats(tables, channels, height, width)
    wide = x[0].numel() % 4 == 0
    in_quads = wide and channels == all_channels and width * channels % 4 == 0
    state = (x.numpy(), b.numpy(), a.numpy(), bytes(8), chains.numpy(), after.numpy(), mean.numpy(),
             struct.pack("qq3i3?xi4x", n, 0, all_channels, count, noise, False, wide, in_quads,
                         floats if room else 0))
    arguments = [_energy(*tables), struct.pack("q3i4x", images, channels, height, width), state, _level(**level)]
    shared = 4 * (floats + (height * width * channels if room else 0))
    return (after, mean), _launch(kernel, (images,), threads, [*arguments, SHARED // 4], shared)


def conv_grad(x: Tensor, weights: Sequence[Tensor], scale: Tensor, shift: Tensor, coefficients: Tensor, blocks: Sequence[int],
              warps: int = 4) -> Results:
    """In precision "fast"; `warps` of a block, 4 or 8."""
    n, channels, height, width = x.shape
    kernel = module("conv_grad").kernel(f"conv_grad_kernelILi{warps}E")
    packed = pack_fragments(weights, blocks)
    h, w = -(-height // 8) * 4, -(-width // 8) * 4
    pixels, step, lag = h * w, 32 * warps, (w + 32) // 32 * 32
    ring = step
    while ring < step + lag + w + 1:
        ring *= 2
    beside = 128 * pixels
    zero = beside + 128 * max(min(ring, pixels), pixels // 4)  # csrc/cuda/conv_grad.cu: ConvLayout
    vectors, sums = zero + 128, zero + 128 + 4 * 6 * 64
    kept = sum(count * times * (-(-(pixels >> 2 * level) // 32) * 32) for level, (count, times) in
               enumerate(zip(blocks, (2, 2, 1), strict=True)))
    workspace = 128 * pixels + 64 * kept
    grad, value, memory = _fresh(x), _fresh((n,)), _fresh((n * workspace // 4,))
    arrays = (packed.weights.view(torch.int16), packed.biases, scale, shift, coefficients, grad, value, memory)
    numbers = n, scale.shape[1], coefficients.shape[1], channels, height, width, *blocks, width % 2 == 0
    arguments = [(x.numpy(), *(v.numpy() for v in arrays), struct.pack("3q6i?7x", *numbers)),
                 struct.pack("9i4xq", h, w, ring, lag, beside, zero, vectors, sums, sums + 8 * warps, workspace)]
    return (grad, value), _launch(kernel, (n,), 32 * warps, arguments, sums + 8 * warps)


def _step(arrays: Sequence[Tensor], chains: Tensor, sizes: bytes, noise: int, lam: float, lin: float, w: float, inv_eta2: float,
          noise_lam: float, seed: int, step: int, more: bytes = b"") -> tuple[tuple[Any, ...], bytes, tuple[Tensor, Tensor]]:
    """csrc/common/arguments.h: FourierStep, SenseStep or SenseCgStep, `arrays` from x on; its stream; x⁺ and m to be written."""
    after, mean = _fresh(arrays[0]), _fresh(arrays[0])
    numbers = sizes + struct.pack("5fi", lam, lin, w, inv_eta2, noise_lam, noise)
    numbers += bytes(-len(numbers) % 8) + struct.pack("QI4x", seed, step) + more
    whole = [(torch.view_as_real(v) if v.is_complex() else v).contiguous().numpy() for v in arrays]
    return (*whole, bytes(8), chains.numpy(), after.numpy(), mean.numpy(), numbers), _stream(seed, step), (after, mean)


def _transform(n: int) -> bytes:
    """csrc/cuda/fft.cuh: Transform, with the radices of csrc/common/butterfly.h."""
    left = n
    radices: list[int] = []
    for odd in (7, 5, 3):
        while left % odd == 0:
            left, radices = left // odd, [*radices, odd]
    twos = left.bit_length() - 1
    radices += {0: [], 1: [2] if twos == 1 else [4, 4], 2: [4]}[twos % 3]
    radices += [8] * (twos // 3 - (twos % 3 == 1 and twos > 1))
    assert math.prod(radices) == n
    return struct.pack("2IQ", n, len(radices), sum(radix << 4 * i for i, radix in enumerate(radices)))


def _table_bytes(n: int) -> int:
    return _up(10 * n, 16)


def _pitch(width: int) -> int:
    return (width - 1) + (width - 1) // 16 + 1 | 1


def _columns_bytes(height: int, columns: int) -> int:
    """Of shared memory, for a block of columns of complex numbers and the tables of their transform."""
    return 8 * height * columns + _table_bytes(height)


def _most(sizes: Sequence[int], needed: Callable[[int], int]) -> int:
    """The first of the sizes whose bytes a block can have."""
    return next(size for size in sizes if needed(size) <= SHARED)


def _threads(cells: int, most: int) -> int:
    """Eight cells each, in whole warps."""
    return max(32, min(_up(cells // 8, 32), most))


def langevin_fourier(x: Tensor, grad: Tensor, b: Tensor, h: Tensor, factor: int, is_complex: bool, chains: Tensor, noise: int,
                     whole: bool, **level: Any) -> Results:
    """`whole`: an image a block, else three kernels."""
    assert factor == 1, "csrc/cuda has no other"
    rows, height, width, channels = x.shape
    images = channels // 2 if is_complex else channels
    sizes = struct.pack("5q?3x", rows, len(b), height, width, channels, is_complex)
    step, stream, out = _step((x, grad, b, h), chains, sizes, noise, **level)
    workspace = _fresh((2 if is_complex and noise != NO_NOISE else 1, rows, images, height, width, 2))

    def run(kernel: str, blocks: int, tiles: int, room: int, cells: int, shared: int) -> Counter[str]:
        layout = _transform(width) + _transform(height) + stream + struct.pack(
            "3I2f?3x", images, tiles, room, (level["inv_eta2"] + level["noise_lam"]) ** 0.5, 1 / (height * width),
            height * width * channels % 4 == 0)
        compiled = module("langevin_fourier").kernel(f"langevin_fourier_{kernel}")
        more = [] if whole else [workspace.numpy()]
        return _launch(compiled, (blocks,), _threads(cells, 704 if whole else 448), [step, layout, *more], shared)

    def rows_bytes(room: int) -> int:
        return _up(8 * images * room * _pitch(width), 16) + _table_bytes(width)

    if whole:
        return out, run("whole", rows, 1, height, images * height * width, rows_bytes(height) + _table_bytes(height))
    room = _most((16, 8, 4), rows_bytes)
    tiles = -(-height // room)
    of_rows = rows * tiles, tiles, room, images * room * width, rows_bytes(room)
    room = _most((16, 8, 4, 2), lambda columns: _columns_bytes(height, columns))
    tiles = -(-width // room) if is_complex else -(-(width // 2 + 1) // (room // 2))
    of_columns = rows * images * tiles, tiles, room, room * height, _columns_bytes(height, room)
    return out, sum((run("rows", *of_rows), run("columns", *of_columns), run("back", *of_rows)), Counter())


def langevin_sense(x: Tensor, grad: Tensor, b: Tensor, u: Tensor, eigenvalues: Tensor, axis: int, chains: Tensor, noise: int,
                   **level: Any) -> Results:
    (lines, n), rows = eigenvalues.shape, len(x)
    step, stream, out = _step((x, grad, b, u, eigenvalues), chains, struct.pack("4qi", rows, len(b), lines, n, axis), noise,
                              **level)
    at_once = 16 if rows > 8 else 8 if rows > 4 else 4
    kernel = module("langevin_sense").kernel(f"langevin_sense_kernelILi{at_once}ELb{int(noise != NO_NOISE)}E")
    groups, turns = -(-rows // at_once), -(-n // 320)
    at = stream + struct.pack("I??2x", groups, True, n % 2 == 0)
    return out, _launch(kernel, (lines * groups,), _up(-(-n // turns), 32), [step, at], 8 * n * (2 * at_once + 2))


def langevin_sense_cg(x: Tensor, grad: Tensor, b: Tensor, maps: Tensor, mask: Tensor, chains: Tensor, noise: int,
                      max_iter: int, **level: Any) -> Results:
    """Every kernel as langevin_sense_cg_iterate launches them; no system stops earlier."""
    rows, height, width, _ = x.shape
    coils, systems = len(maps), rows if noise == NO_NOISE else 2 * rows
    step, stream, out = _step((x, grad, b, maps, mask, sense_spectrum(maps, mask)), chains,
                              struct.pack("5q", rows, len(b), coils, height, width), noise, **level,
                              more=struct.pack("dq", 0, max_iter))
    every, inv_eta2 = np.float32(1 / (height * width)), level["inv_eta2"]

    def rows_bytes(room: int) -> int:
        return 8 * room * (_pitch(width) + width) + _table_bytes(width) + 8 * 14

    room = _most((16, 8, 4, 2, 1), rows_bytes)
    of_column = _most((16, 8, 4, 2, 1), lambda columns: _columns_bytes(height, columns))
    tiles, column_tiles = -(-height // room), -(-width // of_column)
    images, k = _fresh((3, systems, height, width, 2)), _fresh((systems, coils, height, width, 2))
    sums, state = np.full((2, systems, tiles), np.nan), np.ones((systems, 5))
    work = (*images.numpy(), k.numpy(), *sums, state)
    counts: Counter[str] = Counter()

    def run(kernel: str, blocks: int, cells: int, arguments: Sequence[Any], shared: int = 0) -> None:
        compiled = module("langevin_sense_cg").kernel(f"langevin_sense_cg_{kernel}")
        counts.update(_launch(compiled, (blocks,), _threads(cells, 448), arguments, shared))

    def layout(first: int, tiles: int, room: int) -> bytes:
        return _transform(width) + _transform(height) + stream + struct.pack(
            "3I4f?3x", first, tiles, room, inv_eta2 * every, (inv_eta2 * every) ** 0.5, level["noise_lam"] ** 0.5, every, True)

    def on_rows(kernel: str, first: int, count: int, more: int) -> None:
        run(kernel, count * tiles, room * width, [step, layout(first, tiles, room), work, more], rows_bytes(room))

    def on_columns(first: int, count: int, purpose: int) -> None:
        run("columns", count * (1 if purpose == precondition else coils) * column_tiles, of_column * height,
            [step, layout(first, column_tiles, of_column), work, purpose], _columns_bytes(height, of_column))

    def multiply(purpose: int, first: int, count: int) -> None:
        if purpose != of_noise:
            on_rows("rows", first, count, purpose == start)
        on_columns(first, count, purpose)
        on_rows("back", first, count, purpose)

    def advance(starts: bool) -> None:
        on_rows("update", 0, systems, starts)
        on_columns(0, systems, precondition)
        on_rows("back", 0, systems, precondition)
        run("settle", -(-systems // 448), 8 * systems, [work, systems, tiles, int(starts), 0, 0.0])

    start, of_noise, apply, precondition = range(4)
    multiply(start, 0, rows)
    if noise != NO_NOISE:
        multiply(of_noise, rows, rows)
    advance(True)
    for _ in range(max_iter):
        multiply(apply, 0, systems)
        advance(False)
    after, mean = out
    run("sum", -(-mean.numel() // 448), 8 * 448, [mean.numpy(), after.numpy(), state, rows, mean[0].numel(), noise != NO_NOISE])
    return out, counts


def _of_triton(name: str, run: Callable[[int], Results]) -> Case:
    """What the Triton kernel's case of this name computes."""
    (case,) = (case for case in TRITON_CASES if case.name == name)
    return case._replace(run=run)


def _in_float32(case: Case, run: Callable[[int], Results], small: Case | None = None) -> Case:
    """With the work that the Triton kernel gives to tensor cores done in float32."""
    def work(chains: int) -> Work:
        least = case.work(chains)
        return least._replace(flops=least.flops + least.tf32, tf32=0)
    return case._replace(run=run, work=work, small=small)


def _pixel(noise: int) -> Callable[[int], Results]:
    def run(chains: int) -> Results:
        x, grad, a = randn(chains, *IMAGE), randn(chains, *IMAGE), randn(1, *IMAGE[:2], 1).abs()
        return langevin_pixel(x, grad, randn(1, *IMAGE), a, torch.arange(chains), noise, None, **LEVEL)
    return run


def _moments(chains: int) -> Results:
    state = torch.zeros(1, dtype=torch.int64), torch.zeros(1, *IMAGE), torch.zeros(1, *IMAGE)
    return moments(*state, randn(chains, *IMAGE), torch.ones(chains, dtype=torch.bool))


def _tables(count: int) -> tuple[Any, ...]:
    w = randn(1, 1, 1, count)
    return [randn(count, 1, 7, 7)], w, w.abs() + 0.1, randn(1, 1), torch.zeros(1)


def _ridge_grad_case(size: int, count: int, small: Case | None = None) -> Case:
    return _in_float32(ridge_grad_case(1, size, count=count),
                       lambda chains: ridge_grad(randn(chains, 1, size, size), *_tables(count)), small)


def _ridge_langevin_case(size: int, count: int, small: Case | None = None) -> Case:
    def run(chains: int) -> Results:
        x, b, a = randn(chains, size, size, 1), randn(1, size, size, 1), randn(1, size, size, 1).abs()
        return ridge_langevin(x, b, a, torch.arange(chains), *_tables(count), channels=1, noise=AVERAGED, count=1, room=True,
                              **LEVEL)
    return _in_float32(ridge_langevin_case(size, count), run, small)


def _conv_grad_case(size: int, small: Case | None = None) -> Case:
    return conv_grad_case(2, 64, "fast", size, small)._replace(
        run=lambda chains: conv_grad(randn(chains, 2, size, size), *small_network(2, 64)))


def _states(chains: int, *shape: int) -> dict[str, Any]:
    return {"x": randn(chains, *shape), "grad": randn(chains, *shape), "b": randn(1, *shape), "chains": torch.arange(chains),
            "noise": AVERAGED, **LEVEL}


def _fourier_case(size: int, whole: bool, chains: int, small: Case | None = None) -> Case:
    """A real image: x and ∇E read, x⁺ and m written a chain, b and half of the transfer function read once."""
    def arguments(chains: int) -> dict[str, Any]:
        return _states(chains, size, size, 1) | {"h": torch.fft.fft2(randn(size, size), norm="ortho"), "factor": 1,
                                                "is_complex": False}

    def work(chains: int) -> Work:
        n = size**2
        once = Work(4 * n + 8 * size * (size // 2 + 1), 0)
        return pixel(chains * n) + philox(chains * n, 2) + Work(0, chains * (2 * fft(n) + 20 * n)) + once

    return Case(f"langevin_fourier/1×{size}×{size}/{'an image a block' if whole else 'in tiles'}",
                lambda chains: langevin_fourier(**arguments(chains), whole=whole), work, chains, 1, small, arguments)


def _sense_case(size: int, axis: int, small: Case | None = None) -> Case:
    def arguments(chains: int) -> dict[str, Any]:
        u = torch.view_as_complex(randn(size, size, size, 2))
        return _states(chains, size, size, 2) | {"u": u, "eigenvalues": randn(size, size).abs(), "axis": axis}

    return _in_float32(langevin_sense_case(size, axis), lambda chains: langevin_sense(**arguments(chains)), small)


def _sense_cg_case(size: int, coils: int, max_iter: int, chains: int, small: Case | None = None) -> Case:
    """x and ∇E read, x⁺ and m written a chain, b, maps, mask and spectrum read once.

    A chain has two systems; each begins with a product with AᴴA, which for the noise is half a one, and has one more an
    iteration, and the preconditioner.
    """
    def arguments(chains: int) -> dict[str, Any]:
        maps, mask = torch.view_as_complex(randn(coils, size, size, 2)), (randn(size, size) > 0).float()
        return _states(chains, size, size, 2) | {"maps": maps, "mask": mask, "max_iter": max_iter}

    def work(chains: int) -> Work:
        n = size**2
        product, preconditioner = coils * (2 * fft(n) + 16 * n), 2 * fft(n) + 24 * n
        solve = round((2 * max_iter + 1.5) * product) + 2 * (max_iter + 1) * preconditioner
        noise = philox(chains * 2 * n * (1 + coils), 2)
        return pixel(2 * chains * n) + noise + Work(4 * n * (2 + 2 * coils + 2), chains * solve)

    return Case(f"langevin_sense_cg/{size}×{size}/{coils} coils/{max_iter} iterations",
                lambda chains: langevin_sense_cg(**arguments(chains)), work, chains, 1, small, arguments)


CASES = (
    _of_triton("philox_normal/64×64×3", lambda chains: philox_normal(torch.arange(chains), 64 * 64 * 3, 11, 5, LANGEVIN)),
    _of_triton("langevin_pixel/64×64×3/none", _pixel(NO_NOISE)),
    _of_triton("langevin_pixel/64×64×3/independent", _pixel(INDEPENDENT)),
    _of_triton("langevin_pixel/64×64×3/averaged", _pixel(AVERAGED)),
    _of_triton("moments/64×64×3", _moments),
    _fourier_case(128, True, 64, _fourier_case(48, True, 1)),
    _fourier_case(128, False, 16, _fourier_case(48, False, 1)),
    _sense_case(64, 1, _sense_case(32, 1)),
    _sense_cg_case(128, 8, 16, 16, _sense_cg_case(24, 2, 1, 1)),
    _ridge_grad_case(64, 32, _ridge_grad_case(32, 8)),
    _ridge_langevin_case(64, 32, _ridge_langevin_case(32, 8)),
    _conv_grad_case(64, _conv_grad_case(16)),
)


@cache
def asked(op: str) -> dict[str, tuple[str, Launch]]:
    """Of each kernel that a case of the op runs: the first such case's name, and its launch with the most shared memory."""
    found: dict[str, tuple[str, Launch]] = {}
    for case in CASES:
        if case.op == op:
            with recorded() as launches:
                case.run(case.chains)
            most = {one.kernel: (case.name, one) for one in sorted(launches, key=lambda one: one.shared)}
            found = most | found
    return found
