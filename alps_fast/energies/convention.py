"""Whether a network answers as was said of it: a look at made images, once, before anything is sampled with it."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, refused

if TYPE_CHECKING:
    from .diffusion import DiffusionPrior

LOW, BETWEEN, HIGH = 0.01, 0.3, 20.0  # levels, in halves of the images' range
TRIED = 64  # side of an image that networks are tried on
BRIGHT = 0.8  # of half that range
AMPLIFIED = 0.05  # share of t by which D may err where it is x less t times what the network says
UNIT = "it answers as one that knows [0, 1]: value_range=(0, 1), and image_range=(0, 1) where your images span that too"


class Answer(NamedTuple):
    """What a network says of a made image: F at u, the network's scale of middle + half · image + t · noise."""

    t: float
    image: Tensor
    u: Tensor
    out: Tensor


def examine(prior: DiffusionPrior, x: Tensor) -> None:
    """Refuse a network by whose D, on made images of the shape of x, D(x, small t) is not about x, or D(x, large t) not constant.

    Shapes are those of x, so that a compiled network is compiled once; torch's own random numbers are left alone.

    Raises:
        ArgumentError: naming denoiser, what was seen, and what it looks like; naming channels, where a convolution takes others.
    """
    with torch.inference_mode(False), torch.no_grad():
        made = Made(prior, x)
        try:
            low, high = made.ends(prior)
        except RuntimeError as error:
            if f"but got {x.shape[1]} channels" not in str(error):  # as torch's convolutions say it
                raise
            raise refused("channels", x.shape[1], f"as many as the network takes: {' '.join(str(error).split())}") from error
        what = made.fault(prior, prior.predicts, low, high)
        what = f"{what}; wanted a network with predicts={prior.predicts!r}; {made.hint(low, high)}" if what else made.lifts()
    if what:
        raise ArgumentError(f"denoiser: {what} (probe=False takes it as it is)")


def check_channels(prior: DiffusionPrior) -> None:
    """Refuse channels that a module cannot take, if its first convolution takes as many as do go through it.

    It is asked where that convolution has another count alone: networks that begin by folding pixels into channels have, too.

    Raises:
        ArgumentError: naming channels.
    """
    network, channels = prior.network, prior.channels
    assert channels is not None
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None) if isinstance(network, nn.Module) else None
    if first is None or first.in_channels == channels or first.weight.is_meta:
        return
    t = 1.0 if prior.t_range is None else math.sqrt(prior.t_range[0] * prior.t_range[1])

    def takes(count: int) -> bool:
        with torch.inference_mode(False), torch.no_grad(), suppress(Exception):  # whatever a network of another size raises
            prior.answer(torch.zeros(1, count, TRIED, TRIED, device=first.weight.device), t)
            return True
        return False

    if not takes(channels) and takes(first.in_channels):
        raise refused("channels", channels, f"{first.in_channels}, as the network's first convolution takes (probe=False "
                      "takes it as it is)")


class Made:
    """The made images for one prior: a ramp, nothing, two greys, each with the same noise. Sizes are in halves of the range."""

    def __init__(self, prior: DiffusionPrior, x: Tensor):
        low, high = prior.image_range
        self.prior, self.half, self.middle = prior, (high - low) / 2, (high + low) / 2
        self.noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu").to(x)
        ramp = torch.linspace(-BRIGHT, BRIGHT, x.shape[2], dtype=x.dtype, device=x.device)
        self.ramp = ramp.view(-1, 1).expand(x.shape)

    def ask(self, network: DiffusionPrior, level: float, image: Tensor) -> Answer:
        """The network at this level, or at the nearest that it was trained at."""
        lowest, highest = self.prior.t_range or (0.0, math.inf)
        t = min(max(level * self.half, lowest), highest)
        u = network.scaled(self.middle + self.half * image + t * self.noise)
        return Answer(t, image, u, network.answer(u, t))

    def ends(self, network: DiffusionPrior) -> tuple[Answer, Answer]:
        """At a small and a large t."""
        return self.ask(network, LOW, self.ramp), self.ask(network, HIGH, torch.zeros_like(self.ramp))

    def denoised(self, network: DiffusionPrior, at: Answer, predicts: str) -> Tensor:
        """D, were the network one that predicts this."""
        return (network.meant(at.u, at.out, at.t, predicts) - self.middle) / self.half

    def fault(self, network: DiffusionPrior, predicts: str, low: Answer, high: Answer) -> str | None:
        """What is wrong with D at a small t or a large one; None where nothing is, or where its levels are neither."""
        level = low.t / self.half
        error = _rms(self.denoised(network, low, predicts) - low.image)
        if level <= 0.1 and not error < 5 * level + 0.1:
            return f"at t = {low.t:.3g} its D is {error * self.half:.3g} from the clean image, rms"
        level = high.t / self.half
        answer = self.denoised(network, high, predicts)
        share = abs(float((answer * self.noise).mean() / self.noise.square().mean()))
        most = 0.3 + (AMPLIFIED * level if predicts in ("noise", "score") else 0.0)
        if level >= 5 and not (_rms(answer) < 1 + 0.2 * level and share < most):
            return (f"at t = {high.t:.3g}, given noise alone, its D is {_rms(answer) * self.half:.3g} rms and follows the noise, "
                    "where it should hardly change")
        return None

    def hint(self, low: Answer, high: Answer) -> str:
        """The convention by which the same answers are right, or where to look for it."""
        prior = self.prior
        for predicts in ("image", "noise", "score", *(["velocity"] if prior.log_levels is not None else [])):
            if self.fault(prior, predicts, low, high) is None:
                return f"it answers as one of predicts={predicts!r} does"
        residuals = (at._replace(out=at.u - at.out) for at in (low, high))
        if self.fault(prior, "image", *residuals) is None:
            return "it answers with the residual x − D(x, t): pass a function that subtracts it from x"
        unit = prior.spanning((0.0, 1.0))
        if unit.scale != prior.scale and self.fault(unit, prior.predicts, *self.ends(unit)) is None:
            return UNIT
        if prior.log_levels is None:
            return "one trained on a schedule of its own needs alphas_cumprod, one for other levels t_range"
        return "predicts, alphas_cumprod or value_range may be another's"

    def lifts(self) -> str | None:
        """What a network that knows [0, 1] makes of the darker half of another range, where it is taken for one of that range."""
        lowest, highest = self.prior.t_range or (0.0, math.inf)
        if self.prior.scale != 1.0 or not lowest <= BETWEEN * self.half <= highest:
            return None
        greys = (self.ask(self.prior, BETWEEN, torch.full_like(self.ramp, v)) for v in (BRIGHT, -BRIGHT))
        bright, dark = (float(self.denoised(self.prior, at, self.prior.predicts).mean()) for at in greys)
        if bright > 0.6 * BRIGHT and dark > -0.25 * BRIGHT:
            return (f"of grey at {BRIGHT} and {-BRIGHT} of half the range, with noise, it makes {bright:.2f} and {dark:.2f}; "
                    f"wanted both kept; {UNIT}")
        return None


def _rms(v: Tensor) -> float:
    return float(v.square().mean().sqrt())
