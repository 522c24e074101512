"""conv_grad against autograd in float32 (plain) and the gradient written out, compiled, in bfloat16 where ours is (tuned)."""

from contextlib import nullcontext

import torch

from alps_fast.bench.common import Work, fastest, full_float32, parametrize
from alps_fast.energies import CompactNet, DenoiserEnergy, load
from alps_fast.energies.compact import edm_coefficients
from alps_fast.ops.conv_grad import conv_grad, conv_grad_reference

T = 0.4


def work(images: int, height: int, width: int, weights: list[torch.Tensor]) -> Work:
    """Forward and transposed pass multiply once with every weight at each pixel of its scale; image in, gradient out."""
    body = (len(weights) - 12) // 3
    fine = height * width // 4
    scale = [1] * 6 + [1 / 4] * 6 + [1 / 16] * 4
    order = scale[:3] + scale[6:9] + scale[12:] + scale[9:12] + scale[3:6]
    assert len(order) == body
    products = sum(fine * share * (weights[2 + 3 * i].numel() + weights[3 + 3 * i].numel()) for i, share in enumerate(order))
    joints = weights[2 + 3 * body:]
    products += fine * (weights[0].numel() + joints[8].numel() + (joints[0].numel() + joints[6].numel()) / 4
                        + (joints[2].numel() + joints[4].numel()) / 16)
    return Work(bytes=images * 2 * 4 * height * width, flops=int(images * 2 * 2 * products))


@parametrize("precision", ["fast", "high"])
@parametrize("images, size", [(48, 64), (3, 64), (1, 256)])
def test_conv_grad(measure, images, size, precision):
    device = measure.device
    energy = load("natural-denoiser")
    assert isinstance(energy, DenoiserEnergy) and isinstance(energy.network, CompactNet)
    net = energy.network.to(device)
    t = torch.tensor([T], device=device)
    with torch.no_grad():
        weights = [w.detach() for w in net.weights()]
        level = *net.film_vectors(t), edm_coefficients(t, net.sigma_data), list(net.blocks)
    x = torch.randn(images, 1, size, size, device=device)
    backend = fastest("conv_grad", device)
    compiled = measure.compile(conv_grad_reference)

    def plain():
        image = x.detach().requires_grad_()
        return torch.autograd.grad(0.5 * ((image - net(image, T)) ** 2).sum(), image)[0]

    def tuned():
        with torch.no_grad():
            return compiled(x, weights, *level, precision)[0]

    def ours():
        return conv_grad(x, weights, *level, precision, backend)

    exact = conv_grad(x[:1], weights, *level, "high", "torch")[0]
    assert (ours()[0][:1] - exact).norm() / exact.norm() < {"high": 2e-6, "fast": 2e-2}[precision]
    with full_float32():
        torch.testing.assert_close(plain()[:1], exact, rtol=1e-3, atol=1e-4)
    with nullcontext() if precision == "fast" else full_float32():  # torch's default beside what rounds more
        measure(f"conv_grad, {images} x {size}x{size}, {precision}", backend, ours, {"plain": plain, "tuned": tuned},
                work(images, size, size, weights), rounds=7, gemm=torch.bfloat16 if precision == "fast" else torch.float32)
