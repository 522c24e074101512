"""The slices of a file of k-space, read one by one: npz, npy, HDF5 (fastMRI's and MATLAB's too), ISMRMRD, MATLAB, BART."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, check, refused, whole
from ..limits import check_memory
from .axes import check_axes, guessed_axes, ordered
from .children import COPIES
from .geometry import Geometry, spaced
from .ismrmrd import ISMRMRDFile, header_of, is_ismrmrd
from .kspace import KSpace, check_consistent, checked_maps, checked_mask, checked_noise, measured_kspace
from .slices import Slices
from .sources import HDF5Source, Info, Source, open_source

NAMES = {  # what others call these arrays, in lower case and without their group
    "kspace": ("kspace", "ksp", "k_space", "kspace_data", "kdata", "ksp_data", "rawdata", "raw_data", "kdat", "data", "raw", "y"),
    "maps": ("maps", "sens", "sens_maps", "sensmaps", "smaps", "coil_maps", "coilmaps", "sensitivities", "csm", "csmap"),
    "mask": ("mask", "sampling_mask", "samp", "sampling", "pattern", "pat", "undersampling_mask"),
    "noise": ("noise", "noise_scan", "noise_data", "noise_samples"),
    "covariance": ("noise_covariance", "covariance", "noise_cov", "cov", "psi"),
}
HEADER = "ismrmrd_header"  # of fastMRI


def open_kspace(path: str | Path, name: str = "input", *, dataset: str | None = None, axes: str | None = None,
                maps: str | Path | None = None, mask: str | Path | None = None) -> Slices:
    """The slices of a file, a sequence of `KSpace` that reads each when it is asked for; see docs/mri.md for the formats.

    Args:
        dataset: name of k-space in the file; None: one of the usual names, or the only array of complex numbers.
        axes: a letter an axis, "shwc" say: s slices, c coils, h rows, w columns, r real and imaginary part, _ of one. None:
            guessed, with a warning where that is another order than (slices, coils, H, W), in MATLAB files (H, W, coils, slices).
        maps, mask: files to take them from, of any of these formats; None: from this file, if they are there.

    Raises:
        ArgumentError: naming `name`, the file and the array. Of slices, what is wrong with one is said when it is read.
    """
    source = open_source(Path(path), name)
    if isinstance(source, HDF5Source) and is_ismrmrd(source) and dataset is None:
        check(axes is None, "axes", f"'{axes}' with {path}, which is ISMRMRD", "none, as that says what its axes are")
        found: Slices = ISMRMRDFile(source, _first(maps, "maps"), _first(mask, "mask"))
    else:
        found = ArrayFile(source, dataset, axes, maps, mask)
    return found


def read_kspace(path: str | Path, name: str = "input", slice: int | None = None, *, dataset: str | None = None,
                axes: str | None = None, maps: str | Path | None = None, mask: str | Path | None = None) -> KSpace:
    """k-space of a file with one slice, or of slice `slice` of one with several; options as of `open_kspace`.

    kspace: (coils, H, W) or (H, W), complex, zero frequency in the middle. maps: as kspace; may be missing for one coil. mask:
    any shape that broadcasts: (H, W), (W,) or (1, W) for whole columns, (H, 1) for whole rows; where it is missing, what is
    neither 0 nor NaN in kspace was measured. Files that contradict themselves are refused: a mask of 1 where all coils are
    exactly 0, or a frequency zero that is not in the middle.

    Raises:
        ArgumentError: naming `name`, the file and the array; also where there are several coils without maps.
    """
    slices = open_kspace(path, name, dataset=dataset, axes=axes, maps=maps, mask=mask)
    if slice is None:
        check(len(slices) == 1, "kspace", f"shape {slices.shape} in {path}, {len(slices)} slices", "one, or a number of one")
    found = slices[0 if slice is None else whole("slice", slice, 0, len(slices))]
    check(found.maps is not None or len(found.kspace) == 1, "maps", f"none in {path}", f"coil maps for {len(found.kspace)} coils")
    return found


def _first(path: str | Path | None, name: str) -> np.ndarray | None:
    """The array of a file of maps or of a mask, (slices, coils, H, W) or as it is for a mask."""
    if path is None:
        return None
    source = open_source(Path(path), name)
    key = _found(source, name, None, warn=False)
    array = source.read(key)
    if name == "mask":
        return array
    is_complex = array.dtype.kind == "c"
    letters = source.letters or guessed_axes(array.shape, is_complex, source.reversed, None, False, source.where(key))
    if "m" in letters:
        count = array.shape[letters.index("m")]
        warnings.warn(f"maps: the first of {count} sets in {path} is taken", stacklevel=4)
        array, letters = array.take(0, letters.index("m")), letters.replace("m", "")
    return ordered(array, letters)


def _found(source: Source, what: str, given: str | None, warn: bool = True) -> str:
    """The name of an array in a file, "" where there is none of k-space's companions.

    Raises:
        ArgumentError: there is no such array.
    """
    numbers = [key for key, info in source.arrays.items() if info.dtype != "text" and len(info.shape) > 0]
    shown = ", ".join(f"{key} {info.shape} {info.dtype}" for key, info in list(source.arrays.items())[:12]) or "no arrays"
    if given is not None:
        named = [key for key in numbers if key == given.strip("/")] or [key for key in numbers if key.split("/")[-1] == given]
        check(len(named) == 1, "dataset", f"'{given}' in {source.path} with {shown}", "the name of an array of numbers in it")
        return named[0]
    if numbers == [""]:
        return ""
    for known in NAMES[what]:
        named = sorted((key for key in numbers if key.split("/")[-1].lower() == known), key=lambda k: (k.count("/"), k))
        if named:
            if what == "kspace" and warn and named[0] != known:
                warnings.warn(f"kspace: {named[0]} in {source.path} is taken for it; --dataset names another", stacklevel=5)
            return named[0]
    if what == "kspace":
        others = {name for kind, names in NAMES.items() if kind != "kspace" for name in names}
        images = [key for key in numbers if len(source.arrays[key].shape) > 1 and key.split("/")[-1].lower() not in others and (
            source.arrays[key].dtype == "complex" or source.arrays[key].shape[-1] == 2)]
        if len(images) != 1:
            raise refused(source.name, f"{source.path} with {shown}", "an array called 'kspace', or one that --dataset names")
        warnings.warn(f"kspace: {images[0]} in {source.path} is taken for it; --dataset names another", stacklevel=5)
        return images[0]
    if len(numbers) == 1:
        return numbers[0]
    raise refused(what, f"{source.path} with {shown}", f"an array called '{what}'")


class ArrayFile(Slices):
    """k-space that is an array of a file, with maps and mask beside it or in files of their own."""

    def __init__(self, source: Source, dataset: str | None, axes: str | None, maps: str | Path | None, mask: str | Path | None):
        self.source, self.path = source, source.path
        self.key = _found(source, "kspace", dataset)
        beside = {what: self._beside(what) for what in NAMES if what != "kspace"}
        self.others = {what: key for what, key in beside.items() if key is not None}
        info = source.arrays[self.key]
        self.where = f" in {source.where(self.key)}"
        check(info.dtype != "text", "kspace", f"text{self.where}", "complex numbers")
        self.given_maps, self.given_mask = _first(maps, "maps"), _first(mask, "mask")
        self.axes = self._axes(info, axes)
        self.shape = info.shape
        self.slices = int(np.prod([n for n, a in zip(info.shape, self.axes, strict=True) if a == "s"], dtype=np.int64))
        check(self.slices > 0, "kspace", f"shape {info.shape}{self.where}", "at least one slice")
        a_slice = COPIES * 8 * math.prod(info.shape) // self.slices
        check_memory("kspace", f"shape {info.shape}{self.where}, a slice of", a_slice, torch.device("cpu"))
        self.header = header_of(source.text(HEADER), source) if isinstance(source, HDF5Source) and self._has_header() else None

    def __len__(self) -> int:
        return self.slices

    def read(self, index: int) -> KSpace:
        where = self.where + (f", slice {index}" if self.slices > 1 else "")
        raw = self._slice(self.key, self.axes, index)
        kspace, missing = measured_kspace(raw, where)
        coils, height, width = kspace.shape
        mask = self._mask(index, kspace, missing)
        check_consistent(kspace, mask, where)
        beside = {what: self.source.read(key) for what, key in self.others.items() if what in ("noise", "covariance")}
        info = self.source.arrays[self.key]
        size, geometry = self._facts((height, width))
        attributes = self.source.attributes | info.attributes
        return KSpace(kspace, self._maps(index, tuple(kspace.shape)), mask, **checked_noise(beside, coils, self.path), size=size,
                      geometry=geometry, attributes=attributes, units=str(attributes.get("units", "")), source=where[4:])

    def _beside(self, what: str) -> str | None:
        """The name of an array of the same file, None where there is none."""
        try:
            key = _found(self.source, what, None) if len(self.source.arrays) > 1 else ""
        except ArgumentError:
            return None
        return None if key in ("", self.key) else key

    def _axes(self, info: Info, axes: str | None) -> str:
        known = self.source.letters
        where = self.source.where(self.key)
        check("m" not in known, "kspace", f"several sets of maps along BART's dimension 4 in {where}", "k-space")
        if axes is not None:
            check_axes(axes, info.shape, where)
            check(info.dtype == "complex" or "r" in axes, "kspace", f"dtype {info.dtype} in {where}",
                  "complex numbers, or r among the axes")
            return axes
        if known:
            return known
        coils, is_complex = None, info.dtype == "complex"
        if self.given_maps is not None:
            coils = self.given_maps.shape[1]
        fast = self._has_header() and "maps" not in self.others and self.given_maps is None
        check(is_complex or info.shape[-1:] == (2,), "kspace", f"dtype {info.dtype} of shape {info.shape} in {where}",
              "complex numbers, or a last axis of 2, real and imaginary part")
        found = guessed_axes(info.shape, is_complex, self.source.reversed, coils, fast, where)
        usual = ("hw", "hwc", "hwcs") if self.source.reversed else ("hw", "chw", "schw", "shw")
        if found.replace("_", "") not in usual:
            warnings.warn(f"kspace: axes of shape {info.shape} in {where} are taken for {found} (s slices, c coils, h rows, "
                          "w columns, r real and imaginary part, _ of one); --axes says otherwise", stacklevel=5)
        return found

    def _has_header(self) -> bool:
        return HEADER in self.source.arrays

    def _slice(self, key: str, axes: str, index: int) -> np.ndarray:
        """(coils, H, W) of a slice."""
        if axes.count("s") == 1:
            array = self.source.entry(key, axes.index("s"), index)
            return ordered(array, axes.replace("s", ""))[0]
        return ordered(self.source.read(key), axes)[index]

    def _maps(self, index: int, shape: tuple[int, ...]) -> Tensor | None:
        if self.given_maps is not None:
            array, where = self.given_maps, ""
        elif "maps" in self.others:
            key = self.others["maps"]
            where = f" in {self.source.where(key)}"
            info, letters = self.source.arrays[key], self.axes
            if info.dtype != "complex":
                check("r" in letters, "maps", f"dtype {info.dtype}{where}", "complex numbers")
            elif "r" in letters:
                letters = letters.replace("r", "")
            if len(info.shape) != len(letters):
                letters = letters.replace("_", "")
            if len(info.shape) < len(letters):
                letters = letters.replace("s", "")
            check(len(info.shape) == len(letters), "maps", f"shape {info.shape}{where}", f"the shape of kspace, {shape}")
            if letters.count("s") == 1 and info.shape[letters.index("s")] == self.slices:
                return checked_maps(self._slice(key, letters, index), shape, where)
            array = ordered(self.source.read(key), letters)
        else:
            return None
        check(len(array) in (1, self.slices), "maps", f"{len(array)} slices{where}", f"one or {self.slices}")
        return checked_maps(array[index if len(array) > 1 else 0], shape, where)

    def _mask(self, index: int, kspace: Tensor, missing: np.ndarray) -> Tensor:
        axes = self.axes
        if self.given_mask is not None:
            array, where = self.given_mask, ""
        elif "mask" in self.others:
            array, where = self.source.read(self.others["mask"]), f" in {self.source.where(self.others['mask'])}"
        else:
            return (kspace != 0).any(0).float()
        mask = checked_mask(array, axes, self.slices, index, kspace, where)
        left, right = (self.source.attributes.get(f"padding_{side}") for side in ("left", "right"))
        if isinstance(left, int) and isinstance(right, int) and self._has_header():  # of fastMRI: columns of zeros, not measured
            mask[:, :max(left, 0)] = 0
            mask[:, max(right, 0):] = 0
        check(not bool((mask > 0)[torch.from_numpy(missing)].any()), "kspace",
              f"{int(missing.sum())} values that are NaN{self.where}, where the mask is 1", "finite numbers")
        return mask

    def _facts(self, shape: tuple[int, int]) -> tuple[tuple[int, int] | None, Geometry | None]:
        """Size of the image and geometry, as a header of fastMRI says them: its first axis is the readout."""
        if self.header is None:
            return None, None
        fields = [self.header.encoded_fov[0] / shape[0], self.header.encoded_fov[1] / shape[1], self.header.encoded_fov[2]]
        return (self.header.size[0], self.header.size[1]), spaced(*fields) if min(fields) > 0 else None
