"""Good files of every format, made by the format's own library; small, so that a change meets something that matters."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import scans
import torch
from PIL import Image

import alps_fast as af
from alps_fast import energies

SCHEDULE = af.Schedule(sigma_max=1.0, sigma_min=0.5, levels=2, steps=1)
Y = torch.linspace(-1, 1, 6 * 5).view(1, 6, 5)


def run(**options: Any) -> af.Posterior:
    """The run whose posterior and checkpoint are seeds."""
    return af.sample(Y, af.operators.Denoising(0.2), energies.GaussianEnergy(0.1, 0.5),
                     **{"chains": 2, "draws": 4, "schedule": SCHEDULE, "progress": False} | options)


def pictures(folder: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (9, 7, 4)).astype(np.uint8)
    images = {"grey": Image.fromarray(levels[..., 0]), "rgb": Image.fromarray(levels[..., :3]), "rgba": Image.fromarray(levels),
              "palette": Image.fromarray(levels[..., :3]).quantize(8), "bits": Image.fromarray(levels[..., 0] > 99),
              "deep": Image.fromarray(levels[..., 0].astype(np.uint16) * 257)}
    for name, image in images.items():
        image.save(folder / f"{name}.png")
        image.save(folder / f"{name}.tif", compression="tiff_lzw" if name == "rgb" else None)
    images["grey"].save(folder / "grey.jpg")
    images["rgb"].save(folder / "rgb.jpg", progressive=True)
    images["rgb"].save(folder / "deflate.tif", compression="tiff_deflate")


def arrays(folder: Path) -> None:
    image = np.random.default_rng(0).normal(size=(2, 6, 5))
    np.save(folder / "float.npy", image[0])
    np.save(folder / "complex.npy", (image[:1] + 1j * image[1:]).astype(np.complex64))
    np.save(folder / "mask.npy", image[0] > 0)
    np.savez(folder / "plain.npz", image=image[0], mask=image[0] > 0, psf=abs(image[0]))
    np.savez_compressed(folder / "packed.npz", image=image[0], mask=image[0] > 0, psf=abs(image[0]))


def _kspace() -> dict[str, np.ndarray]:
    g = torch.Generator().manual_seed(0)
    kspace, maps = torch.randn(2, 2, 6, 4, dtype=torch.complex64, generator=g).numpy()
    return {"kspace": kspace, "maps": maps, "mask": np.arange(4) % 2 == 0}


def kspace_npz(folder: Path) -> None:
    np.savez(folder / "plain.npz", **_kspace())
    np.savez_compressed(folder / "packed.npz", **_kspace())


def kspace_hdf5(folder: Path) -> None:
    import h5py

    for name, options in {"plain": {}, "packed": {"compression": "gzip", "chunks": True, "shuffle": True}}.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            for key, array in _kspace().items():
                file.create_dataset(key, data=array, **options)
    with h5py.File(folder / "latest.h5", "w", libver="latest") as file:
        file["kspace"] = _kspace()["kspace"][0]


def kspace_volumes(folder: Path) -> None:
    """HDF5 as fastMRI and MATLAB write it, and ISMRMRD."""
    small = scans.scan(slices=2, coils=2, height=6, width=4, middle=2)
    scans.write_fastmri(folder / "fast.h5", small)
    scans.write_matlab73(folder / "matlab.mat", kspace=small.kspace.transpose(2, 3, 1, 0), mask=small.mask)
    if importlib.util.find_spec("ismrmrd"):
        scans.write_ismrmrd(folder / "raw.h5", small)


def kspace_mat(folder: Path) -> None:
    from scipy.io import savemat

    savemat(folder / "plain.mat", _kspace() | {"text": "x", "cell": np.array([{"a": 1}], dtype=object)})
    savemat(folder / "packed.mat", _kspace(), do_compression=True)
    savemat(folder / "four.mat", {"kspace": _kspace()["kspace"][0]}, format="4")


def kspace_bart(folder: Path) -> None:
    (folder / "k.hdr").write_text("# Dimensions\n6 4 1 2 1 1 1 1 1 1 1 1 1 2 1 1\n# Command\nphantom -k k\n")


def posterior_hdf5(folder: Path) -> None:
    run().save(folder / "posterior.h5")


def posterior(folder: Path) -> None:
    run().save(folder / "posterior.npz")


def checkpoint(folder: Path) -> None:
    run(checkpoint=folder / "checkpoint.safetensors")


def energy(folder: Path) -> None:
    gaussian = energies.GaussianEnergy(0.1, torch.full((1, 6, 5), 0.5))
    means = torch.tensor([-0.5, 0.5]).view(2, 1, 1, 1)
    mixture = energies.GaussianMixtureEnergy(torch.tensor([0.3, 0.7]), means, torch.ones(2))
    edges = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 0.0]]).view(1, 1, 1, 3, 3)
    table = torch.ones(2, 1, 1, 1)
    ridge = energies.RidgeEnergy(edges, torch.tensor([-1.0, 0.0]), table, table, table[:, :, 0, 0], bounds=torch.full((2,), 9.0))
    network = energies.DenoiserEnergy(energies.CompactNet(1, 8, (1, 0, 1)), channelwise=True)
    kinds = {"gaussian": gaussian, "mixture": mixture, "ridge": ridge, "network": network,
             "sum": energies.SumEnergy([gaussian, ridge], [0.5, 1.0])}
    for name, kind in kinds.items():
        energies.save(kind, folder / f"{name}.safetensors")


def teacher(folder: Path) -> None:
    energies.save_teacher(energies.SymmetricDenoiser(energies.CompactNet(1, 8, (1, 0, 1))), folder / "teacher.safetensors")
