"""What `alps-fast reconstruct --operator mri` does with files: slices one by one, prepared for sampling."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ArgumentError, check, refused
from .runs import Piece

if TYPE_CHECKING:
    from ..io import KSpace, Slices
    from ..mri.steps import Step


class Scan(NamedTuple):
    """Slices of a file, and what the options say of them."""

    slices: Slices
    noise_std: float | None
    scale: float | None
    tol: float | None
    max_iter: int | None

    def piece(self, index: int) -> Piece:
        """Slice `index` as it is sampled.

        Raises:
            ArgumentError: naming the file, the array and the slice.
        """
        from ..io import scaled_kspace
        from ..operators import CartesianMRI

        data = self.slices[index]
        prepared, words, noise_std = ready(data, self.noise_std)
        found = scaled_kspace(prepared, noise_std, self.scale)
        noise_from = "measured" if noise_std is not None and self.noise_std is None else found.noise_from
        own = found.operator
        operator = CartesianMRI(own.mask, own.maps, noise_std=own.noise_std, tol=own.tol if self.tol is None else self.tol,
                                max_iter=own.max_iter if self.max_iter is None else self.max_iter)
        return Piece(index, self.slices.label(index), found.y, operator, found.scale, noise_from, data.geometry, words)


def chosen_slices(text: str | None, count: int, path: Path) -> list[int]:
    """The slices that "3", "3:20", ":20", "3:" or "0:20:2" name, of `count`.

    Raises:
        ArgumentError: it is no such text, or names none.
    """
    if text is None:
        return list(range(count))
    try:
        numbers = [int(part) if part.strip() else None for part in text.split(":")]
    except ValueError:
        numbers = []
    one = len(numbers) == 1 and numbers[0] is not None
    ok = one or (2 <= len(numbers) <= 3 and (len(numbers) < 3 or numbers[2] != 0))
    check(ok, "slices", f"'{text}'", "a number, or FROM:TO, TO not among them, as 3:20")
    found = list(range(count))[numbers[0]:numbers[0] + 1] if one and numbers[0] is not None and numbers[0] >= 0 else (
        [] if one else list(range(count))[slice(*numbers)])
    check(bool(found), "slices", f"'{text}'", f"some of the {count} in {path}, from 0 on")
    return found


def ready(data: KSpace, noise_std: float | None) -> tuple[KSpace, tuple[str, ...], float | None]:
    """k-space after the steps that its file calls for, what they did, and the noise as far as it is known.

    Coils are whitened by a noise scan or covariance, with the noise's size kept, so that images stay in the file's units; a
    readout that the file says is oversampled is cut; maps are estimated where there are none.
    """
    from ..mri import estimate_maps, prepare, prewhiten, remove_oversampling

    steps: list[Step] = []
    if noise_std is None and (data.noise is not None or data.covariance is not None):
        steps.append(partial(prewhiten, noise=data.noise, covariance=data.covariance if data.noise is None else None))
    height = len(data.mask)
    whole = bool((data.mask == data.mask[:1]).all())  # a readout along rows, all of it measured
    if data.size is not None and data.size[0] < height and whole:
        steps.append(partial(remove_oversampling, to=data.size[0], axis=0))
    if data.maps is None and len(data.kspace) > 1:
        steps.append(estimate_maps)
    if not steps:
        return data, (), noise_std
    try:
        done = prepare(data, steps)
    except ArgumentError as error:
        if estimate_maps not in steps:
            raise
        raise refused("maps", f"none in {data.source} for {len(data.kspace)} coils, and none can be estimated ({error})",
                      "maps, in the file or by --maps") from None
    found = done.data
    if done.noise_std is not None:
        size = noise_size(data)
        return found._replace(kspace=found.kspace * size), done.words, size * done.noise_std
    return found, done.words, noise_std


def noise_size(data: KSpace) -> float:
    """Root mean square over coils of the noise in real and imaginary part each, as the file measured it."""
    from ..mri import noise_covariance

    covariance = data.covariance if data.noise is None else noise_covariance(data.noise)
    assert covariance is not None
    return float(covariance.diagonal().real.mean().sqrt())
