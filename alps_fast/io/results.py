"""Results in others' formats, one file a picture: NIfTI, DICOM, BART, PNG; and everything in one npz or HDF5 file.

A volume's slices are the third axis of NIfTI files, frames of DICOM files, BART's dimension 13. Complex images are written by
their magnitude where a format has no complex numbers.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import check, refused
from .archives import write_arrays
from .bart import BATCH, DIMENSIONS, SLICE, write_cfl
from .files import replacing
from .geometry import Geometry, spaced

ALONE = (".npz", ".h5", ".hdf5")  # everything in one file
SUFFIXES = (*ALONE, ".nii.gz", ".nii", ".dcm", ".cfl", ".png")
SAMPLES_AT = BATCH  # BART's dimension that samples lie along
LEVELS = 65535  # of 16 bits
SECONDARY_CAPTURE, MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.3"


@dataclass
class Results:
    """What was found, in units of the input.

    images: by what they are, "mean", "std" and, where it was asked for, "map": (slices, C, H, W), complex or real; std is that of
        the magnitude of complex images. samples: (slices, chains, C, H, W). arrays: everything, by name. geometry: of the first
        and of the last slice. labels: of slices, for pictures. plot: draws the picture of one slice.
    """

    images: Mapping[str, np.ndarray]
    samples: np.ndarray
    arrays: Mapping[str, np.ndarray]
    geometry: tuple[Geometry | None, Geometry | None] = (None, None)
    labels: list[str] = field(default_factory=list)
    plot: Callable[[Path], object] | None = None


def split(path: Path) -> tuple[Path, str]:
    """A name without its suffix, and the suffix, in lower case, if it is one that is written; else the name and ""."""
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s) and len(path.name) > len(s)), "")
    return (path.with_name(path.name[:-len(suffix)]) if suffix else path), suffix


def files_of(path: Path, with_map: bool) -> list[Path]:
    """The files that `write` writes for one name."""
    stem, suffix = split(path)
    if suffix in (*ALONE, ".png"):
        return [path]
    kinds = ["", "_std", *(["_map"] if with_map else []), *(["_samples"] if suffix == ".cfl" else [])]
    files = [stem.with_name(f"{stem.name}{kind}{suffix}") for kind in kinds]
    return files + [file.with_suffix(".hdr") for file in files if suffix == ".cfl"]


def write(path: Path, found: Results) -> None:
    """Everything in one file, or, of formats for images, the mean in `path`, others in names with _std, _map, _samples.

    Raises:
        ArgumentError: an image of several channels in a format for one.
        ImportError: the library of the format, an extra, is not installed.
    """
    stem, suffix = split(path)
    if suffix in ALONE:
        write_arrays(path, found.arrays)
        return
    if suffix == ".png":
        (found.plot or _sheet(found))(path)
        return
    channels = found.images["mean"].shape[1]
    check(channels == 1, "out", f"{path} for images of {channels} channels", "an .npz, .h5 or .png file for them")
    for kind, images in found.images.items():
        file = stem.with_name(f"{stem.name}{'' if kind == 'mean' else f'_{kind}'}{suffix}")
        if suffix == ".cfl":
            write_cfl(file, _bart(images[:, None, 0]))
        elif suffix == ".dcm":
            _dicom(file, np.abs(images[:, 0]) if kind != "std" else images[:, 0], kind, found.geometry[0])
        else:
            _nifti(file, np.abs(images[:, 0]) if np.iscomplexobj(images) else images[:, 0], kind, found.geometry)
    if suffix == ".cfl":
        write_cfl(stem.with_name(f"{stem.name}_samples{suffix}"), _bart(found.samples[:, :, 0]))


def _bart(images: np.ndarray) -> np.ndarray:
    """(slices, samples, H, W) in BART's dimensions."""
    slices, samples, height, width = images.shape
    sizes = [height, width] + [1] * (DIMENSIONS - 2)
    sizes[SLICE], sizes[SAMPLES_AT] = slices, samples
    return images.transpose(2, 3, 0, 1).reshape(sizes)


