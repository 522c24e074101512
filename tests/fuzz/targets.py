"""What is fuzzed: every function that reads a file, and the first use of what it read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import alps_fast as af
from alps_fast import energies, io, operators

from . import seeds


class Target(NamedTuple):
    """read: takes a damaged file; returns, or raises an ArgumentError of one line. seeds: writes good files into a folder.

    share: of the time; a process is started for every file of HDF5.
    """

    read: Callable[[Path], object]
    seeds: Callable[[Path], None]
    share: int = 1


def _image(path: Path) -> None:
    image = io.read_image(path)
    assert image.ndim == 3 and bool(image.isfinite().all())


def _mask(path: Path) -> None:
    operators.Inpainting(io.read_mask(path), 0.1)


def _psf(path: Path) -> None:
    operators.CircularBlur(io.read_psf(path), 0.1)


def _kspace(path: Path) -> None:
    kspace, maps, mask = io.read_kspace(path)
    operators.CartesianMRI(mask, maps, noise_std=0.1).check_measurement(kspace)


def _slices(path: Path) -> None:
    for data in io.open_kspace(path):
        assert data.kspace.ndim == 3 and data.mask.shape == data.kspace.shape[1:] and bool(data.kspace.isfinite().all())


def _bart(path: Path) -> None:
    """The header is damaged; the numbers beside it are good."""
    numbers = path.with_suffix(".cfl")
    numbers.write_bytes(np.random.default_rng(0).normal(size=2 * 6 * 4 * 2 * 2).astype("<f4").tobytes())
    try:
        _slices(path)
    finally:
        numbers.unlink()


def _posterior(path: Path) -> None:
    posterior = af.Posterior.load(path)
    assert posterior.std.shape == posterior.mean.shape and len(posterior.interval()) == 2


def _energy(path: Path) -> None:
    energy = energies.load(path, backend="torch")
    grad = energy.grad(torch.zeros(1, energy.channels or 1, 6, 5), 0.5)
    assert grad.shape[-2:] == (6, 5) and energy.curvature(0.5) != 0


def _teacher(path: Path) -> None:
    denoiser = energies.load_teacher(path)
    x = torch.zeros(1, getattr(denoiser, "denoiser", denoiser).channels, 6, 5)
    assert denoiser(x, torch.ones(1)).shape == x.shape


@cache
def _whole() -> af.Posterior:
    return seeds.run()


def _checkpoint(path: Path) -> None:
    assert torch.equal(seeds.run(checkpoint=path).samples, _whole().samples)  # refused, or no other result


TARGETS = {
    "picture": Target(_image, seeds.pictures), "picture of a mask": Target(_mask, seeds.pictures),
    "picture of a kernel": Target(_psf, seeds.pictures), "array": Target(_image, seeds.arrays),
    "array of a mask": Target(_mask, seeds.arrays), "array of a kernel": Target(_psf, seeds.arrays),
    "k-space npz": Target(_kspace, seeds.kspace_npz), "k-space HDF5": Target(_kspace, seeds.kspace_hdf5, share=4),
    "k-space HDF5 volumes": Target(_slices, seeds.kspace_volumes, share=4), "k-space MATLAB": Target(_slices, seeds.kspace_mat),
    "k-space BART": Target(_bart, seeds.kspace_bart), "posterior HDF5": Target(_posterior, seeds.posterior_hdf5, share=2),
    "posterior": Target(_posterior, seeds.posterior), "checkpoint": Target(_checkpoint, seeds.checkpoint),
    "energy": Target(_energy, seeds.energy), "teacher": Target(_teacher, seeds.teacher),
}
