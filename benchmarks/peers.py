"""DeepInverse's unadjusted Langevin step with the operator of a case: what users of that library run today.

Its step is x − h (Aᴴ(Ax − y)/η² + ∇E/t²) + √(2h) ξ: no projection, so it needs many more of them. The gradient of the prior is
given, as it is to our ops.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

STEP = 1e-4


def deepinv() -> Any:
    """The module, or None where the extra `peers` is not installed."""
    if importlib.util.find_spec("deepinv") is None:
        return None
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # its wheel is built for CUDA: with a CPU torch its operators are not there for it to describe
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
    return importlib.import_module("deepinv")


_kept: list[torch.library.Library] = []  # what a library declares goes with it


def ula(physics: Callable[[Any], Any], x: Tensor, grad: Tensor, truth: Tensor, normal: Callable[[Tensor], Tensor],
        inv_eta2: float, w: float) -> dict[str, Callable[[], Tensor]]:
    """{"deepinv": one ULA step}, or nothing where deepinv is not installed, or x on a GPU.

    Args:
        physics: deepinv -> its operator. x, grad: states (N, H, W, C). truth: (1, H, W, C), of which y is measured.
        normal: AᴴA as ours has it, on images (N, C, H, W); its step must agree with it.
        inv_eta2: 1/η². w: 1/t², the weight of the gradient.
    """
    module = None if x.is_cuda else deepinv()
    if module is None:
        return {}
    x, grad, truth = (v.movedim(-1, 1).contiguous() for v in (x, grad, truth))  # the layout of its users

    class Given(module.optim.ScorePrior):  # type: ignore[name-defined]
        """A prior whose gradient has been computed."""

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def grad(self, *_: object, **__: object) -> Tensor:
            return grad

    operator, prior = physics(module), Given()
    fidelity = module.optim.data_fidelity.L2(sigma=inv_eta2**-0.5)
    iterator = module.sampling.ULAIterator({"step_size": STEP, "alpha": w, "sigma": 1.0})
    with torch.no_grad():
        y = operator.A(truth)

    def step() -> Tensor:
        with torch.no_grad():
            return iterator({"x": x}, y, operator, fidelity, prior, 0)["x"]

    state = torch.get_rng_state()
    found = step()
    torch.set_rng_state(state)
    noise = torch.randn_like(x) * (2 * STEP) ** 0.5
    torch.testing.assert_close(found, x - STEP * (normal(x - truth) * inv_eta2 + w * grad) + noise, rtol=1e-4, atol=1e-4)
    return {"deepinv": step}
