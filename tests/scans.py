"""A small scan, and the files that others' libraries would write of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from alps_fast import data
from alps_fast.operators.sense import centred_fft


class Scan(NamedTuple):
    """kspace (slices, coils, H, W) times mask (H, W) with noise, maps (coils, H, W) that add up to one, images (slices, H, W)."""

    kspace: np.ndarray
    maps: np.ndarray
    mask: np.ndarray
    images: np.ndarray


def scan(slices: int = 2, coils: int = 3, height: int = 24, width: int = 20, noise: float = 0.01,
         middle: int = 4) -> Scan:
    """Parts of the shipped brain, every other column and so many in the middle measured."""
    rng = np.random.default_rng(0)
    brain = data.brain()[0]
    images = torch.stack([brain[70 + i:70 + i + height, 60:60 + width] for i in range(slices)])
    maps = data.coil_maps(coils, height, width)
    mask = np.zeros((height, width), np.float32)
    mask[:, ::2] = mask[:, width // 2 - middle // 2:width // 2 + middle // 2] = 1
    full = centred_fft(images[:, None] * maps).numpy()
    noisy = full + noise * (rng.normal(size=full.shape) + 1j * rng.normal(size=full.shape))
    return Scan((noisy * mask).astype(np.complex64), maps.numpy(), mask, images.numpy())


HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <measurementInformation><protocolName>T1</protocolName></measurementInformation>
 <acquisitionSystemInformation><relativeReceiverNoiseBandwidth>0.8</relativeReceiverNoiseBandwidth></acquisitionSystemInformation>
 <experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz></experimentalConditions>
 <encoding>
  <trajectory>{trajectory}</trajectory>
  <encodedSpace><matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>
   <fieldOfView_mm><x>{fx}</x><y>{fy}</y><z>5</z></fieldOfView_mm></encodedSpace>
  <reconSpace><matrixSize><x>{rx}</x><y>{y}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>{frx}</x><y>{fy}</y><z>5</z></fieldOfView_mm></reconSpace>
  <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum><center>{centre}</center>
   </kspace_encoding_step_1></encodingLimits>
 </encoding>
</ismrmrdHeader>"""


def header(height: int, width: int, **changes: Any) -> str:
    """A readout that is oversampled twofold, pixels of 2 mm by 3 mm."""
    known = {"trajectory": "cartesian", "x": height, "y": width, "z": 1, "rx": height // 2, "fx": 2 * height, "frx": height,
             "fy": 3 * width, "last": width - 1, "centre": width // 2}
    return HEADER.format(**known | changes)


def write_ismrmrd(path: Path, of: Scan, *, averages: int = 1, cut: int = 0, noise: float = 0.01, drop: int = 0,
                  **changes: Any) -> Path:
    """ISMRMRD's own library writes it: a noise scan, then lines of slices by turns; the first `cut` samples of each are missing,
    and of the first slice the last `drop` lines of the last average."""
    import ismrmrd

    rng = np.random.default_rng(1)
    slices, coils, height, width = of.kspace.shape
    with ismrmrd.Dataset(str(path), mode="w") as file:
        file.write_xml_header(header(height, width, **changes).encode())
        scan = noise * (rng.normal(size=(coils, 256)) + 1j * rng.normal(size=(coils, 256)))
        one = ismrmrd.Acquisition.from_array(scan.astype(np.complex64), sample_time_us=5.0)
        one.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        file.append_acquisition(one)
        columns = np.flatnonzero(of.mask[0])
        for average in range(averages):
            for column in columns:
                for k in range(slices):
                    if average == averages - 1 and k == 0 and column in columns[len(columns) - drop:]:
                        continue
                    line = of.kspace[k, :, cut:, column]
                    line = line + 0.001 * (-1) ** average if averages == 2 else line
                    one = ismrmrd.Acquisition.from_array(
                        np.ascontiguousarray(line), center_sample=height // 2 - cut, sample_time_us=10.0,
                        position=(1.0, 2.0, 10.0 * k), read_dir=(1, 0, 0), phase_dir=(0, 1, 0), slice_dir=(0, 0, 1))
                    one.idx.kspace_encode_step_1, one.idx.slice, one.idx.average = int(column), k, average
                    file.append_acquisition(one)
    return path


def write_fastmri(path: Path, of: Scan, *, single: bool = False, **attributes: Any) -> Path:
    """As fastMRI's files are: kspace (slices, coils, H, W) or (slices, H, W), a mask (W,), the header as text, attributes."""
    import h5py

    height, width = of.kspace.shape[2:]
    with h5py.File(path, "w") as file:
        file["kspace"] = of.kspace[:, 0] if single else of.kspace
        file["mask"] = of.mask[0] > 0
        file["ismrmrd_header"] = header(height, width)
        file.attrs.update({"acquisition": "AXT1", "max": 0.5, "norm": 1.0, "patient_id": "x"} | attributes)
    return path


def write_matlab73(path: Path, **arrays: np.ndarray) -> Path:
    """As MATLAB writes with -v7.3: axes from last to first, complex numbers as real and imag, 512 bytes of its own before."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            turned = np.ascontiguousarray(array.T)
            if turned.dtype.kind == "c":
                parts = np.empty(turned.shape, [("real", turned.real.dtype), ("imag", turned.real.dtype)])
                parts["real"], parts["imag"] = turned.real, turned.imag
                turned = parts
            file.create_dataset(name, data=turned).attrs["MATLAB_class"] = np.bytes_("single")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


def bart(array: np.ndarray) -> np.ndarray:
    """(slices, coils, H, W) in BART's order: READ, PHS1, PHS2, COIL, …, SLICE."""
    slices, coils, height, width = array.shape
    return array.transpose(2, 3, 1, 0).reshape(height, width, 1, coils, *[1] * 9, slices)


def write_bart(path: Path, array: np.ndarray) -> Path:
    """By hand, as the format is written down, so that the package's own writer is no part of its own test."""
    dims = [*array.shape, *[1] * (16 - array.ndim)]
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, dims)) + " \n# Command\nphantom\n")
    path.with_suffix(".cfl").write_bytes(array.astype(np.complex64).tobytes("F"))
    return path.with_suffix(".cfl")
