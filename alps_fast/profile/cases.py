"""Every compiled kernel in the configurations that matter, each as a call of its op: what is compiled, run and modelled.

A case's `run(chains)` makes inputs for that many chains and calls the op's kernels, so that the same line is recorded and
compiled for every GPU or run as PTX on the CPU (lab), and timed where there is a GPU (`alps-fast profile --roofline`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..ops.langevin_fourier import langevin_fourier
from ..ops.langevin_sense_cg import langevin_sense_cg
from ..ops.philox_normal import AVERAGED, INDEPENDENT, LANGEVIN, NO_NOISE
from .work import PIXEL, Work, fft, philox, pixel


class Case(NamedTuple):
    """One configuration of an op: its name, its call, its least work, the chains it is modelled and emulated for.

    `small` is emulated in its stead where it is itself more than the interpreter can run in a few seconds. `arguments` are those
    of the op, where an op has no Triton launches that could be timed on a GPU.
    """

    name: str
    run: Callable[[int], Any]
    work: Callable[[int], Work]
    chains: int = 64
    emulated_chains: int = 8
    small: Case | None = None
    arguments: Callable[[int], dict[str, Any]] | None = None

    @property
    def op(self) -> str:
        return self.name.split("/")[0]

    @property
    def emulated(self) -> Case:
        return self.small or self


LEVEL: dict[str, Any] = {"lam": 2.0, "lin": 1.5, "w": 0.7, "inv_eta2": 9.0, "noise_lam": 3.0, "seed": 11, "step": 5}


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def states(chains: int, *shape: int) -> dict[str, Any]:
    """Arguments that every Langevin step has, of one measurement."""
    return {"x": randn(chains, *shape), "grad": randn(chains, *shape), "b": randn(1, *shape), "ids": torch.arange(chains),
            "noise": AVERAGED, **LEVEL}


def _philox_normal(shape: tuple[int, ...]) -> Case:
    n = torch.Size(shape).numel()

    def run(chains: int) -> Any:
        from alps_fast.kernels.philox_normal import philox_normal

        return philox_normal(torch.arange(chains), n, 11, 5, LANGEVIN)

    return Case(f"philox_normal/{_name(shape)}", run, lambda chains: philox(chains * n, 1) + Work(4 * chains * n, 0))


def _langevin_pixel(shape: tuple[int, int, int], noise: int, given: bool = False, each_channel: bool = False) -> Case:
    n, channels = torch.Size(shape).numel(), shape[2] if each_channel else 1
    a = randn(1, *shape[:2], channels).abs()
    label = "given" if given else {NO_NOISE: "none", INDEPENDENT: "independent", AVERAGED: "averaged"}[noise]

    def run(chains: int) -> Any:
        from alps_fast.kernels.langevin_pixel import langevin_pixel

        x, grad, xi = (randn(chains, *shape) for _ in range(3))
        return langevin_pixel(x, grad, randn(1, *shape), a, torch.arange(chains), noise=noise, **LEVEL, xi=xi if given else None)

    def work(chains: int) -> Work:
        noise_work = Work(4 * chains * n, 0) if given else philox(chains * n, noise)
        return pixel(chains * n) + noise_work + Work(4 * (n + a.numel()), PIXEL * a.numel())

    return Case(f"langevin_pixel/{_name(shape)}/{label}{'/a of each channel' if each_channel else ''}", run, work)


def _moments(shape: tuple[int, ...]) -> Case:
    n = torch.Size(shape).numel()

    def run(chains: int) -> Any:
        from alps_fast.kernels.moments import moments

        state = torch.zeros(1, dtype=torch.int64), torch.zeros(1, *shape), torch.zeros(1, *shape)
        return moments(*state, randn(chains, *shape), torch.ones(chains, dtype=torch.bool))

    return Case(f"moments/{_name(shape)}", run, lambda chains: Work(4 * n * (chains + 4), 5 * n * chains))


def ridge_grad_case(channels: int, size: int, side: int = 7, count: int = 32, scales: int = 1, small: Case | None = None) -> Case:
    """One scale: three quarters of the work of a pyramid, whose other scales run the same kernel."""
    banks = [randn(count, 1, side, side) for _ in range(scales)]
    tables = (randn(scales, 1, 1, count), randn(scales, 1, 1, count).abs() + 0.1, randn(scales, 1), torch.zeros(1))

    def run(chains: int) -> Any:
        from alps_fast.kernels.ridge_grad import ridge_grad

        return ridge_grad(randn(chains, channels, size, size), banks, *tables)

    def work(chains: int) -> Work:
        numbers = chains * channels * sum((-(-size // 2**s)) ** 2 for s in range(scales))
        constants = 4 * scales * count * side**2
        return Work(8 * chains * channels * size**2 + constants, 8 * count * numbers, 0, 4 * side**2 * count * numbers)

    name = f"ridge_grad/{channels}×{size}×{size}/{count} filters of {side}²"
    return Case(name, run, work, chains=16, emulated_chains=1, small=small)


def ridge_langevin_case(size: int, count: int = 32, small: Case | None = None) -> Case:
    """One launch: x read, x⁺ and m written a chain, b, a and the filters read once."""
    bank, mu = [randn(count, 1, 7, 7)], torch.zeros(1)
    w = randn(1, 1, 1, count).abs() + 0.1

    def run(chains: int) -> Any:
        from alps_fast.kernels.ridge_langevin import ridge_langevin

        x, b, a = randn(chains, size, size, 1), randn(1, size, size, 1), randn(1, size, size, 1).abs()
        return ridge_langevin(x, b, a, torch.arange(chains), bank, w, w, randn(1, 1), mu, 1, **LEVEL, noise=AVERAGED, count=1)

    def work(chains: int) -> Work:
        n = chains * size**2
        arithmetic = pixel(n) + philox(n, 2) + Work(0, 8 * count * n, 0, 4 * 49 * count * n)
        return arithmetic._replace(bytes=4 * (3 * n + 2 * size**2 + 49 * count))

    name = f"ridge_langevin/1×{size}×{size}/{count} filters of 7²"
    return Case(name, run, work, chains=16, emulated_chains=1, small=small)


def langevin_sense_case(size: int, axis: int, small: Case | None = None) -> Case:
    numbers = 2 * size**2

    def run(chains: int) -> Any:
        from alps_fast.kernels.langevin_sense import langevin_sense

        x, grad = randn(chains, size, size, 2), randn(chains, size, size, 2)
        u = torch.view_as_complex(randn(size, size, size, 2))
        return langevin_sense(x, grad, randn(1, size, size, 2), u, randn(size, size).abs(), axis, torch.arange(chains),
                              noise=AVERAGED, **LEVEL)

    def work(chains: int) -> Work:
        u = 8 * size**3 + 4 * size**2
        return pixel(chains * numbers) + philox(chains * numbers, 2) + Work(u + 4 * numbers, 0, 0, 3 * 8 * size**3 * chains)

    return Case(f"langevin_sense/{size}×{size}/axis {axis}", run, work, chains=16, emulated_chains=16, small=small)


def langevin_fourier_case(size: int, chains: int) -> Case:
    """A real image: x and ∇E read, x⁺ and m written a chain, b and half of the transfer function read once."""
    def arguments(chains: int) -> dict[str, Any]:
        return states(chains, size, size, 1) | {"h": torch.fft.fft2(randn(size, size), norm="ortho"), "factor": 1,
                                                "is_complex": False}

    def work(chains: int) -> Work:
        n = size**2
        once = Work(4 * n + 8 * size * (size // 2 + 1), 0)
        return pixel(chains * n) + philox(chains * n, 2) + Work(0, chains * (2 * fft(n) + 20 * n)) + once

    return Case(f"langevin_fourier/1×{size}×{size}", lambda chains: langevin_fourier(**arguments(chains)), work, chains, 1,
                arguments=arguments)


def langevin_sense_cg_case(size: int, coils: int, max_iter: int, chains: int) -> Case:
    """x and ∇E read, x⁺ and m written a chain, b, maps, mask and spectrum read once.

    A chain has two systems; each begins with a product with AᴴA, which for the noise is half a one, and has one more an
    iteration, and the preconditioner.
    """
    def arguments(chains: int) -> dict[str, Any]:
        maps, mask = torch.view_as_complex(randn(coils, size, size, 2)), (randn(size, size) > 0).float()
        return states(chains, size, size, 2) | {"maps": maps, "mask": mask, "max_iter": max_iter}

    def work(chains: int) -> Work:
        n = size**2
        product, preconditioner = coils * (2 * fft(n) + 16 * n), 2 * fft(n) + 24 * n
        solve = round((2 * max_iter + 1.5) * product) + 2 * (max_iter + 1) * preconditioner
        noise = philox(chains * 2 * n * (1 + coils), 2)
        return pixel(2 * chains * n) + noise + Work(4 * n * (2 + 2 * coils + 2), chains * solve)

    return Case(f"langevin_sense_cg/{size}×{size}/{coils} coils/{max_iter} iterations",
                lambda chains: langevin_sense_cg(**arguments(chains)), work, chains, 1, arguments=arguments)


def small_network(channels: int, width: int) -> tuple[Any, ...]:
    """weights, scale, shift, coefficients and blocks of `conv_grad`, of one block at the coarsest scale."""
    ends = 4 * channels
    shapes = [(width, ends, 3, 3), (width,), *2 * [(width, width, 3, 3)], (width,), *2 * [(width, width, 2, 2), (width,)],
              *2 * [(4 * width, width, 1, 1), (4 * width,)], (ends, width, 3, 3), (ends,)]
    film = randn(1, 1, width)
    return [randn(*shape) / 20 for shape in shapes], film, film, randn(3, 1), [0, 0, 1]


def conv_grad_case(channels: int, width: int, precision: str, size: int = 96, small: Case | None = None) -> Case:
    """A network of one block, at the coarsest scale: every kind of launch occurs; weights are read once."""
    h, ends = size // 2, 4 * channels
    forward = 2 * (18 * ends * width * h**2 + 8 * width**2 * (h // 2) ** 2 + (8 + 18) * width**2 * (h // 4) ** 2)
    weights = (2 if precision == "fast" else 4) * sum(weight.numel() for weight in small_network(channels, width)[0])

    def run(chains: int) -> Any:
        from alps_fast.kernels.conv_grad import conv_grad

        return conv_grad(randn(chains, channels, size, size), *small_network(channels, width), precision)

    def work(chains: int) -> Work:
        products = {"bf16" if precision == "fast" else "tf32": 2 * forward * chains}
        return Work(8 * chains * channels * size**2 + weights, 0, **products)

    name = f"conv_grad/{channels}×{size}×{size}/width {width}/{precision}"
    return Case(name, run, work, chains=16, emulated_chains=1, small=small)


def _name(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


IMAGE, ODD = (64, 64, 3), (27, 29, 3)  # of 16-byte rows, and not
CASES = (
    _philox_normal(IMAGE),
    _philox_normal(ODD),
    *(_langevin_pixel(IMAGE, noise) for noise in (NO_NOISE, INDEPENDENT, AVERAGED)),
    _langevin_pixel(IMAGE, INDEPENDENT, given=True),
    _langevin_pixel(IMAGE, AVERAGED, each_channel=True),
    _langevin_pixel(ODD, AVERAGED),
    _moments(IMAGE),
    _moments(ODD),
    ridge_grad_case(1, 64, small=ridge_grad_case(1, 20)),
    ridge_grad_case(2, 64, small=ridge_grad_case(2, 16)),
    ridge_langevin_case(64, small=ridge_langevin_case(20)),
    langevin_sense_case(64, 1, small=langevin_sense_case(32, 1)),
    conv_grad_case(2, 64, "fast", small=conv_grad_case(2, 64, "fast", 16)),
    conv_grad_case(1, 32, "high", small=conv_grad_case(1, 32, "high", 16)),
)
# Of ops that have no Triton kernel: called as ops.
OP_CASES = (langevin_fourier_case(128, 64), langevin_sense_cg_case(128, 8, 16, 16))
