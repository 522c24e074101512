"""What every energy E(x, t) offers. The prior at level t is p_t(x) ∝ exp(−E(x, t)/t²)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Self

import torch
from torch import Tensor

from ..errors import check, check_positive
from ..layout import as_complex, as_real
from ..ops._modes import uncast
from ..ops._reused_memory import laid_out
from ..ops._scalars import StepScalars

CPU = torch.device("cpu")
DENOISERS_STRIDE = 1.5  # x − D bends upwards by 1 at most for an exact D, and a step may be twice as long


class Energy:
    """E(x, t) of images x (C, H, W) or (B, C, H, W), real or complex, one value an image; x − ∇E(x, t) plays the denoiser.

    A complex image is its real and imaginary part as two real channels, and its gradient is that of the real
    function of both. Subclasses implement `_value_and_grad` (and may override `_grad`) on real (N, C', H, W) in any
    memory format, t > 0 a float. Where E itself is not known they implement `_grad` alone:

        class Mine(af.energies.Energy):
            channels = 3                                    # real channels of an image

            def _grad(self, x, t):                          # x (N, 3, H, W) float32, t a float
                return x - my_denoiser(x, t)                # t² times minus the score

        post = af.sample(y, operator, Mine())

    `spread` and `finest` are what a schedule is chosen by where none is given: set them where images do not reach about 1.

    Such an energy samples; `value`, `value_and_grad` and correction="mala" refuse it by name, and a MAP estimate has NaN for
    its energies.
    """

    channels: int | None = None  # real channels C' an image must have (or a multiple, see channelwise); None: any
    unit: bool = True  # whether it knows images that reach about 1 in magnitude, as networks do that learned in [−1, 1]
    spread: float = 1.0  # standard deviation of the widest that its images differ by, where nothing is measured
    finest: float = 0.02  # level below which smoothing by it no longer shows, a tenth of the narrowest standard deviation
    stride: float = 1.0  # how long steps a chosen schedule takes: above 1 where ∇E is known to be x minus a denoiser's answer
    t_range: tuple[float, float] | None = None  # lowest and highest t that it can be asked at, if there are such
    floor: float = 0.0  # the level below which E/t², and with it the prior, stays as it is
    channelwise: bool = False  # whether every real channel group of `channels` is an image of its own

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if "level" not in vars(cls):  # what a parent says of its own evaluations says nothing of others
            cls.level = Energy.level  # type: ignore[method-assign]

    def __new__(cls, *args: object, **options: object) -> Self:
        if cls._value_and_grad is Energy._value_and_grad and cls._grad is Energy._grad:
            raise TypeError(f"{cls.__name__} implements neither _value_and_grad nor _grad")
        return super().__new__(cls)

    @property
    def has_value(self) -> bool:
        """Whether E is known, and not its gradient alone."""
        return type(self)._value_and_grad is not Energy._value_and_grad

    def revision(self) -> Hashable:
        """What is another thing once what the energy is made of has changed; so a recorded evaluation is not replayed then."""
        return None

    def curvature(self, t: float) -> float | None:
        """L(t) with ∇²E(·, t) ≼ L(t) I everywhere, or None where no bound is known."""
        return None

    def begin(self) -> None:
        """A run begins: what was made of weights is made again, as a change through `.data` is one that torch does not count."""

    def prepare(self, t: float, x: Tensor) -> Any:
        """What evaluations at t read beside states like x, computed and moved to their device once a level.

        Whoever replays a recorded evaluation keeps it: the energy itself may forget it once it is asked for another t.
        """
        return None

    def level(self, t: float, x: Tensor) -> tuple[Any, ...] | None:
        """All that hangs on t and that evaluations of states like x read, as tensors on their device; None: they read t itself.

        `value_and_grad` and `grad` take it in place of t: so one recorded evaluation serves every level. A class speaks for
        itself alone: of a subclass without a `level` of its own it is None.
        """
        return None

    def workspace(self, shape: tuple[int, int, int, int], device: torch.device = CPU) -> int:
        """Bytes that a gradient of real images (N, C', H, W) works in on this device beside them; 0 where it is not known."""
        rows, channels, height, width = shape
        if self.channelwise and self.channels:
            rows, channels = rows * channels // self.channels, self.channels
        return self._workspace((rows, channels, height, width), device)

    def _workspace(self, shape: tuple[int, int, int, int], device: torch.device) -> int:
        return 0

    def value(self, x: Tensor, t: float) -> Tensor:
        """E(x, t), shape () or (B,).

        Raises:
            ArgumentError: naming x or t, or the energy has no value.
        """
        return self.value_and_grad(x, t)[0]

    def grad(self, x: Tensor, t: float, level: tuple[Any, ...] | None = None) -> Tensor:
        """∇E(x, t), shape and dtype of x. With a `level` t is not looked at.

        Raises:
            ArgumentError: naming x or t.
        """
        return self._run(x, t, level, value=False)[1]

    def value_and_grad(self, x: Tensor, t: float, level: tuple[Any, ...] | None = None) -> tuple[Tensor, Tensor]:
        """(E, ∇E) of one evaluation, as `value` and `grad` give them.

        Raises:
            ArgumentError: naming x or t, or the energy has no value.
        """
        self.check_value()
        value, grad = self._run(x, t, level, value=True)
        assert value is not None
        return value, grad

    def langevin_pixel(self, x: Tensor, b: Tensor, a: Tensor, ids: Tensor, t: float, s: StepScalars, count: int,
                       backend: str, level: tuple[Any, ...] | None = None) -> tuple[Tensor, Tensor] | None:
        """(x⁺, m) after `count` steps of `ops.langevin_pixel`, gradients and all, where one op does both; else None."""
        return None

    def _value_and_grad(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _grad(self, x: Tensor, t: float) -> Tensor:
        return self._value_and_grad(x, t)[1]

    def _value_and_grad_at(self, x: Tensor, level: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        """`_value_and_grad` of those that have a `level`."""
        raise NotImplementedError

    def _grad_at(self, x: Tensor, level: tuple[Any, ...]) -> Tensor:
        return self._value_and_grad_at(x, level)[1]

    def check_value(self) -> None:
        """E must be known.

        Raises:
            ArgumentError: naming the energy.
        """
        check(self.has_value, "energy", type(self).__name__, "one with a value, and of this only the gradient is known")

    def check_channels(self, name: str, count: int) -> None:
        """`count` real channels must be what the energy takes.

        Raises:
            ArgumentError: naming `name`, the argument to blame.
        """
        if self.channels is not None:
            fits = count % self.channels == 0 if self.channelwise else count == self.channels
            wanted = f"{'a multiple of ' if self.channelwise else ''}{self.channels} real channels (complex counts two)"
            check(fits, name, f"{count} real channels", wanted)

    def _run(self, x: Tensor, t: float, level: tuple[Any, ...] | None, value: bool) -> tuple[Tensor | None, Tensor]:
        if isinstance(x, Tensor) and x.ndim == 3:
            e, g = self._run(x[None], t, level, value)
            return None if e is None else e[0], g[0]
        got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        check(isinstance(x, Tensor) and x.ndim == 4, "x", got, "a tensor (C, H, W) or (B, C, H, W)")
        if level is None:
            check_positive("t", t)
        real = as_real(x.movedim(1, -1)).movedim(-1, 1) if x.is_complex() else x
        self.check_channels("x", real.shape[1])
        images = real
        if self.channelwise and self.channels and real.shape[1] != self.channels:
            images = laid_out(real).view(-1, self.channels, *real.shape[2:])
        written = None if images.is_inference() else images._version
        with uncast():
            if value:
                e, g = self._value_and_grad(images, float(t)) if level is None else self._value_and_grad_at(images, level)
                e = e.view(x.shape[0], -1).sum(1)
            else:
                e, g = None, self._grad(images, float(t)) if level is None else self._grad_at(images, level)
        check(written is None or images._version == written, "energy",
              f"a {type(self).__name__} that writes into the x it is given", "one that leaves it as it is")
        g = g.reshape(real.shape)
        return e, as_complex(g.movedim(1, -1).contiguous()).movedim(-1, 1) if x.is_complex() else g
