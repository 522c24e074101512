"""The call of the code that was published with [ALPS], run by this sampler.

What maps to what, and where the published code does something else than it says: docs/coming_from.md §5.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..energies import DenoiserEnergy
from ..energies.base import Energy
from ..errors import check, refused
from ..operators import CartesianMRI, CircularBlur, Inpainting, LinearOperator, Operator
from ..samplers import Progress, Sampler, Schedule, map_estimate

Result = Tensor | tuple[Tensor, Tensor]


def ALPS(A: Any, net: nn.Module | Energy, y: Tensor, opts: Any, isALPS: bool = True, storeIntermediate: bool = False,
         **options: Any) -> Result:
    """One sample by the published rule, or the MAP estimate, called as [ALPS]'s code is.

    Args:
        A: an operator of that code, or one made like them: `eta2`, the variance of the noise, with `mask` (inpainting) or `Hfreq`
            (a circular blur's spectrum, which is taken as it is), else `forward` and `adjoint`, on (B, C, H, W). Or ours.
        net: ψ of E = ½‖x − ψ(x, σ)‖², called net(x, sigma), such as that code's Denoiser. Or an energy of ours.
        y: (B, C, H, W), images in [−1, 1].
        opts: with num_steps, sigma_max, sigma_min, rho and K.
        isALPS: a sample; False: the MAP estimate, which here has no noise between levels.
        storeIntermediate: also return the states at the ends of the levels, before the next level's noise.
        options: of `Sampler`. Without a seed one is drawn from torch's generator. noise="averaged" makes of what is returned,
            which by the published rule is a conditional mean, a sample with the posterior's variance.

    Returns:
        x (B, C, H, W); with storeIntermediate also (num_steps, C, H, W) on the CPU, of the one image that B must then be.

    Raises:
        ArgumentError: naming the argument.
    """
    return _run(operator_of(A, y), energy_of(net), y, opts, isALPS, storeIntermediate, options)


def ALPS_MRI(opts: Any, A: Any, net: nn.Module | Energy, y: Tensor, tstCsm: Tensor, tstMask: Tensor, class_labels: Any = None,
             isALPS: bool = True, storeIntermediate: bool = False, **options: Any) -> Result:
    """Its twin for parallel MRI, the arguments in its order.

    Noise is coloured by maps and mask, exactly, where the published code colours it by the mask alone.

    Args:
        opts: also with inference_std, the standard deviation of the noise in every real component.
        A: what is centred how: that code's `sense_v1`, or None, which stands for it. Transforms are as there, also for odd sizes,
            whose k-space and image it rolls by a pixel.
        net: called net(x, sigma, class_labels), x (N, 2, H, W). Or an energy of ours.
        y: k-space (1, coils, H, W) complex. tstCsm: (1, coils, H, W) complex. tstMask: (H, W), or with axes of one in front.
        The others as `ALPS` takes them.

    Returns:
        x (1, 1, H, W) complex; with storeIntermediate also magnitudes (num_steps, 1, H, W) on the CPU.

    Raises:
        ArgumentError: naming the argument.
    """
    check(A is None or type(A).__name__.startswith("sense"), "A", type(A).__name__, "a sense_v1, or None")
    check(tstCsm.ndim == 4 and len(tstCsm) == 1, "tstCsm", f"shape {tuple(tstCsm.shape)}", "(1, coils, H, W)")
    size = tuple(tstCsm.shape[-2:])
    mask = tstMask.reshape(tstMask.shape[-2:]).expand(size)
    shifts = tuple(-(n % 2) for n in size)

    def rolled(v: Tensor, back: bool = False) -> Tensor:
        return v.roll(tuple(-s for s in shifts) if back else shifts, (-2, -1))

    operator = CartesianMRI(rolled(mask.real), rolled(tstCsm[0]), noise_std=float(opts.inference_std))
    energy = energy_of(net, 2, class_labels)
    found = _run(operator, energy, rolled(y), opts, isALPS, storeIntermediate, options)
    if isinstance(found, tuple):
        return rolled(found[0], back=True), rolled(found[1], back=True).abs()
    return rolled(found, back=True)


def operator_of(A: Any, y: Tensor) -> Operator:
    """Ours for one of the published code.

    Raises:
        ArgumentError: naming A.
    """
    if isinstance(A, Operator):
        return A
    check(hasattr(A, "eta2"), "A", type(A).__name__, "an operator with eta2, the variance of its noise, or one of ours")
    eta = math.sqrt(float(A.eta2))
    if isinstance(getattr(A, "Hfreq", None), Tensor):
        return CircularBlur(torch.fft.fftshift(torch.fft.ifft2(A.Hfreq.reshape(A.Hfreq.shape[-2:])).real), eta)
    if isinstance(getattr(A, "mask", None), Tensor):
        mask = A.mask if A.mask.ndim == 4 else A.mask.reshape(1, *A.mask.shape)
        if bool((mask != mask[:1]).any()):
            raise refused("A", f"a mask of shape {tuple(mask.shape)}, another for each image", "one for all images")
        return Inpainting(mask[0], eta)
    check(callable(getattr(A, "forward", None)) and callable(getattr(A, "adjoint", None)), "A", type(A).__name__,
          "an operator with forward and adjoint")
    return LinearOperator(A.forward, A.adjoint, eta, tuple(A.adjoint(y).shape[-3:]))


class Labelled(nn.Module):
    """A network with its class labels given."""

    def __init__(self, network: nn.Module, labels: Any):
        super().__init__()
        self.network, self.labels = network, labels

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """ψ of x (N, C, H, W) at sigma (N,)."""
        return self.network(x, sigma, self.labels)


def energy_of(net: nn.Module | Energy, channels: int | None = None, labels: Any = None) -> Energy:
    """Ours for a network of the published code, which is called with labels where there are channels to say of MRI."""
    if isinstance(net, Energy):
        return net
    return DenoiserEnergy(net if channels is None else Labelled(net, labels), channels=channels)


def _run(operator: Operator, energy: Energy, y: Tensor, opts: Any, sampled: bool, store: bool, options: dict[str, Any]) -> Result:
    schedule = Schedule(opts.sigma_max, opts.sigma_min, levels=opts.num_steps, steps=opts.K, rho=opts.rho)
    check(not store or len(y) == 1, "storeIntermediate", f"True with {len(y)} measurements", "one measurement")
    seen: list[Tensor] = []

    def keep(progress: Progress) -> None:
        if store:
            seen.append(progress.means[0].cpu())

    options.setdefault("progress", False)
    if sampled:
        rule: dict[str, Any] = {"noise": "independent", "seed": int(torch.randint(1 << 62, (), device="cpu"))}
        x = Sampler(operator, energy, chains=1, schedule=schedule, callback=keep, **(rule | options))(y).samples[:, 0]
    else:
        x = map_estimate(y, operator, energy, schedule=schedule, callback=keep, **options).image
    return (x, torch.stack(seen)) if store else x
