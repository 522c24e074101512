"""The prior of a diffusion model as it is: a gradient from its denoiser, and no value."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, check, check_choice, refused, whole
from .base import DENOISERS_STRIDE, Energy
from .convention import check_channels, examine
from .foreign import Foreign, ordinary

PREDICTS = ("image", "noise", "velocity", "score")
LEVELS = 256  # whose constants are kept
SLACK = 1.01  # beyond the levels that a network was trained at


class Asked(NamedTuple):
    """What a network and its answer are asked with: k, or s without a schedule, (1,) or a number; and s, √(1 + s²), 1/√(1 + s²),
    and s² times that, where the square roots are 1 without a schedule. Tensors () in a level, else numbers."""

    level: float | Tensor
    s: float | Tensor
    widens: float | Tensor
    shrinks: float | Tensor
    score: float | Tensor


class DiffusionPrior(Energy):
    """∇E(x, t) = x − D(x, t), D(x, t) the mean of images given x = x₀ + t n: one evaluation of a diffusion model, as it is.

    By Tweedie's formula that is −t² times the score of the images smoothed by t, which is all that sampling asks for. There is no
    value: `correction="mala"` refuses this prior, and `map_estimate` reports NaN for energies.

    From what the network computes, F, at the level s of its own images u = a x + b, with a = (hi′ − lo′)/(hi − lo) and s = a t:

        predicts     F = F(u, s)            F = F(u/√(1 + s²), k), with alphas_cumprod ᾱ, 1/ᾱ_k = 1 + s²
        "image"      D = F                  D = F
        "noise"      D = u − s F            D = u − s F
        "score"      D = u + s² F           D = u + s² F/√(1 + s²)
        "velocity"                          D = u/(1 + s²) − s F/√(1 + s²)

    EDM networks and k-diffusion's wrappers are the first row without a schedule; DDPM's and guided-diffusion's are "noise" with
    one, where of an output of twice the channels the first half counts (the rest is a variance). For networks of `diffusers` see
    `alps_fast.integrations.from_diffusers`.

    Args:
        denoiser: F, a torch module or any function of images (N, C, H, W), levels (N,) and `arguments`. A module is left as it
            is, in its mode and with its gradients: evaluations run on a twin on the same weights, in evaluation mode, and
            follow when the weights change. By torch.compile, in place too, the twin is compiled as it was, options and all. k, in
            [0, T − 1], is a float32 number interpolated in ln s, not rounded.
        channels: real channels of an image (complex images count two).
        predicts: what F computes, see above.
        alphas_cumprod: (T,) the variance-preserving schedule that the network was trained on, decreasing; None: none.
        value_range, image_range: what the network's images and yours span: (0, 1) for the former where the network knows [0, 1].
        arguments: keyword arguments of every call, such as class labels; a tensor () or (1, …) is repeated for every image.
        t_range: lowest and highest t that the network was trained at, outside which it is not asked; from the schedule if None.
        channelwise: apply D to each group of `channels` channels as an image of its own (grey prior, RGB image).
        precision: "high", or "fast" with bfloat16 multiplications by autocast, weights of convolutions and linear layers
            converted once. torch.autocast around a run does not reach the network.
        dtype: what the network computes in; None: that of a module's first floating-point parameter, else float32.
        channels_last: False for a network whose code takes contiguous images alone.
        probe: at the first evaluation look, on a made image, whether D(x, small t) is about x and D(x, large t) about constant,
            and refuse what tells of another convention; of a module, before, whether it takes so many channels.

    Raises:
        ArgumentError: naming the argument; of an evaluation, denoiser, where its output does not fit, or t.

    Sources: [EDM] for conventions; Robbins, "An empirical Bayes approach to statistics", 1956, for the formula; [XGP] for
    sampling by a score that is not a gradient.
    """

    stride = DENOISERS_STRIDE

    def __init__(self, denoiser: Callable[..., Any], channels: int, *, predicts: str = "image",
                 alphas_cumprod: Sequence[float] | np.ndarray | Tensor | None = None,
                 value_range: tuple[float, float] = (-1.0, 1.0), image_range: tuple[float, float] = (-1.0, 1.0),
                 arguments: Mapping[str, object] | None = None, t_range: tuple[float, float] | None = None,
                 channelwise: bool = False, precision: str = "high", dtype: torch.dtype | None = None, channels_last: bool = True,
                 probe: bool = True):
        named = f"the class {denoiser.__name__}" if isinstance(denoiser, type) else type(denoiser).__name__
        check(callable(denoiser) and not isinstance(denoiser, type), "denoiser", named,
              "a torch module or a function of (x, sigma)")
        check_choice("predicts", predicts, PREDICTS)
        check_choice("precision", precision, ("high", "fast"))
        check(predicts != "velocity" or alphas_cumprod is not None, "alphas_cumprod", None, 'a schedule with predicts="velocity"')
        for name, span in (("value_range", value_range), ("image_range", image_range)):
            check(_spans(span), name, span, "two finite numbers, the lower first")
        check(dtype is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point), "dtype", repr(dtype),
              "a floating-point dtype of torch, or None")
        check(arguments is None or isinstance(arguments, Mapping), "arguments", type(arguments).__name__, "a dictionary")
        self.network, self.channels, self.channelwise = denoiser, whole("channels", channels, 1), channelwise
        self.predicts, self.precision = predicts, precision
        self.image_range = image_range
        half = 0.5 * (image_range[1] - image_range[0])
        self.spread, self.finest = half, 0.02 * half
        self.scale, self.offset = self._affine(value_range)
        self.log_levels = None if alphas_cumprod is None else _log_levels(alphas_cumprod)
        if t_range is None and self.log_levels is not None:
            first, last = (math.exp(float(v)) / self.scale for v in (self.log_levels[0], self.log_levels[-1]))
            t_range = first, last
        if t_range is not None:
            check(_spans(t_range) and t_range[0] > 0, "t_range", t_range, "two numbers > 0, the lower first")
        self.t_range = t_range
        self.arguments = {name: _one(name, value) for name, value in (arguments or {}).items()}
        self.to_probe = probe
        self._placed: dict[torch.device, dict[str, object]] = {}
        self._levels: dict[tuple[float, torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}
        self._foreign = Foreign(denoiser, dtype, channels_last, "denoiser")
        if probe:
            check_channels(self)

    def _affine(self, value_range: tuple[float, float]) -> tuple[float, float]:
        """a, b."""
        scale = (value_range[1] - value_range[0]) / (self.image_range[1] - self.image_range[0])
        return scale, value_range[0] - scale * self.image_range[0]

    def spanning(self, value_range: tuple[float, float]) -> DiffusionPrior:
        """The same network taken for one that knows images of this range."""
        other = copy.copy(self)
        other.scale, other.offset = self._affine(value_range)
        other._levels = {}
        return other

    def revision(self) -> Hashable:
        return self._foreign.revision()

    def begin(self) -> None:
        self._foreign.renew()

    def level(self, t: float, x: Tensor) -> tuple[Tensor, Tensor]:
        """The network's level (1,), as it takes it, and the numbers after it in `Asked`."""
        level, *numbers = self._asked(t)
        key = t, x.dtype, x.device
        if key not in self._levels:
            if len(self._levels) >= LEVELS:
                self._levels.clear()
            kind = self._foreign.computes_in(x) if self.log_levels is None else torch.float32
            with torch.inference_mode(False):
                self._levels[key] = (torch.full((1,), float(level), dtype=kind, device=x.device),
                                     torch.tensor(numbers, dtype=torch.float64, device="cpu").to(x.device, x.dtype))
        return self._levels[key]

    def _asked(self, t: float) -> Asked:
        """At t.

        Raises:
            ArgumentError: t is out of the range that the network was trained in.
        """
        if self.t_range is not None and not self.t_range[0] / SLACK <= t <= self.t_range[1] * SLACK:
            low, high = self.t_range
            raise ArgumentError(f"t: got {t:.4g}; wanted a level in [{low:.4g}, {high:.4g}], at which the network was trained: "
                                "give Schedule a sigma_max and sigma_min in it")
        s = self.scale * t
        if self.log_levels is None:
            return Asked(s, s, 1.0, 1.0, s * s)
        root = math.sqrt(1.0 + s * s)
        k = float(np.interp(math.log(s), self.log_levels, np.arange(len(self.log_levels))))
        return Asked(k, s, root, 1.0 / root, s * s * (1.0 / root))

    def _grad_at(self, x: Tensor, level: tuple[Any, ...]) -> Tensor:
        self._probe(x)
        with torch.inference_mode(False), torch.no_grad():
            u, asked = self.scaled(ordinary(x)), Asked(level[0], *level[1].unbind())
            return x - self._meant(u, self._answer(u, asked), asked, self.predicts)

    def _probe(self, x: Tensor) -> None:
        if self.to_probe and not x.is_meta and x.numel() > 0:
            examine(self, x)
            self.to_probe = False

    def _grad(self, x: Tensor, t: float) -> Tensor:
        self._probe(x)
        return x - self.denoised(x, t)

    def denoised(self, x: Tensor, t: float) -> Tensor:
        """D(x, t) of real images (N, C, H, W)."""
        with torch.inference_mode(False), torch.no_grad():
            u = self.scaled(ordinary(x))
            return self.meant(u, self.answer(u, t), t, self.predicts)

    def scaled(self, x: Tensor) -> Tensor:
        """u, the network's images of yours."""
        return x if (self.scale, self.offset) == (1.0, 0.0) else self.scale * x + self.offset

    def answer(self, u: Tensor, t: float) -> Tensor:
        """F at t for the network's images u, its own mean where a variance comes with it."""
        return self._answer(u, self._asked(t))

    def _answer(self, u: Tensor, asked: Asked) -> Tensor:
        rows = len(u)
        if isinstance(asked.level, Tensor):
            levels = asked.level.repeat(rows)
        else:
            kind = self._foreign.computes_in(u) if self.log_levels is None else torch.float32
            levels = torch.full((rows,), asked.level, dtype=kind, device=u.device)
        if u.device not in self._placed:
            self._placed[u.device] = {name: v.to(u.device) if isinstance(v, Tensor) else v for name, v in self.arguments.items()}
        arguments = {name: v.expand(rows, *v.shape[1:]) if isinstance(v, Tensor) else v
                     for name, v in self._placed[u.device].items()}
        out = self._foreign(u if self.log_levels is None else u / asked.widens, levels, self.precision, **arguments)
        twice = out.shape == (rows, 2 * u.shape[1], *u.shape[2:])
        if self.log_levels is not None and twice:
            out = out[:, :u.shape[1]]
        check(out.shape == u.shape, "denoiser", f"output of shape {tuple(out.shape)}", f"that of its images, {tuple(u.shape)}"
              + ("; a mean with a variance, as guided-diffusion's, needs alphas_cumprod" if twice else ""))
        return out

    def meant(self, u: Tensor, out: Tensor, t: float, predicts: str) -> Tensor:
        """D at the scale of your images, from F at u, where that is what `predicts` says."""
        return self._meant(u, out, self._asked(t), predicts)

    def _meant(self, u: Tensor, out: Tensor, asked: Asked, predicts: str) -> Tensor:
        if predicts == "image":
            denoised = out
        elif predicts == "noise":
            denoised = u - asked.s * out
        elif predicts == "score":
            denoised = u + asked.score * out
        else:
            denoised = asked.shrinks * (asked.shrinks * u - asked.s * out)
        return denoised if (self.scale, self.offset) == (1.0, 0.0) else (denoised - self.offset) / self.scale


