"""conv_grad: forward and vector-Jacobian product of the compact network, ∇E of E = ½‖x − ψ(x)‖².

    ψ(x) = c_skip x + c_out S F(S⁻¹ c_in x),  r = x − ψ(x),  ∇E = r − Jᵀ r,  E = ½‖r‖²         [ALPS] eq. 9

S is 2x2 pixel shuffle. F is: head, residual blocks h + W2 φ(a * W1 h + b) + b2 at three
resolutions joined by 2x2 strided convolutions down, 1x1 convolutions and shuffles up, and a tail. Of the forward
pass only c = φ'(z) = clip(z/6 + ½, 0, 1) is kept, one value a hidden unit.

Shapes: x (N, C, H, W), extended by zeros below and to the right to multiples of 8, and ψ cut back; weights: head w b |
per block W1 W2 b2 | down w b, w b | up w b, w b | tail w b; scale, shift (blocks, N or 1, width); coefficients
(3, N or 1): c_skip, c_out, c_in.
Returns (∇E (N, C, H, W), E (N,)). precision "fast" multiplies in bfloat16 with float32 accumulation; activations
between layers are then bfloat16 too, and the residual r and all of E stay float32.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import BackendError, check, check_choice, refused
from ._compiled import Kernel, compiled, first_kernel
from ._conv_weights import WIDTHS, pack, pack_fragments
from ._dispatch import Op, dispatch, implements, slower
from ._pack_once import packed_once
from ._reused_memory import empty_like, laid_out
from ._step import FLOATS, check_kind, described

KNEE = 3.0  # φ' rises from 0 to 1 over [-KNEE, KNEE]
MULTIPLE = 8  # unshuffling and two strided convolutions halve the sides three times


def smooth_relu(z: Tensor) -> tuple[Tensor, Tensor]:
    """(φ, φ'): c = clip(z/6 + ½, 0, 1), φ = 3 c² + max(z − 3, 0), φ' = c.

    Once differentiable, so that E has a continuous gradient; its derivative is a clip, which a kernel can keep in
    eight bits; four operations and no exponential.
    """
    c = F.hardsigmoid(z)
    return KNEE * c * c + F.relu(z - KNEE), c


def _transposed(weight: Tensor) -> Tensor:
    """The kernel whose padded correlation is the adjoint of `weight`'s."""
    return weight.flip(2, 3).transpose(0, 1)


def _pad(x: Tensor) -> Tensor:
    extra = (0, -x.shape[3] % MULTIPLE, 0, -x.shape[2] % MULTIPLE)
    return F.pad(x, extra) if any(extra) else x


def network(x: Tensor, weights: Sequence[Tensor], scale: Tensor, shift: Tensor, coefficients: Tensor,
            blocks: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """ψ(x) and the kept derivatives c, in order of the blocks."""
    fine, middle, coarse = blocks
    body = 2 * fine + 2 * middle + coarse
    per_block, joints = weights[2:2 + 3 * body], weights[2 + 3 * body:]
    scale, shift = scale[..., None, None], shift[..., None, None]
    kept: list[Tensor] = []

    def run(h: Tensor, count: int) -> Tensor:
        for _ in range(count):
            i = len(kept)
            first, second, bias = per_block[3 * i:3 * i + 3]
            active, c = smooth_relu(F.conv2d(h, first, padding=1) * scale[i] + shift[i])
            kept.append(c)
            h = h + F.conv2d(active, second, bias, padding=1)
        return h

    skip, out, inp = coefficients[..., None, None, None]
    h1 = run(F.conv2d(F.pixel_unshuffle(_pad(x) * inp, 2), weights[0], weights[1], padding=1), fine)
    h2 = run(F.conv2d(h1, joints[0], joints[1], stride=2), middle)
    h3 = run(F.conv2d(h2, joints[2], joints[3], stride=2), coarse)
    h = run(F.pixel_shuffle(F.conv2d(h3, joints[4], joints[5]), 2) + h2, middle)
    h = run(F.pixel_shuffle(F.conv2d(h, joints[6], joints[7]), 2) + h1, fine)
    tail = F.pixel_shuffle(F.conv2d(h, joints[8], joints[9], padding=1), 2)
    return skip * x + out * tail[..., :x.shape[2], :x.shape[3]], kept


def network_transposed(r: Tensor, kept: Sequence[Tensor], weights: Sequence[Tensor], scale: Tensor, coefficients: Tensor,
                       blocks: Sequence[int]) -> Tensor:
    """Jᵀ r for the Jacobian J of `network` at the point where `kept` was made."""
    fine, middle, coarse = blocks
    per_block, joints = weights[2:2 + 3 * len(kept)], weights[2 + 3 * len(kept):]
    index = len(kept)

    def run(g: Tensor, count: int) -> Tensor:
        nonlocal index
        for _ in range(count):
            index -= 1
            first, second = per_block[3 * index], per_block[3 * index + 1]
            inner = F.conv2d(g, _transposed(second), padding=1) * (kept[index] * scale[index][..., None, None])
            g = g + F.conv2d(inner, _transposed(first), padding=1)
        return g

    skip, out, inp = coefficients[..., None, None, None]
    g1 = run(F.conv2d(F.pixel_unshuffle(_pad(out * r), 2), _transposed(joints[8]), padding=1), fine)
    g2 = run(F.conv2d(F.pixel_unshuffle(g1, 2), _transposed(joints[6])), middle)
    g3 = run(F.conv2d(F.pixel_unshuffle(g2, 2), _transposed(joints[4])), coarse)
    g = run(F.conv_transpose2d(g3, joints[2], stride=2) + g2, middle)
    g = run(F.conv_transpose2d(g, joints[0], stride=2) + g1, fine)
    head = F.pixel_shuffle(F.conv2d(g, _transposed(weights[0]), padding=1), 2)
    return skip * r + inp * head[..., :r.shape[2], :r.shape[3]]


@implements("conv_grad", "torch")
def conv_grad_reference(x: Tensor, weights: Sequence[Tensor], scale: Tensor, shift: Tensor, coefficients: Tensor,
                        blocks: Sequence[int], precision: str = "high") -> tuple[Tensor, Tensor]:
    """The definition; differentiable in weights, scale and shift, which is how students are trained."""
    if x.numel() == 0:  # whose shape torch's shuffles leave as it is
        return x.clone(), x.new_zeros(len(x))
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "fast"):
        psi, kept = network(x, weights, scale, shift, coefficients, blocks)
        r = x - psi
        grad = r - network_transposed(r, kept, weights, scale, coefficients, blocks)
    return grad, 0.5 * (r * r).flatten(1).sum(1)


def _has_kernel(dtype: torch.dtype, channels: int, width: int, count: int, *sides: int) -> bool:
    from alps_fast import _cpu

    fits = channels <= 4 and max(sides, default=0) < 1 << 31 and width in WIDTHS and count <= _cpu.most_blocks
    return dtype == torch.float32 and fits


def _layout(precision: str) -> str:
    """Of the weights, on the path that the kernel takes; all but "single" are bfloat16."""
    from alps_fast import _cpu

    return {"avx512bf16": "pairs", "amx": "tiles"}.get(_cpu.isa(), "single") if precision == "fast" else "single"


def fast_multiplications() -> str:
    """What precision "fast" multiplies with in the CPU kernel."""
    return {"single": "float32", "pairs": "bfloat16 (AVX512_BF16)", "tiles": "bfloat16 (AMX)"}[_layout("fast")]


def conv_grad_bytes(shape: Sequence[int], width: int, blocks: Sequence[int], precision: str, backend: str,
                    device: torch.device) -> int:
    """Of the memory that the kernel for this device works in for float32 images of this shape (N, C, H, W); 0: it has none."""
    (images, channels, height, columns), dtype = shape, torch.float32
    count, on_cpu = 2 * blocks[0] + 2 * blocks[1] + blocks[2], device.type == "cpu"
    kernel = first_kernel("conv_grad", backend, device)
    takes = _has_kernel(dtype, channels, width, count) if on_cpu else _has_tiles(dtype, channels, width)
    if kernel is None or not takes:
        return 0
    x = weights = biases = scale = shift = coefficients = grad = value = None
    (fine, middle, coarse), film_levels, edm_levels = blocks, 1, 1
    in_bfloat16 = _layout(precision) != "single" if on_cpu else precision == "fast"
    width_of_network, width = width, columns
    return kernel.bytes(locals(), device, "" if on_cpu else f"_{_cuda_kernel()}")


@compiled("conv_grad", cpu="float32 images of at most four channels and networks 32 or 64 wide")
def _conv_grad_cpu(kernel: Kernel, x: Tensor, weights: Sequence[Tensor], scale: Tensor, shift: Tensor, coefficients: Tensor,
                   blocks: Sequence[int], precision: str = "high") -> tuple[Tensor, Tensor]:
    """float32, or bfloat16 where precision is "fast" and the processor has AMX or AVX512_BF16."""
    (images, channels, height, width), (fine, middle, coarse), width_of_network = x.shape, blocks, weights[0].shape[0]
    if not _has_kernel(x.dtype, channels, width_of_network, len(scale), height, width) or x.numel() == 0:
        return NotImplemented
    layout, film_levels, edm_levels = _layout(precision), scale.shape[1], coefficients.shape[1]
    x, scale, shift, coefficients = laid_out(x), scale.contiguous(), shift.contiguous(), coefficients.contiguous()
    in_bfloat16, packed = layout != "single", packed_once(pack, weights, tuple(blocks), layout)
    biases, grad, value = packed.biases, empty_like(x), torch.empty_like(x[:, 0, 0, 0])
    kernel(locals() | {"weights": packed.weights}, x.device)
    return grad, value


CUDA_KERNELS = ("warps", "warpgroups")
HOPPER = 9  # the major number of its compute capability


def _cuda_kernel() -> str:
    """The CUDA kernel for the current device: tiles of pixels by warps, or by warpgroups, which Hopper has."""
    from alps_fast import _cuda

    name, able = "ALPS_FAST_CONV_GRAD", _cuda.conv_has_warpgroups()
    kernel = os.environ.get(name, "warpgroups" if able else "warps")
    check_choice(name, kernel, CUDA_KERNELS)
    if kernel == "warpgroups" and not able:
        raise BackendError(f"{name}: got 'warpgroups'; wanted 'warps' on this GPU")
    if (not able and name not in os.environ and torch.cuda.is_initialized()  # which it is not in a laboratory without a GPU
            and torch.cuda.get_device_capability()[0] == HOPPER):
        slower("conv_grad: alps_fast._cuda was built for 90, without Hopper's own products; the kernel of warps runs in place "
               "of that of warpgroups: build with ALPS_FAST_CUDA_ARCHS=90a")
    return kernel


def _has_tiles(dtype: torch.dtype, channels: int, width: int) -> bool:
    return dtype == torch.float32 and width == 64 and channels <= 4


@compiled("conv_grad", cuda="networks 64 wide and images of at most four channels, precision 'high' on Hopper")
def _conv_grad_cuda(kernel: Kernel, x: Tensor, weights: Sequence[Tensor], scale: Tensor, shift: Tensor, coefficients: Tensor,
                    blocks: Sequence[int], precision: str = "high") -> tuple[Tensor, Tensor]:
    """On tensor cores, in tiles of all images, bfloat16 or float16 in two pieces; not where blocks have little shared memory.

    "high" is Hopper's alone; there a hidden unit above 65504 makes its image NaN.
    """
    (images, channels, height, width), (fine, middle, coarse), width_of_network = x.shape, blocks, weights[0].shape[0]
    in_bfloat16 = precision == "fast"
    if not _has_tiles(x.dtype, channels, width_of_network) or x.numel() == 0 or max(height, width) >= 1 << 31:
        return NotImplemented
    x, scale, shift, coefficients = (v.contiguous() for v in (x, scale, shift, coefficients))
    scale, shift = (v.clone() if v.data_ptr() % 16 else v for v in (scale, shift))  # which are read in fours
    film_levels, edm_levels, biases = scale.shape[1], coefficients.shape[1], None
    grad, value = torch.empty_like(x), torch.empty_like(x[:, 0, 0, 0])
    with torch.cuda.device(x.device):
        which = _cuda_kernel()
        if kernel.call(f"_{which}_workspace", kernel.packed(locals() | {"weights": None})) < 0:
            return NotImplemented
    packed = packed_once(pack_fragments, weights, tuple(blocks), which, in_bfloat16)
    kernel(locals() | packed._asdict(), x.device, f"_{which}")
    return grad, value


@functools.cache
def _weight_shapes(channels: int, width: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of the weights, in order."""
    square = (width, width, 3, 3)
    block, down, up = (square, square, (width,)), ((width, width, 2, 2), (width,)), ((4 * width, width, 1, 1), (4 * width,))
    ends = ((width, 4 * channels, 3, 3), (width,)), ((4 * channels, width, 3, 3), (4 * channels,))
    return (*ends[0], *count * block, *2 * down, *2 * up, *ends[1])


@Op
def conv_grad(x: Tensor, weights: Sequence[Tensor], scale: Tensor, shift: Tensor, coefficients: Tensor, blocks: Sequence[int],
              precision: str = "high", backend: str = "auto") -> tuple[Tensor, Tensor]:
    """(∇E, E) of the compact network's energy; the formulas are the module's.

    Args:
        x: (N, C, H, W) float32 or float64, in any memory format; what follows has its dtype and device.
        weights: the convolutions' tensors, in the module's order. scale, shift: (blocks, N or 1, width).
        coefficients: (3, N or 1): c_skip, c_out, c_in.
        blocks: three counts of residual blocks.
        precision: "high", or "fast" with bfloat16 multiplications. backend: one of `alps_fast.ops._dispatch.NAMES`.

    Returns:
        (∇E (N, C, H, W), E (N,)).

    Raises:
        ArgumentError: naming the argument.

    Source: [ALPS] eq. 9; [EDM] for the coefficients.
    """
    check_choice("precision", precision, ("high", "fast"))
    check(x.ndim == 4 and x.dtype in FLOATS, "x", described(x), "(N, C, H, W), float32 or float64")
    check(len(blocks) == 3 and min(blocks) >= 0, "blocks", tuple(blocks), "three counts >= 0")
    count, rows = 2 * blocks[0] + 2 * blocks[1] + blocks[2], (1, x.shape[0])
    if scale.ndim != 3 or scale.shape[0] != count or scale.shape[1] not in rows:
        raise refused("scale", f"shape {tuple(scale.shape)}", f"({count}, 1 or {x.shape[0]}, width)")
    if shift.shape != scale.shape:
        raise refused("shift", f"shape {tuple(shift.shape)}", f"the shape of scale, {tuple(scale.shape)}")
    if coefficients.ndim != 2 or coefficients.shape[0] != 3 or coefficients.shape[1] not in rows:
        raise refused("coefficients", f"shape {tuple(coefficients.shape)}", f"(3, 1 or {x.shape[0]})")
    for name, v in (("scale", scale), ("shift", shift), ("coefficients", coefficients)):
        check_kind(name, v, x)
    shapes = _weight_shapes(x.shape[1], scale.shape[2], count)
    check(len(weights) == len(shapes), "weights", f"{len(weights)} tensors", f"{len(shapes)} for blocks {tuple(blocks)}")
    for i, (v, shape) in enumerate(zip(weights, shapes, strict=True)):
        check_kind("weights", v, x)
        if v.shape != shape:
            raise refused("weights", f"shape {tuple(v.shape)} of tensor {i}", f"{shape}")
    with torch.no_grad():
        grad, value = dispatch("conv_grad", backend, x.device, x, weights, scale, shift, coefficients, blocks, precision)
    return grad.contiguous(), value


@conv_grad.register_fake
def _(x: Tensor, weights: Sequence[Tensor], scale: Tensor, shift: Tensor, coefficients: Tensor, blocks: Sequence[int],
      precision: str = "high", backend: str = "auto") -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[0])
