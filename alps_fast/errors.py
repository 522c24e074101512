"""The errors users see: each names the argument, its value and what was wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any


class ArgumentError(ValueError):
    """A wrong argument; the message is one line and the command line exits with 2."""


class BackendError(ArgumentError, RuntimeError):
    """A backend that was asked for by name and cannot run here."""


class PlannedError(ArgumentError, AttributeError):
    """An attribute that a plan was made from and that cannot be set afterwards."""


def refused(name: str, value: object, wanted: str) -> ArgumentError:
    """The error that says so. Where checks are counted in microseconds, text is only put together once one has failed."""
    return ArgumentError(f"{name}: got {value}; wanted {wanted}")


def check(ok: bool, name: str, value: object, wanted: str) -> None:
    """Raise `ArgumentError` "name: got value; wanted ..." unless `ok`."""
    if not ok:
        raise refused(name, value, wanted)


def number(value: Any) -> Any:
    """`value`, or what it holds if it is a tensor or array without axes, which is a number too."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def check_positive(name: str, value: float, low: float = 0.0, high: float = math.inf) -> float:
    """`value` as a float, which must be a finite number above zero, and not outside [low, high] where they are given."""
    value = number(value)
    wanted = "a finite number > 0" if (low, high) == (0.0, math.inf) else f"a number in [{low:g}, {high:g}]"
    check(isinstance(value, Real) and value > 0 and low <= value <= high and value < math.inf, name, value, wanted)
    return float(value)


def check_std(name: str, value: float) -> float:
    """`value`, a standard deviation, as a float: its square, that square's inverse and either times an image fit in float32."""
    return check_positive(name, value, 1e-15, 1e15)


def whole(name: str, value: object, low: int, end: int | None = None) -> int:
    """`value` as an int, which must be of an integer type (NumPy's too, but no bool) in [low, end)."""
    wanted = f"an integer >= {low}" if end is None else f"an integer in [{low}, {end})"
    value = number(value)
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise refused(name, value, wanted)
    count = int(value)
    check(low <= count and (end is None or count < end), name, count, wanted)
    return count


def sides(image_shape: object) -> tuple[int, int, int]:
    """(C, H, W) of an image, as `whole` numbers."""
    if not isinstance(image_shape, Sequence) or len(image_shape) != 3:
        raise refused("image_shape", image_shape, "(C, H, W)")
    channels, height, width = (whole("image_shape", side, 1) for side in image_shape)
    return channels, height, width


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """`value` must be one of `choices`."""
    if value not in choices:
        raise refused(name, repr(value), "one of " + ", ".join(map(repr, choices)))