def _spans(span: Any) -> bool:
    """Whether it is two finite numbers, the lower first."""
    try:
        low, high = (float(end + 0.0) for end in span)  # of numbers, no digits
    except (TypeError, ValueError):
        return False
    return -math.inf < low < high < math.inf


def _log_levels(alphas_cumprod: Sequence[float] | np.ndarray | Tensor) -> np.ndarray:
    """ln s_k of a variance-preserving schedule, s_k² = 1/ᾱ_k − 1; a last ᾱ of zero, which has no such level, is left out."""
    given = alphas_cumprod.detach().cpu().numpy() if isinstance(alphas_cumprod, Tensor) else alphas_cumprod
    try:
        values = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise refused("alphas_cumprod", type(alphas_cumprod).__name__, "(T,) numbers in (0, 1) that decrease, T >= 2") from None
    values = values[:-1] if values.ndim == 1 and len(values) > 2 and values[-1] == 0 else values
    fits = values.ndim == 1 and len(values) >= 2 and bool((np.diff(values) < 0).all()) and 0 < values[-1] and values[0] < 1
    check(fits, "alphas_cumprod", f"shape {values.shape}", "(T,) numbers in (0, 1) that decrease, T >= 2")
    return 0.5 * np.log(1.0 / values - 1.0)


def _one(name: str, value: object) -> object:
    """A keyword argument, a tensor with one row for all images."""
    if not isinstance(value, Tensor):
        return value
    check(value.ndim == 0 or len(value) == 1, f"arguments[{name!r}]", f"shape {tuple(value.shape)}",
          "() or (1, …), one for all images")
    return value.detach().reshape(1, *value.shape[1:])
