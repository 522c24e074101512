"""What `alps-fast reconstruct --operator mri` does with files: slices one by one, prepared for sampling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import check
from .prepare import Named, steps_for
from .runs import Piece

if TYPE_CHECKING:
    from torch import Tensor

    from ..io import KSpace, Slices
    from ..operators import CartesianMRI, SoftSenseMRI


class Scan(NamedTuple):
    """Slices of a file, and what the options say of them."""

    slices: Slices
    noise_std: float | None
    scale: float | None
    tol: float | None
    max_iter: int | None
    prepare: tuple[Named, ...] | None = None

    def piece(self, index: int) -> Piece:
        """Slice `index` as it is sampled.

        Raises:
            ArgumentError: naming the file, the array and the slice.
        """
        from ..io import scaled_kspace

        data = self.slices[index]
        prepared, words, noise_std = ready(data, self.noise_std, self.prepare)
        check(prepared.maps is not None or len(prepared.kspace) == 1, "maps",
              f"none in {data.source} for {len(prepared.kspace)} coils", "maps, in the file, by --maps or by --prepare maps")
        sets = prepared.maps if prepared.maps is not None and prepared.maps.ndim == 4 else None
        found = scaled_kspace(prepared if sets is None else prepared._replace(maps=sets[0]), noise_std, self.scale)
        noise_from = "measured" if noise_std is not None and self.noise_std is None else found.noise_from
        operator = self._operator(found.operator, sets)
        return Piece(index, self.slices.label(index), found.y, operator, found.scale, noise_from, data.geometry, words)

    def _operator(self, own: CartesianMRI, sets: Tensor | None) -> CartesianMRI | SoftSenseMRI:
        """With the tolerance that the options say, of one set of maps or several."""
        from ..operators import CartesianMRI, SoftSenseMRI

        tol = own.tol if self.tol is None else self.tol
        max_iter = own.max_iter if self.max_iter is None else self.max_iter
        if sets is None:
            return CartesianMRI(own.mask, own.maps, noise_std=own.noise_std, tol=tol, max_iter=max_iter)
        return SoftSenseMRI(own.mask, sets, noise_std=own.noise_std, tol=tol, max_iter=max_iter)


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


def ready(data: KSpace, noise_std: float | None, named: tuple[Named, ...] | None = None,
          ) -> tuple[KSpace, tuple[str, ...], float | None]:
    """k-space after the steps of `steps_for`, what they did, and the noise as far as it is known.

    Coils are whitened with the noise's size kept, so that images stay in the file's units.
    """
    from ..mri import prepare

    steps = steps_for(data, named, noise_std)
    if not steps:
        return data, (), noise_std
    done = prepare(data, steps)
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
