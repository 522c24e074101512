"""Where the pixels of a slice are in the patient, in millimetres."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Geometry(NamedTuple):
    """A pixel (row i, column j) of an image (H, W) is at centre + (i − H // 2) row + (j − W // 2) column.

    centre, row, column, slice: (3,) float64, millimetres in the patient's coordinates as DICOM and ISMRMRD have them: x to the
    left, y to the back, z to the head. slice is as long as a slice is thick. located: False where a file told spacings alone, and
    directions are made up. The centre is that of the field of view, so a crop about the middle keeps it.
    """

    centre: np.ndarray
    row: np.ndarray
    column: np.ndarray
    slice: np.ndarray
    located: bool

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from row to row, from column to column and from slice to slice."""
        row, column, through = (float(np.linalg.norm(v)) for v in (self.row, self.column, self.slice))
        return row, column, through

    def affine(self, height: int, width: int) -> np.ndarray:
        """(4, 4): (i, j, slice, 1) to millimetres."""
        found = np.eye(4)
        found[:3] = np.stack([self.row, self.column, self.slice, self.centre], 1)
        found[:3, 3] -= height // 2 * self.row + width // 2 * self.column
        return found


def spaced(row: float, column: float, through: float) -> Geometry:
    """That of a file that tells spacings alone."""
    return Geometry(np.zeros(3), np.array([0.0, row, 0.0]), np.array([column, 0.0, 0.0]), np.array([0.0, 0.0, through]), False)
