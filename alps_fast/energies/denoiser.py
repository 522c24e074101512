"""The paper's energy: half the squared residual of a network, conservative whatever its weights."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import check, check_choice
from ..ops._pack_once import packed_once, stamp
from ..ops.conv_grad import conv_grad, conv_grad_bytes
from .base import DENOISERS_STRIDE, Energy
from .compact import CompactNet, edm_coefficients
from .foreign import Foreign, ordinary

LEVELS = 256  # whose constants are kept; more than a schedule has


class DenoiserEnergy(Energy):
    """E(x, t) = ½‖x − ψ(x, t)‖², ∇E = (x − ψ) − Jᵀ(x − ψ), J the Jacobian of ψ(·, t)        ([ALPS] eq. 9)

    For networks that were distilled into such an energy, as `alps_fast.distill` does and the shipped `…-denoiser` were: their
    gradient, not their residual, was matched to a denoiser. A denoiser as it is, such as a diffusion model, goes into
    `DiffusionPrior`: ½‖x − D‖² is not the energy that D belongs to, and far too broad in flat directions. With the exact denoiser
    of N(0, s²) it is that of a standard deviation (s² + t²)/t in place of √(s² + t²): 2.6 for .51 with s = ½, t = 0.1.

    Args:
        network: ψ, a `CompactNet` (run by `ops.conv_grad`) or any torch module called as network(x, t) with x (N, C, H, W) real
            and t (N,), which goes through autograd. It is left as it is, in its mode and with its gradients: evaluations run on
            a twin on the same weights, in evaluation mode, and follow when the weights change. x and t have the dtype of its
            first floating-point parameter; x, and the weights of the twin's convolutions, are channels-last in memory.
        channelwise: apply ψ to each group of `channels` channels as an image of its own (grey prior, RGB image).
        channels: real channels that a module takes; a CompactNet knows its own.
        precision: "high" float32, "fast" bfloat16 multiplications with float32 residuals; for a module by autocast, with the
            weights of convolutions and linear layers converted once. torch.autocast around a run does not reach the network.
        backend: of the op, for a CompactNet.
        channels_last: False for a module whose code takes contiguous images alone.

    Raises:
        ArgumentError: naming the argument; of an evaluation, network, where its output has another shape than x, autograd cannot
            follow it to x (a forward under torch.no_grad).
    """

    stride = DENOISERS_STRIDE

    def __init__(self, network: nn.Module, *, channelwise: bool = False, channels: int | None = None,
                 precision: str = "high", backend: str = "auto", channels_last: bool = True):
        check(isinstance(network, nn.Module), "network", type(network).__name__, "a torch.nn.Module")
        check_choice("precision", precision, ("high", "fast"))
        self.network = network
        self._foreign = None if isinstance(network, CompactNet) else Foreign(network, None, channels_last, "network")
        self.channels = network.channels if isinstance(network, CompactNet) else channels
        self.channelwise, self.precision, self.backend = channelwise, precision, backend
        check(not channelwise or self.channels is not None, "channels", channels, "a number, as channelwise is set")
        self._levels: dict[Hashable, tuple[Tensor, Tensor, Tensor]] = {}

    def _constants(self, net: CompactNet, t: float, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scale, shift and EDM coefficients, once a level for as long as the weights they follow from stay as they are."""
        key = (t, x.dtype, x.device, *stamp(net.film_weights()))
        found = self._levels.get(key)
        if found is None:
            with torch.inference_mode(False), torch.no_grad():
                level = torch.full((1,), t, dtype=x.dtype, device=x.device)
                found = (*net.film_vectors(level), edm_coefficients(level, net.sigma_data))
            if len(self._levels) >= LEVELS:
                self._levels.clear()
            self._levels[key] = found
        return found

    def prepare(self, t: float, x: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        return self._constants(self.network, t, x) if isinstance(self.network, CompactNet) else None

    def level(self, t: float, x: Tensor) -> tuple[Tensor, ...]:
        """Scale, shift and EDM coefficients of a CompactNet; t (1,) for another network."""
        if isinstance(self.network, CompactNet):
            return self._constants(self.network, t, x)
        assert self._foreign is not None
        return (torch.full((1,), t, dtype=self._foreign.computes_in(x), device=x.device),)

    def revision(self) -> Hashable:
        return stamp(self.network.parameters()) if self._foreign is None else self._foreign.revision()

    def begin(self) -> None:
        if self._foreign is not None:
            self._foreign.renew()

    def _workspace(self, shape: tuple[int, int, int, int], device: torch.device) -> int:
        net = self.network
        if not isinstance(net, CompactNet):
            return 0
        return conv_grad_bytes(shape, net.width, net.blocks, self.precision, self.backend, device)

    def _value_and_grad(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        return self._value_and_grad_at(x, self.level(t, x))

    def _value_and_grad_at(self, x: Tensor, level: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        if isinstance(self.network, CompactNet):
            return self._compact(self.network, x, level)
        assert self._foreign is not None
        with torch.inference_mode(False), torch.enable_grad():
            x = ordinary(x).requires_grad_()
            psi = self._foreign(x, level[0].repeat(x.shape[0]), self.precision)
            check(psi.shape == x.shape, "network", f"output of shape {tuple(psi.shape)}", f"that of x, {tuple(x.shape)}")
            check(psi.requires_grad, "network", "an output that autograd cannot follow to x (is forward under torch.no_grad?)",
                  "one that it can, or a DiffusionPrior, which asks for no derivative")
            residual = x - psi
            value = 0.5 * (residual * residual).flatten(1).sum(1)
            grad = torch.autograd.grad(value.sum(), x)[0]
        return value.detach(), grad

    def _compact(self, net: CompactNet, x: Tensor, level: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        weights, (scale, shift, coefficients) = net.weights(), level
        if weights[0].dtype != x.dtype or weights[0].device != x.device:
            weights = packed_once(_like, weights, x.dtype, x.device)
        with torch.no_grad():
            grad, value = conv_grad(x, weights, scale, shift, coefficients, net.blocks, self.precision, self.backend)
        return value, grad


def _like(weights: Sequence[Tensor], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """The weights in this dtype and on this device."""
    return [v.detach().to(device, dtype) for v in weights]
