"""ISMRMRD raw data: acquisitions sorted into slices of 2-D Cartesian k-space, the noise scan and the geometry beside them.

A row of k-space (coils, H, W) is a sample of the readout, a column a step of phase encoding. What was not acquired, as the rest
of an asymmetric echo or of partial Fourier sampling, is 0 and not in the mask. Each repetition, set, contrast and phase is a
slice of its own. Lines acquired several times are averaged where all of a slice are as often.

Source: Inati et al., "ISMRM Raw data format", MRM 77, 2017; flags and limits are those of its schema, https://ismrmrd.github.io.
"""

from __future__ import annotations

from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import torch

from ..errors import check, refused
from ..limits import check_memory
from .files import reading
from .geometry import Geometry
from .hdf5 import read_hdf5
from .kspace import KSpace, check_consistent, checked_maps, checked_mask, checked_noise, measured_kspace
from .slices import Slices
from .sources import HDF5Source

NOISE, REVERSE = 19, 22  # bits of an acquisition's flags, counted from one
OF_OTHER_KINDS = (20, 23, 24, 26, 27, 28, 29, 30, 31)  # calibration alone, navigators, phase correction, feedback, dummies, …
LOOPS = ("repetition", "set", "contrast", "phase", "slice")
FIELDS = {"head", "data", "traj"}
WANTED = "ISMRMRD data of a 2-D Cartesian scan"
LARGEST = 1 << 14  # samples of an axis


class Header(NamedTuple):
    """What the XML header says of the first encoding. Sizes (x, y, z), fields of view in millimetres; x is the readout."""

    encoded: tuple[int, int, int]
    encoded_fov: tuple[float, float, float]
    size: tuple[int, int, int]
    trajectory: str
    centre: int | None  # step 1 of phase encoding that is frequency zero
    noise_bandwidth: float
    attributes: dict[str, str | float]


def is_ismrmrd(source: HDF5Source) -> bool:
    """Whether an HDF5 file has acquisitions."""
    return _group(source) is not None


def _group(source: HDF5Source) -> str | None:
    found = [key for key, info in source.arrays.items() if key.split("/")[-1] == "data" and set(info.fields) >= FIELDS]
    return found[0].rpartition("data")[0] if found else None


def header_of(text: str, source: HDF5Source) -> Header:
    """An XML header of the schema.

    Raises:
        ArgumentError: it is none, or lacks what is needed.
    """
    with reading(source.path, source.name, WANTED, "has an XML header that cannot be read"):
        root = ElementTree.fromstring(text.strip("\0").strip())
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        encoding = root.find("encoding")
        if encoding is None:
            raise ValueError("no encoding in it")

        def triple(of: str) -> tuple[float, float, float]:
            x, y, z = (float(encoding.findtext(f"{of}/{axis}", "")) for axis in "xyz")
            return x, y, z

        encoded, size = (sizes(triple(f"{space}/matrixSize")) for space in ("encodedSpace", "reconSpace"))
        fov = triple("encodedSpace/fieldOfView_mm")
        if not all(0 < n <= LARGEST for n in encoded + size) or not all(0 <= f < 1e5 for f in fov):
            raise ValueError(f"matrix sizes {encoded} and {size}, field of view {fov}")
        centre = encoding.findtext("encodingLimits/kspace_encoding_step_1/center")
        bandwidth = float(root.findtext("acquisitionSystemInformation/relativeReceiverNoiseBandwidth") or 1.0)
        known = {"protocolName": "measurementInformation/protocolName", "measurementID": "measurementInformation/measurementID",
                 "systemVendor": "acquisitionSystemInformation/systemVendor",
                 "systemFieldStrength_T": "acquisitionSystemInformation/systemFieldStrength_T"}
        attributes = {name: value for name, place in known.items() if (value := root.findtext(place))}
        return Header(encoded, fov, size, (encoding.findtext("trajectory") or "cartesian").strip().lower(),
                      None if centre is None else int(centre), bandwidth if 0 < bandwidth <= 10 else 1.0, dict(attributes))