def _nifti(path: Path, images: np.ndarray, kind: str, geometry: tuple[Geometry | None, Geometry | None]) -> None:
    """Float32 (H, W, slices) with the affine of the slices, x to the right and y to the front as NIfTI has them."""
    try:
        import nibabel
    except ImportError as error:
        raise ImportError(f"{path} needs nibabel: pip install 'alps_fast[formats]'") from error
    first, last = geometry
    count, height, width = images.shape
    placed = first or spaced(1.0, 1.0, 1.0)
    if first is not None and last is not None and count > 1 and np.linalg.norm(last.centre - first.centre) > 0:
        placed = first._replace(slice=(last.centre - first.centre) / (count - 1))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ placed.affine(height, width)
    image = nibabel.Nifti1Image(np.ascontiguousarray(images.transpose(1, 2, 0), np.float32), affine)
    code = 1 if placed.located else 0  # in the scanner's coordinates, or by nobody's
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units("mm" if first is not None else "unknown")
    image.header["descrip"] = f"alps_fast {kind}".encode()
    data = image.to_bytes()
    with replacing(path) as partial:
        partial.write_bytes(gzip.compress(data, mtime=0) if path.name.lower().endswith(".gz") else data)


def _dicom(path: Path, images: np.ndarray, kind: str, geometry: Geometry | None) -> None:
    """A secondary capture of 16 bits, a frame a slice; slope and intercept lead back to units of the input."""
    try:
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
    except ImportError as error:
        raise ImportError(f"{path} needs pydicom: pip install 'alps_fast[formats]'") from error
    count, height, width = images.shape
    low, high = (float(v) if np.isfinite(v) else 0.0 for v in (np.nanmin(images), np.nanmax(images)))
    slope = (high - low) / LEVELS or 1.0
    levels = np.nan_to_num((images - low) / slope).round().astype("<u2")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(SECONDARY_CAPTURE if count == 1 else MULTI_FRAME)
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = generate_uid(), ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.StudyInstanceUID, file.SeriesInstanceUID = generate_uid(), generate_uid()
    file.PatientName = file.PatientID = file.PatientBirthDate = file.PatientSex = file.StudyID = file.AccessionNumber = ""
    file.StudyDate = file.StudyTime = file.ReferringPhysicianName = ""
    file.Modality, file.ConversionType, file.Manufacturer = "MR", "WSD", "alps_fast"
    file.SeriesNumber, file.InstanceNumber, file.SeriesDescription = 1, 1, f"posterior {kind}"
    file.ImageType = ["DERIVED", "SECONDARY"]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.Rows, file.Columns, file.PixelRepresentation = height, width, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
    file.RescaleIntercept, file.RescaleSlope, file.RescaleType = _short(low), _short(slope), "US"
    file.WindowCenter, file.WindowWidth = _short((low + high) / 2), _short(max(high - low, slope))
    if geometry is not None:
        file.PixelSpacing = [_short(v) for v in geometry.spacing[:2]]
    if count > 1:
        file.NumberOfFrames, file.FrameIncrementPointer = count, 0x00200013
    file.PixelData = levels.tobytes()
    with replacing(path) as partial:
        file.save_as(partial, enforce_file_format=True)


def _short(value: float) -> str:
    """A number in the sixteen characters of a decimal string."""
    return f"{value:.9g}"


def _sheet(found: Results) -> Callable[[Path], object]:
    """A picture of several slices: means above their standard deviations, of at most six."""
    def draw(path: Path) -> None:
        from matplotlib.figure import Figure

        mean, std = (np.abs(found.images[kind]).mean(1) for kind in ("mean", "std"))
        shown = np.unique(np.linspace(0, len(mean) - 1, min(6, len(mean))).round().astype(int))
        figure = Figure(figsize=(2.6 * len(shown) + 0.6, 5.6), layout="constrained")
        top, bottom = figure.subplots(2, len(shown), squeeze=False)
        high, most = float(np.nanmax(mean)), np.nan_to_num(std).max()
        for i, one, below in zip(shown, top, bottom, strict=True):
            one.imshow(mean[i], cmap="gray", vmin=0, vmax=high)
            one.set_title(found.labels[i] if found.labels else str(i))
            drawn = below.imshow(std[i], cmap="magma", vmin=0, vmax=most or 1.0)
            one.set_axis_off()
            below.set_axis_off()
        figure.colorbar(drawn, ax=list(bottom), shrink=0.8)
        with replacing(path) as partial:
            figure.savefig(partial, dpi=120, format="png")
    return draw


def check_names(files: list[Path]) -> None:
    """Several results must not have the same name."""
    twice = {file for file in files if files.count(file) > 1}
    if twice:
        raise refused("out", f"{min(twice)} for several results", "a name each: {} in --out stands for that of the input")
