"""What is measured of an image in a cell of the table: mask, coils, noise."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alps_fast import data
from alps_fast.operators import CartesianMRI

from .figures import error
from .images import Truth

COILS = 8
CENTRE = 16  # side of the middle that is whole under a mask of two axes


class Cell(NamedTuple):
    """pattern: "1-D" (whole columns) or "2-D". snr: mean magnitude of the object over η."""

    pattern: str
    acceleration: int
    snr: int

    def __str__(self) -> str:
        return f"{self.pattern} R = {self.acceleration}, SNR {self.snr}"


CELLS = tuple(Cell(pattern, acceleration, snr) for snr in (20, 10, 40)
              for pattern, acceleration in (("1-D", 4), ("2-D", 8), ("1-D", 8), ("2-D", 6)))


class Problem(NamedTuple):
    """A measurement. judge: how far an image is off, by which sweeps choose: of a scan by what was held out."""

    y: Tensor
    operator: CartesianMRI
    judge: Callable[[Tensor], float]

    @property
    def mask(self) -> Tensor:
        """(H, W)."""
        return self.operator.mask

    @property
    def maps(self) -> Tensor:
        """(coils, H, W)."""
        assert self.operator.maps is not None
        return self.operator.maps


def problem(truth: Truth, cell: Cell) -> Problem:
    """The measurement of an image by eight coils whose maps all methods are given, as they are η.

    Mask and noise hang on image and cell alone: so every method has the same data, whenever it is run.
    """
    height, width = truth.x.shape[-2:]
    seed = zlib.crc32(f"{truth.name}, {cell}".encode())
    if cell.pattern == "1-D":
        mask = data.line_mask(height, width, cell.acceleration, width // cell.acceleration // 2, seed)
    else:
        mask = scattered(height, width, cell.acceleration, seed)
    eta = float(truth.x[0].abs()[truth.inside].mean()) / cell.snr
    operator = CartesianMRI(mask, data.coil_maps(COILS, height, width), noise_std=eta)
    return Problem(data.measure(operator, truth.x, seed=seed), operator, partial(error, truth=truth))


def scattered(height: int, width: int, acceleration: int, seed: int) -> Tensor:
    """Samples (H, W), the middle whole, the others at random with a density that falls towards the corners; one in
    `acceleration` of all. By NumPy's generator: by torch's they would choose among the noise, which has the same seed."""
    v, u = ((torch.arange(n) - n // 2) / (n / 2) for n in (height, width))
    density = (1 - (v[:, None].square() + u.square()).sqrt() / 2**0.5).clamp(min=0) ** 2 + 0.05
    middle = torch.zeros(height, width, dtype=torch.bool)
    side = min(CENTRE, math.isqrt(height * width // acceleration) // 2)
    top, left = height // 2 - side // 2, width // 2 - side // 2
    middle[top:top + side, left:left + side] = True
    wanted = round(height * width / acceleration) - int(middle.sum())
    density[middle] = 0
    share = density.double().flatten().numpy()
    drawn = np.random.default_rng(seed).choice(share.size, wanted, replace=False, p=share / share.sum())
    mask = middle.float()
    mask.view(-1)[torch.from_numpy(drawn)] = 1
    return mask
