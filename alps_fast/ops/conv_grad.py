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

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import check, check_choice
from ._dispatch import Op, implementation, implements

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
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "fast"):
        psi, kept = network(x, weights, scale, shift, coefficients, blocks)
        r = x - psi
        grad = r - network_transposed(r, kept, weights, scale, coefficients, blocks)
    return grad, 0.5 * (r * r).flatten(1).sum(1)


@Op
def conv_grad(x: Tensor, weights: Sequence[Tensor], scale: Tensor, shift: Tensor, coefficients: Tensor, blocks: Sequence[int],
              precision: str = "high", backend: str = "auto") -> tuple[Tensor, Tensor]:
    """(∇E, E) on the chosen backend; see the module's docstring."""
    count = 2 * blocks[0] + 2 * blocks[1] + blocks[2]
    check_choice("precision", precision, ("high", "fast"))
    check(x.ndim == 4, "x", f"shape {tuple(x.shape)}", "(N, C, H, W)")
    check(len(weights) == 3 * count + 12, "weights", f"{len(weights)} tensors", f"{3 * count + 12} for blocks {tuple(blocks)}")
    for name, v in (("scale", scale), ("shift", shift)):
        check(v.ndim == 3 and v.shape[0] == count and v.shape[1] in (1, x.shape[0]), name, f"shape {tuple(v.shape)}",
              f"({count}, 1 or {x.shape[0]}, width)")
    check(coefficients.shape in ((3, 1), (3, x.shape[0])), "coefficients", f"shape {tuple(coefficients.shape)}", "(3, 1 or N)")
    with torch.no_grad():
        grad, value = implementation("conv_grad", backend, x.device)(x, weights, scale, shift, coefficients, blocks, precision)
    return grad.contiguous(), value


@conv_grad.register_fake
def _(x: Tensor, weights: Sequence[Tensor], scale: Tensor, shift: Tensor, coefficients: Tensor, blocks: Sequence[int],
      precision: str = "high", backend: str = "auto") -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[0])
