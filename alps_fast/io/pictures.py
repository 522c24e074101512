"""The numbers of a picture as its file holds them; what Pillow would cut or wrap without a word is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import check

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

GREY, COLOUR = ("1", "L", "LA", "La"), ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "YCbCr")
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
WHITE_IS_ZERO, SIGNED = 0, 2


def pixels(picture: ImageFile, name: str, path: object) -> np.ndarray:
    """Grey (H, W) or RGB (H, W, 3) of an open picture, uint8, uint16 or float32, upright as its orientation tag says; no alpha.

    Raises:
        ArgumentError: several pages, more than 8 bits a sample of colour or grey with alpha, which Pillow cuts, other whole
            numbers than of 8 or 16 bits, or colours that are not RGB.
    """
    from PIL import ImageOps
    from PIL.TiffImagePlugin import TiffImageFile

    pages = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)  # a camera's JPEG has previews beside it
    check(pages == 1, name, f"{path} with {pages} pages", "a picture of one")
    bits, samples = _bits(picture)
    whole = "8 or 16 bits a sample of grey, 8 of colour or with alpha, or floats; an .npy file can hold others"
    mode = picture.mode
    if mode.startswith("I"):
        white_is_zero = isinstance(picture, TiffImageFile) and picture.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
        check(bits == 16 and samples == 1, name, f"{path} of {bits} bits a sample", whole)
        check(not white_is_zero, name, f"{path}, whose white is 0", "a picture whose black is 0")
        array = np.asarray(ImageOps.exif_transpose(picture))
        check(bool(((array >= 0) & (array < 1 << 16)).all()), name, f"{path} of signed numbers", whole)
        return array.astype(np.uint16)
    if mode == "F":
        return np.asarray(ImageOps.exif_transpose(picture), np.float32)
    check(mode in GREY + COLOUR, name, f"{path} of mode {mode}", "grey levels or RGB")
    check(bits <= 8, name, f"{path} of {bits} bits a sample, {samples} samples a pixel", whole)
    return np.asarray(ImageOps.exif_transpose(picture).convert("L" if mode in GREY else "RGB"))


def _bits(picture: ImageFile) -> tuple[int, int]:
    """Bits a sample and samples a pixel in the file, where Pillow may have cut them already."""
    from PIL.PngImagePlugin import PngImageFile
    from PIL.TiffImagePlugin import TiffImageFile

    if isinstance(picture, TiffImageFile):
        bits = picture.tag_v2.get(BITS, (1,))
        kinds = picture.tag_v2.get(SAMPLE_FORMAT, (1,))
        signed = SIGNED in (kinds if isinstance(kinds, tuple) else (kinds,)) and not picture.mode.startswith("I")
        return (max(bits) if not signed else 99), len(bits)
    if isinstance(picture, PngImageFile) and (file := picture.fp) is not None:
        at = file.tell()
        file.seek(24)  # the signature, then the header: length, IHDR, width, height, bit depth, colour type
        depth, colour = file.read(2)
        file.seek(at)
        return depth, {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    return 8, len(picture.getbands())
