"""The fuzzing itself: every reader stands some files here, `make fuzz` many, and what would be a fault is found."""

from pathlib import Path

import numpy as np
import pytest
from fuzz import seeds
from fuzz.mutate import changed
from fuzz.run import fuzz
from fuzz.targets import TARGETS, Target

from alps_fast.errors import ArgumentError


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    if "MATLAB" in name:
        pytest.importorskip("scipy")
    if "HDF5" in name:
        pytest.importorskip("h5py")
    found = fuzz(name, TARGETS[name], tmp_path, seconds=0.5, seed=0)
    assert found.faults == {}
    assert found.read > 0


def leaky(path: Path) -> None:
    """A reader as they were: NumPy raises what it likes on a damaged archive."""
    with path.open("rb") as file:
        np.load(file)["image"].sum()


def wordy(path: Path) -> None:
    if path.parent.name != "good":
        raise ArgumentError("input: got\ntwo lines")


@pytest.mark.parametrize("reader", [leaky, wordy])
def test_faults_are_found_and_their_files_kept(tmp_path: Path, reader: object) -> None:
    def archives(folder: Path) -> None:
        np.savez_compressed(folder / "x.npz", image=np.ones((5, 4)))

    found = fuzz("planted", Target(reader, archives), tmp_path, seconds=60, seed=0, most=3)
    assert len(found.faults) == 3 and all(path.exists() for path in found.faults)
    assert all(("two lines" if reader is wordy else "in leaky") in what for what in found.faults.values())


def test_damage_by_format_gets_past_lengths_and_checksums(tmp_path: Path) -> None:
    import json
    import random
    import struct
    import zipfile

    from fuzz.mutate import _safetensors, _zip

    seeds.energy(tmp_path)
    seeds.posterior(tmp_path)
    rng, headers, archives = random.Random(0), 0, 0
    for _ in range(50):
        data = _safetensors((tmp_path / "sum.safetensors").read_bytes(), rng)
        headers += isinstance(json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]]), object)
        (tmp_path / "x.npz").write_bytes(_zip((tmp_path / "posterior.npz").read_bytes(), rng))
        with zipfile.ZipFile(tmp_path / "x.npz") as archive:
            archives += archive.testzip() is None
    assert headers == archives == 50
    assert any(changed({"a": [1, {"b": 2}]}, rng) != {"a": [1, {"b": 2}]} for _ in range(9))