def sizes(of: tuple[float, float, float]) -> tuple[int, int, int]:
    """Three whole numbers of a header."""
    x, y, z = map(int, of)
    return x, y, z


class ISMRMRDFile(Slices):
    """Slices of an ISMRMRD file; maps (slices or 1, coils, H, W) and a mask may be given beside."""

    def __init__(self, source: HDF5Source, maps: np.ndarray | None, mask: np.ndarray | None):
        self.source, self.path, self.given_maps, self.given_mask = source, source.path, maps, mask
        group = _group(source)
        assert group is not None
        self.data = f"{group}data"
        check(f"{group}xml" in source.arrays, source.name, f"{source.path} without {group}xml", WANTED)
        self.header = header_of(source.text(f"{group}xml"), source)
        self._check_kind()
        with reading(self.path, source.name, WANTED):
            head = read_hdf5(self.path, source.name, [(self.data, "head", None)])[0].reshape(-1)
            flags = head["flags"].astype(np.uint64)
            self.head, self.noise_scans = head, np.flatnonzero(_any(flags, (NOISE,)))
            image = ~_any(flags, (NOISE, *OF_OTHER_KINDS)) & (head["encoding_space_ref"] == 0)
            check(bool(image.any()), source.name, f"{self.path} without acquisitions of an image", WANTED)
            check(not _any(flags[image], (REVERSE,)).any(), source.name, f"{self.path} with lines read backwards (EPI)", WANTED)
            idx = head["idx"]
            check(bool((idx["kspace_encode_step_2"][image] == idx["kspace_encode_step_2"][image][0]).all()), source.name,
                  f"{self.path} with a second phase encoding, 3-D", WANTED)
            order = np.stack([idx[loop] for loop in LOOPS], 1).astype(np.int64)
            self.loops, inverse = np.unique(order[image], axis=0, return_inverse=True)
            self.members = [np.flatnonzero(image)[inverse.reshape(-1) == i] for i in range(len(self.loops))]
        height, width, _ = self.header.encoded
        coils = int(head["active_channels"][self.members[0][0]])
        self._scan: np.ndarray | None = None  # of noise, once it is read
        self.shape = (len(self), coils, height, width)

    def _check_kind(self) -> None:
        name, path = self.source.name, self.path
        check(self.header.trajectory == "cartesian", name, f"{path} of a {self.header.trajectory} trajectory", WANTED)
        check(self.header.encoded[2] == 1, name, f"{path} of a 3-D scan, encoded matrix {self.header.encoded}", WANTED)

    def __len__(self) -> int:
        return len(self.loops)

    def label(self, index: int) -> str:
        """The slice, and what else changes in the file."""
        changing = [i for i in range(len(LOOPS)) if len(np.unique(self.loops[:, i])) > 1 or LOOPS[i] == "slice"]
        return ", ".join(f"{LOOPS[i]} {self.loops[index][i]}" for i in changing[::-1])

    def read(self, index: int) -> KSpace:
        members, where = self.members[index], f" in {self.path}[{self.data}], {self.label(index)}"
        head = self.head[members]
        with reading(self.path, self.source.name, WANTED):
            array, measured, times = self._sorted(members, head, where)
        kspace, _ = measured_kspace(array, where)
        found = torch.from_numpy(measured) & (kspace != 0).any(0)
        mask, shape = found.float(), tuple(kspace.shape)
        letters = "schw"
        if self.given_mask is not None:
            mask *= checked_mask(self.given_mask, letters, len(self), index, kspace, "")
        check_consistent(kspace, mask, where)
        maps = self.given_maps
        if maps is not None:
            check(len(maps) in (1, len(self)), "maps", f"{len(maps)} slices", f"one or {len(self)}")
        return KSpace(kspace * mask, None if maps is None else checked_maps(maps[index if len(maps) > 1 else 0], shape, ""), mask,
                      noise=self._noise(head, times, shape[0]), size=(self.header.size[0], self.header.size[1]),
                      geometry=self._geometry(head[0]), attributes=self.header.attributes, source=where[4:])

    def _acquired(self, members: np.ndarray, where: str) -> list[np.ndarray]:
        """(coils, samples) of acquisitions, what is to be discarded at either end left out."""
        values, lengths = read_hdf5(self.path, self.source.name, [(self.data, "data", members.tolist())])
        found = []
        for head, part in zip(self.head[members], np.split(values.astype(np.float32), np.cumsum(lengths)[:-1]), strict=True):
            coils, samples = int(head["active_channels"]), int(head["number_of_samples"])
            check(len(part) == 2 * coils * samples > 0, "kspace", f"{len(part)} numbers in an acquisition{where}",
                  f"{2 * coils * samples}, as its header says")
            last = samples - int(head["discard_post"])
            found.append(part.view(np.complex64).reshape(coils, samples)[:, int(head["discard_pre"]):last])
        return found

    def _sorted(self, members: np.ndarray, head: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray, int]:
        """k-space (coils, H, W), where (H, W) it was acquired, and how often every line was."""
        height, width, _ = self.header.encoded
        coils = int(head["active_channels"][0])
        check(bool((head["active_channels"] == coils).all()), "kspace", f"acquisitions of different coils{where}", "the same")
        check_memory("kspace", f"shape ({coils}, {height}, {width}){where}", 3 * 8 * coils * height * width, torch.device("cpu"))
        kspace, counts = np.zeros((coils, height, width), np.complex64), np.zeros((height, width), np.int64)
        centre = width // 2 if self.header.centre is None else self.header.centre
        for one, line in zip(head, self._acquired(members, where), strict=True):
            column = int(one["idx"]["kspace_encode_step_1"]) - centre + width // 2
            samples, middle = line.shape[1], int(one["center_sample"]) - int(one["discard_pre"])
            if samples == height:
                middle = height // 2  # some converters leave it at 0
            row = height // 2 - middle
            check(0 <= column < width and 0 <= row <= height - samples, "kspace",
                  f"an acquisition of {samples} samples, the middle at {middle}, for column {column}{where}",
                  f"what fits in the encoded matrix ({height}, {width})")
            kspace[:, row:row + samples, column] += line
            counts[row:row + samples, column] += 1
        times = np.unique(counts[counts > 0])
        if len(times) != 1:
            raise refused("kspace", f"samples acquired {times.min()} to {times.max()} times{where}", "all as often")
        return kspace / np.float32(times[0]), counts > 0, int(times[0])

    def _noise(self, head: np.ndarray, times: int, coils: int) -> torch.Tensor | None:
        """The noise scan as noisy as k-space is: by dwell times, the receiver's relative bandwidth and averages."""
        scans = [i for i in self.noise_scans if int(self.head["active_channels"][i]) == coils]
        if not scans:
            return None
        with reading(self.path, self.source.name, WANTED):
            if self._scan is None:
                self._scan = np.concatenate(self._acquired(np.array(scans), ", of noise"), 1)
            here, there = float(head["sample_time_us"][0]), float(self.head["sample_time_us"][scans[0]])
        ratio = there / here / self.header.noise_bandwidth if here > 0 and there > 0 else 1.0
        return checked_noise({"noise": self._scan * np.float32((ratio / times) ** 0.5)}, coils, self.path)["noise"]

    def _geometry(self, head: np.ndarray) -> Geometry | None:
        """By position and directions of an acquisition; None where they are not three directions."""
        sizes = [fov / n for fov, n in zip(self.header.encoded_fov, self.header.encoded, strict=True)]
        axes = np.stack([np.asarray(head[name], np.float64) for name in ("read_dir", "phase_dir", "slice_dir")])
        centre = np.asarray(head["position"], np.float64)
        straight = bool(np.isfinite(axes).all()) and np.allclose(axes @ axes.T, np.eye(3), atol=1e-2)
        if min(sizes) <= 0 or not straight or not np.isfinite(centre).all():
            return None
        row, column, through = (size * axis for size, axis in zip(sizes, axes, strict=True))
        return Geometry(centre, row, column, through, True)


def _any(flags: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:
    """Which flags have one of these bits."""
    return (flags & np.uint64(sum(1 << bit - 1 for bit in bits))) != 0
