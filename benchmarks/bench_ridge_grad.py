"""ridge_grad of the shipped models against conv2d with autograd (plain) and conv2d with conv_transpose2d (tuned)."""

import torch
import torch.nn.functional as F

import alps_fast as af
from alps_fast.bench.common import Work, fastest, full_float32, isa, parametrize
from alps_fast.bench.fma_peak import fma_peak
from alps_fast.energies import RidgeEnergy
from alps_fast.ops.ridge_grad import down, down_transposed, ridge_grad

T = 0.5
CASES = [("brain-ridge", (16, 2, 128, 128)), ("natural-ridge", (192, 1, 64, 64)), ("natural-ridge", (1, 1, 256, 256))]


def work(shape: tuple[int, ...], filters: list[torch.Tensor]) -> Work:
    """Reads x and writes its gradient; two fma a tap, filter and pixel, once down and once up. Slopes are not counted."""
    n, channels, height, width = shape
    fmas = 0
    for bank in filters:
        fmas += 2 * bank.numel() * height * width
        height, width = -(-height // 2), -(-width // 2)
    return Work(bytes=8 * torch.Size(shape).numel(), flops=2 * n * channels * fmas)


def plain(x, filters, w, r, q, mu):
    """The energy as it is written, and autograd."""
    x = x.detach().requires_grad_()
    n, c = x.shape[:2]
    level, value = (x - mu).flatten(0, 1)[:, None], x.new_zeros(())
    for s in range(len(q)):
        value = value + 0.5 * q[s].sum() * (level * level).sum()
        if s < len(filters):
            z = F.conv2d(level, filters[s], padding=filters[s].shape[-1] // 2).unflatten(0, (n, c))
            square = (z * z).sum(1)
            for ws, rs in zip(w[s, :, 0, :, None, None], r[s, :, 0, :, None, None], strict=True):
                value = value + (0.5 * ws / rs * torch.log1p(square * rs)).sum()
        level = down(level)
    return torch.autograd.grad(value, x)[0]


@torch.no_grad()
def tuned(x, filters, w, r, q, mu):
    """The gradient in closed form, in place, no value and no graph."""
    n, c = x.shape[:2]
    levels = [(x - mu).flatten(0, 1)[:, None]]
    for _ in q[1:]:
        levels.append(down(levels[-1]))
    grad: torch.Tensor | None = None
    for s in reversed(range(len(q))):
        here = levels[s] * q[s, 0]
        if s < len(filters):
            z = F.conv2d(levels[s], filters[s], padding=filters[s].shape[-1] // 2).unflatten(0, (n, c))
            square = (z * z).sum(1, keepdim=True) if c > 1 else z * z
            slope: torch.Tensor | float = 0.0
            for ws, rs in zip(w[s, :, 0, :, None, None], r[s, :, 0, :, None, None], strict=True):
                slope = (square * rs).add_(1).reciprocal_().mul_(ws).add_(slope)
            here += F.conv_transpose2d(z.mul_(slope).flatten(0, 1), filters[s], padding=filters[s].shape[-1] // 2)
        grad = here if grad is None else here.add_(down_transposed(grad, *levels[s].shape[2:]))
    assert grad is not None
    return grad.reshape(x.shape)


@parametrize("want_value", [False, True], ids=["gradient", "value too"])
@parametrize("name, shape", CASES)
@full_float32()
def test_ridge_grad(measure, name, shape, want_value):
    x, backend = 0.5 * torch.randn(shape, device=measure.device), fastest("ridge_grad", measure.device)
    energy = af.energies.load(name)
    assert isinstance(energy, RidgeEnergy)
    constants = energy._constants(T, x)

    def ours():
        return ridge_grad(x, *constants, want_value=want_value, backend=backend)

    baselines = {"plain": lambda: plain(x, *constants), "tuned": lambda: tuned(x, *constants)}
    reference = ridge_grad(x[:2], *constants, backend="torch")
    torch.testing.assert_close(ours()[0][:2], reference[0], rtol=1e-4, atol=1e-5)
    if want_value:
        torch.testing.assert_close(ours()[1][:2], reference[1])
    for run in baselines.values():
        torch.testing.assert_close(run()[:2], reference[0], rtol=1e-4, atol=1e-5)
    case = f"{name}, {shape[0]} x {shape[2]}x{shape[3]}x{shape[1]}{', value too' if want_value else ''}"
    peak = fma_peak(isa(backend)) if backend == "cpu" else None
    measure(case, backend, ours, baselines, work(shape, constants[0]), rounds=5, peak=peak)
