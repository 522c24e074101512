"""The paper's energy: half the squared residual of a network, conservative whatever its weights."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ..errors import check, check_choice
from ..ops.conv_grad import conv_grad, conv_grad_bytes
from .base import Energy
from .compact import CompactNet, edm_coefficients


class DenoiserEnergy(Energy):
    """E(x, t) = ½‖x − ψ(x, t)‖², ∇E = (x − ψ) − Jᵀ(x − ψ), J the Jacobian of ψ(·, t)        ([ALPS] eq. 9)

    Args:
        network: ψ, a `CompactNet` (run by `ops.conv_grad`) or any torch module called as network(x, t) with
            x (N, C, H, W) real float32 and t (N,), which goes through autograd; x and the weights of its convolutions,
            from now on, are channels-last in memory.
        channelwise: apply ψ to each group of `channels` channels as an image of its own (grey prior, RGB image).
        channels: real channels that a module takes; a CompactNet knows its own.
        precision: "high" float32, "fast" bfloat16 multiplications with float32 residuals; for a module by autocast.
        backend: of the op, for a CompactNet.
    """

    def __init__(self, network: nn.Module, *, channelwise: bool = False, channels: int | None = None,
                 precision: str = "high", backend: str = "auto"):
        check(isinstance(network, nn.Module), "network", type(network).__name__, "a torch.nn.Module")
        check_choice("precision", precision, ("high", "fast"))
        self.network = network.eval().requires_grad_(False)
        if not isinstance(network, CompactNet):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's own types
        self.channels = network.channels if isinstance(network, CompactNet) else channels
        self.channelwise, self.precision, self.backend = channelwise, precision, backend
        check(not channelwise or self.channels is not None, "channels", channels, "a number, as channelwise is set")
        self._level: tuple[float, torch.dtype, torch.device, tuple[Tensor, Tensor, Tensor]] | None = None

    def _constants(self, net: CompactNet, t: float, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scale, shift and EDM coefficients, once a level."""
        key = (t, x.dtype, x.device)
        if self._level is None or self._level[:3] != key:
            net.to(x)
            level = torch.tensor([t], dtype=x.dtype, device=x.device)
            with torch.no_grad():
                self._level = (*key, (*net.film_vectors(level), edm_coefficients(level, net.sigma_data)))
        return self._level[3]

    def prepare(self, t: float, x: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        return self._constants(self.network, t, x) if isinstance(self.network, CompactNet) else None

    def _workspace(self, shape: tuple[int, int, int, int]) -> int:
        net = self.network
        return conv_grad_bytes(shape, net.width, net.blocks, self.precision, self.backend) if isinstance(net, CompactNet) else 0

    def _value_and_grad(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        if isinstance(self.network, CompactNet):
            constants = self._constants(self.network, t, x)
            grad, value = conv_grad(x, self.network.weights(), *constants, self.network.blocks, self.precision, self.backend)
            return value, grad
        with torch.enable_grad():
            x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
            with torch.autocast(x.device.type, torch.bfloat16) if self.precision == "fast" else nullcontext():
                psi = self.network(x, torch.full((x.shape[0],), t, dtype=x.dtype, device=x.device))
            residual = x - psi
            value = 0.5 * (residual * residual).flatten(1).sum(1)
            grad = torch.autograd.grad(value.sum(), x)[0]
        return value.detach(), grad
