"""Pictures of every kind that people have: read right or refused, never cut, wrapped or turned in silence."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from alps_fast import io
from alps_fast.errors import ArgumentError

LEVELS = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7
EXPECTED = torch.from_numpy(LEVELS / 127.5 - 1).float()[None]


def png(path: Path, colour: int, depth: int, rows: np.ndarray) -> Path:
    """A PNG by hand: rows (H, bytes a row)."""
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    header = struct.pack(">IIBBBBB", rows.shape[1] * 8 // (depth * samples), rows.shape[0], depth, colour, 0, 0, 0)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_sixteen_bits_of_colour_or_with_alpha_are_not_cut(tmp_path: Path, colour: int) -> None:
    samples = {2: 3, 4: 2, 6: 4}[colour]
    rows = np.full((4, 5 * samples), 1000, ">u2").view(np.uint8).reshape(4, -1)
    with pytest.raises(ArgumentError, match=f"^input: got .* of 16 bits a sample, {samples} samples a pixel; wanted 8 or 16"):
        io.read_image(png(tmp_path / "x.png", colour, 16, rows))


@pytest.mark.parametrize("name", ["x.png", "x.tiff"])
def test_sixteen_bits_of_grey(tmp_path: Path, name: str) -> None:
    levels = np.array([[0, 300, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / name)
    torch.testing.assert_close(io.read_image(tmp_path / name), torch.tensor([[[-1.0, 300 / 32767.5 - 1, 1.0]]]))


def test_big_endian_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[0, 65535]], ">u2"))
    assert io.read_image(tmp_path / "x.npy").tolist() == [[[-1.0, 1.0]]]
    np.save(tmp_path / "m.npy", np.array([[0.0, 2.0]], ">f8"))
    assert io.read_mask(tmp_path / "m.npy").tolist() == [[[0.0, 1.0]]]


@pytest.mark.parametrize("levels", [np.array([[70000, 3]], np.int32), np.array([[7, 3]], np.int32)], ids=["large", "small"])
def test_whole_numbers_of_32_bits_are_refused(tmp_path: Path, levels: np.ndarray) -> None:
    Image.fromarray(levels).save(tmp_path / "x.tiff")
    with pytest.raises(ArgumentError, match="^input: got .*x.tiff of 32 bits a sample"):
        io.read_image(tmp_path / "x.tiff")


def test_floats_stay(tmp_path: Path) -> None:
    Image.fromarray(np.array([[-3.5, 0.25]], np.float32)).save(tmp_path / "x.tiff")
    assert io.read_image(tmp_path / "x.tiff").tolist() == [[[-3.5, 0.25]]]


@pytest.mark.parametrize("name", ["x.png", "x.tiff", "x.jpg"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_pictures_are_turned_upright(tmp_path: Path, name: str, orientation: int) -> None:
    turns = {3: 2, 6: 3, 8: 1}[orientation]  # counter-clockwise quarter turns that the reader must make
    picture = Image.fromarray(np.repeat(np.repeat(LEVELS, 8, 0), 8, 1))
    exif = picture.getexif()
    exif[274] = orientation
    picture.save(tmp_path / name, exif=exif)
    found = io.read_image(tmp_path / name)[:, 4::8, 4::8]
    torch.testing.assert_close(found, torch.rot90(EXPECTED, turns, (1, 2)), rtol=0, atol=0.05 if name == "x.jpg" else 1e-6)


@pytest.mark.parametrize("name", ["x.png", "x.tiff"])
def test_several_pages_are_refused(tmp_path: Path, name: str) -> None:
    pages = [Image.fromarray(LEVELS), Image.fromarray(255 - LEVELS)]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    with pytest.raises(ArgumentError, match=r"^input: got .* with 2 pages; wanted a picture of one"):
        io.read_image(tmp_path / name)


def test_grey_with_alpha_and_black_and_white(tmp_path: Path) -> None:
    Image.merge("LA", [Image.fromarray(LEVELS), Image.fromarray(255 - LEVELS)]).save(tmp_path / "x.png")
    torch.testing.assert_close(io.read_image(tmp_path / "x.png"), EXPECTED)
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "b.png")
    assert io.read_image(tmp_path / "b.png").tolist() == [[[-1.0, 1.0]]]


@pytest.mark.parametrize("depth", [2, 4])
def test_few_bits_of_grey_span_the_range(tmp_path: Path, depth: int) -> None:
    row = np.array([[0b00011011 if depth == 2 else 0x0F]], np.uint8)
    found = io.read_image(png(tmp_path / "x.png", 0, depth, row))
    torch.testing.assert_close(found, torch.linspace(-1, 1, 4 if depth == 2 else 2)[None, None], atol=1e-6, rtol=0)


def test_colours_that_are_not_rgb_are_refused(tmp_path: Path) -> None:
    for mode in ("CMYK", "LAB"):
        Image.new(mode, (4, 3)).save(tmp_path / "x.tiff")
        with pytest.raises(ArgumentError, match=f"^input: got .*x.tiff of mode {mode}; wanted grey levels or RGB"):
            io.read_image(tmp_path / "x.tiff")


def test_white_that_is_zero(tmp_path: Path) -> None:
    """8 bits are turned to black by Pillow, 16 are not."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[262] = 0
    for levels in (LEVELS, LEVELS.astype(np.uint16)):
        Image.fromarray(levels).save(tmp_path / "x.tiff", tiffinfo=info)
        with Image.open(tmp_path / "x.tiff") as written:
            if written.tag_v2[262] != 0:  # type: ignore[attr-defined]
                pytest.skip("this Pillow writes no such files")
        if levels.dtype == np.uint8:
            assert io.read_image(tmp_path / "x.tiff").shape == (1, 5, 7)
        else:
            with pytest.raises(ArgumentError, match="whose white is 0"):
                io.read_image(tmp_path / "x.tiff")


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int16, np.int32, np.uint32, np.int64])
def test_arrays_of_unknown_scale_are_refused(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 4), dtype))
    with pytest.raises(ArgumentError, match=r"^input: got .*x.npy of dtype .*; wanted uint8, uint16 or floats"):
        io.read_image(tmp_path / "x.npy")
    assert io.read_mask(tmp_path / "x.npy").shape == (1, 3, 4)
