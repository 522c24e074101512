"""Whether a network answers as was said of it: a look at made images, once, before anything is sampled with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..errors import ArgumentError

if TYPE_CHECKING:
    from .diffusion import DiffusionPrior

LOW, BETWEEN, HIGH = 0.01, 0.3, 20.0  # levels, in halves of the images' range
BRIGHT = 0.8  # of half that range
AMPLIFIED = 0.05  # share of t by which D may err where it is x less t times what the network says
UNIT = "it answers as one that knows [0, 1]: value_range=(0, 1), and image_range=(0, 1) where your images span that too"


class Answers(NamedTuple):
    """What a network says of made images: F at u, the network's images of middle + half · image + t · noise."""

    t: float
    image: Tensor
    noise: Tensor
    u: Tensor
    out: Tensor


def examine(prior: DiffusionPrior, x: Tensor) -> None:
    """Refuse a network by whose D, on made images of the shape of x, D(x, small t) is not about x, or D(x, large t) not constant.

    Shapes are those of x, so that a compiled network is compiled once; of random numbers torch's own are left alone.

    Raises:
        ArgumentError: naming denoiser, what was seen, and what it looks like.
    """
    low_end, high_end = prior.image_range
    half, middle = (high_end - low_end) / 2, (high_end + low_end) / 2
    lowest, highest = prior.t_range or (0.0, torch.inf)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(x)
    ramp = torch.linspace(-BRIGHT, BRIGHT, x.shape[2], dtype=x.dtype, device=x.device).view(-1, 1).expand(x.shape)

    def asked(network: DiffusionPrior, level: float, image: Tensor) -> Answers:
        t = min(max(level * half, lowest), highest)
        u = network.scaled(middle + half * image + t * noise)
        return Answers(t, image, noise, u, network.answer(u, t))

    def seen(network: DiffusionPrior, at: Answers, predicts: str) -> Tensor:
        return (network.meant(at.u, at.out, at.t, predicts) - middle) / half

    def fault(network: DiffusionPrior, predicts: str, low: Answers, high: Answers) -> str | None:
        amplified = AMPLIFIED if predicts in ("noise", "score") else 0.0
        return (_moves(seen(network, low, predicts), low, half)
                or _follows(seen(network, high, predicts), high, half, amplified))

    def ends(network: DiffusionPrior) -> tuple[Answers, Answers]:
        return asked(network, LOW, ramp), asked(network, HIGH, torch.zeros_like(ramp))

    with torch.inference_mode(False), torch.no_grad():
        low, high = ends(prior)
        what = fault(prior, prior.predicts, low, high)
        if what is not None:
            others = [predicts for predicts in ("image", "noise", "score", "velocity")
                      if predicts != prior.predicts and (predicts != "velocity" or prior.log_levels is not None)]
            fits = [predicts for predicts in others if fault(prior, predicts, low, high) is None]
            residuals = (at._replace(out=at.u - at.out) for at in (low, high))
            unit = prior.spanning((0.0, 1.0))
            if fits:
                hint = f"it answers as one of predicts={fits[0]!r} does"
            elif fault(prior, "image", *residuals) is None:
                hint = "it answers with the residual x − D(x, t): pass a function that subtracts it from x"
            elif prior.scale != unit.scale and fault(unit, prior.predicts, *ends(unit)) is None:
                hint = UNIT
            elif prior.log_levels is None:
                hint = "one trained on a schedule of its own needs alphas_cumprod, one for other levels t_range"
            else:
                hint = "predicts, alphas_cumprod or value_range may be another's"
            raise ArgumentError(f"denoiser: {what}; wanted a network with predicts={prior.predicts!r}; {hint} (probe=False "
                                "takes it as it is)")
        if prior.scale == 1.0 and lowest <= BETWEEN * half <= highest:
            bright, dark = (float(seen(prior, asked(prior, BETWEEN, torch.full_like(ramp, v)), prior.predicts).mean())
                            for v in (BRIGHT, -BRIGHT))
            if bright > 0.6 * BRIGHT and dark > -0.25 * BRIGHT:
                raise ArgumentError(
                    f"denoiser: of grey at {BRIGHT} and {-BRIGHT} of half the range, with noise, it makes {bright:.2f} and "
                    f"{dark:.2f}; wanted both kept; {UNIT} (probe=False takes it as it is)")


def _moves(answer: Tensor, at: Answers, half: float) -> str | None:
    """What is wrong with D at a small t, or None; nothing where t is not small."""
    error, level = _rms(answer - at.image), at.t / half
    if level > 0.1 or error < 5 * level + 0.1:
        return None
    return f"at t = {at.t:.3g} its D is {error * half:.3g} from the clean image, rms"


def _follows(answer: Tensor, at: Answers, half: float, amplified: float) -> str | None:
    """What is wrong with D at a large t, given noise alone, or None; nothing where t is not large."""
    size, level = _rms(answer), at.t / half
    share = abs(float((answer * at.noise).mean() / at.noise.square().mean()))
    if level < 5 or (size < 1 + 0.2 * level and share < 0.3 + amplified * level):
        return None
    return (f"at t = {at.t:.3g}, given noise alone, its D is {size * half:.3g} rms and follows the noise, where it should hardly "
            "change")


def _rms(v: Tensor) -> float:
    return float(v.square().mean().sqrt())
