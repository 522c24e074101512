"""k-space of a slice, with its maps and mask, and what a file may say beside."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import check
from .axes import fitted
from .geometry import Geometry

NEAR = 16  # frequency zero is looked for within the n/16 samples around a place
FAR_MORE = 10  # times the energy around the middle that another place may have


@dataclass(frozen=True)
class KSpace:
    """k-space of a slice. `kspace, maps, mask = …` takes it apart into the first three.

    kspace: (coils, H, W) complex64, frequency zero at (H // 2, W // 2), 0 where nothing was measured. Images are its centred
        orthonormal inverse FFT.
    maps: (coils, H, W) complex64, or None for one coil and for maps that are yet to be estimated.
    mask: (H, W) float32, 1 where it was measured.
    noise: (coils, n) complex64, samples of the coils' noise alone, as large as in kspace. covariance: (coils, coils) complex64,
        E n nᴴ/2 of such samples, noise_std² on its diagonal. None where the file has none.
    size: (H, W) that the scanner's images have, without oversampling; None where the file does not say.
    geometry: where pixels are, None where the file does not say. attributes: text and numbers of the file. units: of kspace, ""
        where nobody knows. source: the file, array and slice, for people.
    """

    kspace: Tensor
    maps: Tensor | None
    mask: Tensor
    noise: Tensor | None = None
    covariance: Tensor | None = None
    size: tuple[int, int] | None = None
    geometry: Geometry | None = None
    attributes: Mapping[str, str | float] = field(default_factory=dict)
    units: str = ""
    source: str = ""

    def _replace(self, **changes: Any) -> KSpace:
        """The same but for some fields, as of a named tuple."""
        return replace(self, **changes)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.kspace, self.maps, self.mask))


def measured_kspace(array: np.ndarray, where: str) -> tuple[Tensor, np.ndarray]:
    """k-space (coils, H, W) of finite complex numbers, and where (H, W) all coils are NaN: not measured."""
    check(array.ndim == 3 and array.size > 0, "kspace", f"shape {array.shape}{where}", "(coils, H, W) or (H, W)")
    check(array.dtype.kind == "c", "kspace", f"dtype {array.dtype}{where}", "complex numbers")
    missing = np.isnan(array).all(0)
    check(not missing.all(), "kspace", f"NaN everywhere{where}", "numbers where something was measured")
    found = finite(np.where(missing, 0, array), "kspace", where)
    check(bool((found != 0).any()), "kspace", f"all zero{where}", "a measurement")
    return found, missing


def finite(array: np.ndarray, name: str, where: str) -> Tensor:
    """The numbers in single precision, which must be finite in it."""
    with np.errstate(over="ignore", invalid="ignore"):
        single = np.ascontiguousarray(array, np.complex64 if array.dtype.kind == "c" else np.float32)
    bad = int(single.size - np.isfinite(single).sum())
    check(bad == 0, name, f"{bad} values that are NaN, infinite or beyond float32{where}", "finite numbers")
    return torch.from_numpy(single)


def checked_maps(array: np.ndarray, shape: tuple[int, ...], where: str) -> Tensor:
    """Maps as k-space (coils, H, W) is, finite and not all zero."""
    check(array.dtype.kind == "c", "maps", f"dtype {array.dtype}{where}", "complex numbers")
    check(array.shape == shape, "maps", f"shape {array.shape}{where}", f"the shape of kspace, {shape}")
    maps = finite(array, "maps", where)
    check(bool((maps != 0).any()), "maps", f"all zero{where}", "maps that are not")
    return maps


def checked_mask(array: np.ndarray, axes: str, slices: int, index: int, kspace: Tensor, where: str) -> Tensor:
    """The mask (H, W) of slice `index`, of an array of any shape that broadcasts to k-space of these `axes`.

    An array of one axis names columns; on square k-space that is said, or refused where rows were measured.
    """
    coils, height, width = kspace.shape
    check(array.dtype.kind in "biuf", "mask", f"dtype {array.dtype}{where}", "real numbers")
    finite(array, "mask", where)
    found = fitted(array, axes, {"s": slices, "c": coils, "h": height, "w": width})
    check(found is not None, "mask", f"shape {array.shape}{where}",
          f"({height}, {width}) or ({width},) or (1, {width}) or ({height}, 1), or one that broadcasts to kspace")
    assert found is not None
    mask = (found[index if len(found) > 1 else 0] != 0).any(0)
    check(bool(mask.any()), "mask", f"zero everywhere{where}", "at least one measured sample")
    whole = torch.from_numpy(np.broadcast_to(mask, (height, width)).astype(np.float32))
    zero = (kspace == 0).all(0)
    if array.ndim == 1 and height == width:
        rows = bool((zero == (whole[0] == 0)[:, None]).all()) and bool((zero & (whole > 0)).any())
        check(not rows, "mask", f"({width},){where}, which names columns, where rows were measured", f"it as ({height}, 1)")
        if not bool(zero.any()) and not bool((whole > 0).all()):
            warnings.warn(f"mask: ({width},) of square k-space{where} is taken to name columns; for rows store it as "
                          f"({height}, 1)", stacklevel=4)
    return whole


def checked_noise(arrays: dict[str, np.ndarray], coils: int, path: Path) -> dict[str, Tensor]:
    """`noise` (coils, n) and `covariance` (coils, coils) of the same coils, as far as they are there.

    Files hold E n nᴴ, `KSpace` the half of it, as it counts noise in real components.
    """
    found = {}
    for name, array in arrays.items():
        ok = array.dtype.kind == "c" and array.ndim == 2 and array.shape[0] == coils and array.shape[1] > 0
        ok &= name != "covariance" or array.shape[1] == coils
        check(ok, name, f"{array.dtype} of shape {array.shape} in {path}",
              f"complex numbers ({coils}, {'n' if name == 'noise' else coils})")
        found[name] = finite(array if name == "noise" else array / 2, name, f" in {path}")
    return found


def check_consistent(kspace: Tensor, mask: Tensor, where: str = "") -> None:
    """A sample that the mask (H, W) counts is not exactly 0 in all coils, and frequency zero is in the middle, (H // 2, W // 2).

    where: words for an error, of what holds kspace (coils, H, W).
    """
    check(bool((kspace * mask != 0).any()), "kspace", f"all zero{where}", "a measurement where the mask is 1")
    empty = int(((kspace == 0).all(0) & (mask > 0)).sum())
    check(empty == 0, "mask", f"1 at {empty} of {int(mask.sum())} samples where every coil of kspace is exactly 0{where}",
          "0 where nothing was measured, or no mask, which then is where kspace is not 0")
    power = (kspace * mask).abs().double().square().sum(0)  # of an image most is around frequency zero
    height, width = power.shape
    near = [max(1, n // NEAR) for n in (height, width)]

    def around(y: int, x: int) -> float:
        rows, columns = ((torch.arange(-r, r + 1, device="cpu") + at) % n
                         for r, at, n in zip(near, (y, x), (height, width), strict=True))
        return float(power[rows.unique()][:, columns.unique()].sum())

    middle = around(height // 2, width // 2)
    for y, x, axes in ((0, 0, "both axes"), (0, width // 2, "the first axis"), (height // 2, 0, "the second axis")):
        check(around(y, x) <= FAR_MORE * middle, "kspace", f"most of its energy around ({y}, {x}){where}",
              f"frequency zero in the middle, ({height // 2}, {width // 2}): np.fft.fftshift along {axes}, of the mask too")
