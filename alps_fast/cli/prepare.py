"""What --prepare names: steps before sampling in place of those that a file calls for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ArgumentError, check, refused

if TYPE_CHECKING:
    from ..io import KSpace
    from ..mri.steps import Step
    from ..mri.words import Done

TAKES = {"prewhiten": "", "oversampling": "[=SAMPLES]", "recentre": "", "compress": "[=ENERGY or =COILS]", "maps": "[=SETS]",
         "normalise": ""}


class Named(NamedTuple):
    """A step by its name, and what stands behind = of it."""

    name: str
    value: float | None = None

    def of(self, data: KSpace) -> Step:
        """The function, for k-space of a file.

        Raises:
            ArgumentError: the file lacks what it needs, or the value is none of its.
        """
        from .. import mri

        readout = None if data.size is None else data.size[0]
        make: dict[str, Callable[[], Step]] = {
            "prewhiten": lambda: _prewhitening(data),
            "oversampling": lambda: partial(mri.remove_oversampling, to=readout if self.value is None else self.whole,
                                            axis=None if readout is None else 0),
            "recentre": lambda: mri.recentre, "normalise": lambda: mri.normalise_maps,
            "compress": lambda: mri.compress_coils if self.value is None else (
                partial(mri.compress_coils, energy=self.value) if self.value < 1 else
                partial(mri.compress_coils, coils=self.whole)),
            "maps": lambda: partial(_estimated, sets=1 if self.value is None else self.whole, of=data)}
        return make[self.name]()

    @property
    def whole(self) -> int:
        """Its value, which must be a whole number."""
        assert self.value is not None
        check(self.value == int(self.value), "prepare", f"'{self.name}={self.value:g}'", f"{self.name}= and a whole number")
        return int(self.value)


def named_steps(text: str | None) -> tuple[Named, ...] | None:
    """Those of "prewhiten,compress=0.99,maps=2", in their order; () of "none"; None of None.

    Raises:
        ArgumentError: another name, a value where none is taken, or one that is no number.
    """
    if text is None:
        return None
    if text.strip() == "none":
        return ()
    found = []
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        known = ", ".join(f"{n}{takes}" for n, takes in TAKES.items())
        check(name in TAKES, "prepare", f"'{name}'", f"none, or some of {known}")
        check(not equals or bool(TAKES[name]), "prepare", f"'{part.strip()}'", f"{name} alone")
        try:
            found.append(Named(name, float(value) if equals else None))
        except ValueError:
            raise refused("prepare", f"'{part.strip()}'", f"a number behind {name}=") from None
    return tuple(found)


def steps_for(data: KSpace, named: tuple[Named, ...] | None, noise_std: float | None) -> list[Step]:
    """The steps that are named or, where none are, that the file calls for: coils are whitened by a noise scan or covariance, a
    readout that the file says is oversampled is cut, maps are estimated where there are none."""
    if named is None:
        named = tuple(Named(name) for name in called_for(data, noise_std))
    check(noise_std is None or Named("prewhiten") not in named, "prepare", "prewhiten with --noise-std", "one of them")
    return [one.of(data) for one in named]


def called_for(data: KSpace, noise_std: float | None) -> list[str]:
    """Names of what a file calls for."""
    names = []
    if noise_std is None and (data.noise is not None or data.covariance is not None):
        names.append("prewhiten")
    whole = bool((data.mask == data.mask[:1]).all())  # a readout along rows, all of it measured
    if data.size is not None and data.size[0] < len(data.mask) and whole:
        names.append("oversampling")
    if data.maps is None and len(data.kspace) > 1:
        names.append("maps")
    return names


def _prewhitening(data: KSpace) -> Step:
    from ..mri import prewhiten

    check(data.noise is not None or data.covariance is not None, "prepare", f"prewhiten, and no noise in {data.source}",
          "a file with a noise scan or covariance")
    return partial(prewhiten, noise=data.noise, covariance=data.covariance if data.noise is None else None)


def _estimated(data: KSpace, sets: int, of: KSpace) -> Done:
    """`estimate_maps`, and what its errors mean to who has a file."""
    from ..mri import estimate_maps

    try:
        return estimate_maps(data, sets=sets)
    except ArgumentError as error:
        raise refused("maps", f"none in {of.source} for {len(of.kspace)} coils, and none can be estimated ({error})",
                      "maps, in the file or by --maps") from None
