"""What a step must move and compute at least, by formula, and the time that bounds it on a GPU: modelled, never measured."""

from __future__ import annotations

import math
from typing import NamedTuple

PIXEL = 6  # operations an element of langevin_pixel spends on gains or on the step
QUAD = 38 * 2 + 18 + 2 + 2 * 8  # float operations of four normals (docs/design.md §7), a square root counted as eight
QUAD_INTEGER = 10 * (4 + 4 + 2) + 20  # integer operations of four normals: ten rounds, and the bit handling of Box–Muller


class Work(NamedTuple):
    """Bytes that must pass through DRAM once, and operations: float32 (an fma counts two), integer, tensor cores' by type.

    Those of tensor cores are the least, a product once: where one of float32 is made of three of TF32, two more are executed.
    """

    bytes: int
    flops: int
    integer: int = 0
    tf32: int = 0
    bf16: int = 0

    @property
    def operations(self) -> int:
        """All but integer ones."""
        return self.flops + self.tf32 + self.bf16

    def __add__(self, other: object) -> Work:
        assert isinstance(other, Work)
        return Work(*(a + b for a, b in zip(self, other, strict=True)))


class Gpu(NamedTuple):
    """Peaks of NVIDIA's data sheets, without sparsity: A100 80 GB SXM, H100 SXM, H200 SXM (141 GB of HBM3e), B200 as of an HGX.

    Bytes, float32 and int32 operations, and tensor cores' in TF32 and bfloat16 a second.
    """

    name: str
    arch: str
    bandwidth: float
    float32: float
    int32: float
    tf32: float
    bf16: float


GPUS = (
    Gpu("A100", "sm_80", 2.04e12, 19.5e12, 9.7e12, 156e12, 312e12),
    Gpu("H100", "sm_90", 3.35e12, 66.9e12, 16.7e12, 494e12, 989e12),
    Gpu("H200", "sm_90", 4.8e12, 66.9e12, 16.7e12, 494e12, 989e12),
    Gpu("B200", "sm_100", 8.0e12, 75e12, 37e12, 1.1e15, 2.25e15),
)
ARCHITECTURES = tuple(dict.fromkeys(gpu.arch for gpu in GPUS))


def modelled_us(work: Work, gpu: Gpu) -> float:
    """Roofline: microseconds of whichever of memory, float32, integers and tensor cores takes longest."""
    return 1e6 * max(work.bytes / gpu.bandwidth, work.flops / gpu.float32, work.integer / gpu.int32,
                     work.tf32 / gpu.tf32 + work.bf16 / gpu.bf16)


def philox(numbers: int, draws: int) -> Work:
    """Normals made in registers, `draws` for each number (two where noise is averaged)."""
    quads = -(-numbers // 4) * draws
    return Work(0, QUAD * quads, QUAD_INTEGER * quads)


def fft(n: int) -> int:
    """Float operations of a complex transform of n numbers, as they are commonly counted."""
    return round(5 * n * math.log2(n))


def pixel(numbers: int) -> Work:
    """x and ∇E read, x⁺ and m written once, and the arithmetic of the step."""
    return Work(16 * numbers, PIXEL * numbers)
