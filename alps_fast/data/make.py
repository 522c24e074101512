"""Recreate the shipped demo images from nilearn and scikit-image: `python -m alps_fast.data.make [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

ICBM152 = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


def brain() -> Image.Image:
    """Axial slice 90 (z = 18 mm) of the T1 template, anterior up, cropped to 192 x 160 at 1 mm, 255 = the 99.9 % level."""
    import nibabel
    import nilearn

    volume = nibabel.nifti1.load(Path(nilearn.__file__).parent / ICBM152).get_fdata(dtype=np.float32)
    plane = np.rot90(volume[18:178, 21:213, 90]) / np.percentile(volume[volume > 0], 99.9)
    return Image.fromarray((255 * plane.clip(0, 1)).round().astype(np.uint8))


def photograph() -> Image.Image:
    """The astronaut of scikit-image, grey, reduced from 512 to 320, cropped to 192 x 192."""
    from skimage import data

    grey = Image.fromarray(data.astronaut()).convert("L").resize((320, 320), Image.Resampling.LANCZOS)
    return grey.crop((60, 4, 252, 196))


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for make in (brain, photograph):
        make().save(folder / f"{make.__name__}.png", optimize=True)
