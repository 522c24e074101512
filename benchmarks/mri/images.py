"""The images of the table: slices that no prior was trained on, and two that are unlike those."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alps_fast.distill.data import brain_volume, icbm152, random_phase

GRID = (104, 128)
SCALE = 2 / 3  # of slices of 1 mm: an average of 152 people is as sharp at 1.5 mm as one person's scan, of the training, at 1 mm
AXIAL = tuple(range(58, 130, 8))  # nine slices; of the training's orientations, of another head
CORONAL = tuple(range(60, 181, 12))  # eleven
MACAQUE = Path("/usr/share/mricron/templates/inia19-t1-brain.nii.gz")
EDGE = 0.05  # of the largest magnitude: what is more belongs to the object


class Truth(NamedTuple):
    """x: (1, H, W) complex64, largest magnitude 1. kind: "held out" or "unlike"."""

    name: str
    kind: str
    x: Tensor

    @property
    def inside(self) -> Tensor:
        """(H, W) bool, the object's pixels."""
        return self.x[0].abs() > EDGE


def held_out() -> Iterator[Truth]:
    """ICBM152 T1, axial and coronal by turns, as nilearn ships it. ImportError: nilearn is not installed."""
    volume = icbm152()
    planes = [[(f"axial {i}", volume[:, :, i]) for i in AXIAL], [(f"coronal {i}", volume[:, i]) for i in CORONAL]]
    for some in zip_longest(*map(middle_first, planes)):
        for named in some:
            if named is not None:
                name, plane = named
                yield Truth(name, "held out", placed(name, plane, SCALE))


def middle_first(planes: list[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
    """The same, nearest to the middle first: those with most in them."""
    order = sorted(range(len(planes)), key=lambda i: abs(i - len(planes) // 2))
    return [planes[i] for i in order]


def unlike() -> Iterator[Truth]:
    """A macaque's brain, T1, 0.5 mm, where Debian's mricron-data is installed; an EPI of one person, of nibabel's tests."""
    import nibabel

    if MACAQUE.exists():
        volume = brain_volume(MACAQUE)
        yield Truth("macaque", "unlike", placed("macaque", volume[:, :, volume.shape[2] // 2 - 8], SCALE))
    epi = Path(nibabel.__file__).parent / "tests/data/example4d.nii.gz"
    if epi.exists():
        volume = np.asarray(nibabel.Nifti1Image.from_filename(epi).dataobj, dtype=np.float32)[..., 0]
        plane = np.clip(volume[:, :, 12] / np.percentile(volume[:, :, 12], 99.9), 0, 1)
        yield Truth("epi", "unlike", placed("epi", plane, 1.0))


def placed(name: str, plane: np.ndarray, scale: float) -> Tensor:
    """A plane reduced, in the middle of GRID, largest magnitude 1, with a smooth phase that hangs on its name alone."""
    if scale < 1:
        size = tuple(round(side * scale) for side in plane.shape[::-1])
        plane = np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, Image.Resampling.BOX))
    rows, columns = (np.nonzero((plane > EDGE * plane.max()).any(axis))[0] for axis in (1, 0))
    plane = plane[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1][:GRID[0], :GRID[1]]
    whole = np.zeros(GRID, np.float32)
    top, left = ((n - m) // 2 for n, m in zip(GRID, plane.shape, strict=True))
    whole[top:top + plane.shape[0], left:left + plane.shape[1]] = plane / plane.max()
    phase = random_phase(1, max(GRID), torch.Generator().manual_seed(zlib.crc32(name.encode())))[0, :GRID[0], :GRID[1]]
    return torch.polar(torch.from_numpy(whole), phase)[None]
