"""The errors users see: each names the argument, its value and what was wanted."""

from __future__ import annotations

import math
from numbers import Integral, Real


class ArgumentError(ValueError):
    """A wrong argument; the message is one line and the command line exits with 2."""


class BackendError(ArgumentError, RuntimeError):
    """A backend that was asked for by name and cannot run here."""


def refused(name: str, value: object, wanted: str) -> ArgumentError:
    """The error that says so. Where checks are counted in microseconds, text is only put together once one has failed."""
    return ArgumentError(f"{name}: got {value}; wanted {wanted}")


def check(ok: bool, name: str, value: object, wanted: str) -> None:
    """Raise `ArgumentError` "name: got value; wanted ..." unless `ok`."""
    if not ok:
        raise refused(name, value, wanted)


def check_positive(name: str, value: float) -> None:
    """`value` must be a finite number above zero."""
    check(isinstance(value, Real) and math.isfinite(value) and value > 0, name, value, "a finite number > 0")


def whole(name: str, value: object, low: int, end: int | None = None) -> int:
    """`value` as an int, which must be of an integer type (NumPy's too, but no bool) in [low, end)."""
    wanted = f"an integer >= {low}" if end is None else f"an integer in [{low}, {end})"
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise refused(name, value, wanted)
    number = int(value)
    check(low <= number and (end is None or number < end), name, number, wanted)
    return number


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """`value` must be one of `choices`."""
    if value not in choices:
        raise refused(name, repr(value), "one of " + ", ".join(map(repr, choices)))
