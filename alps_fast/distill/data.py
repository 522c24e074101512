"""Training images that are real and at hand: Debian and PyPI packages, nothing fetched at run time.

`brain`: Colin27 T1 (Debian mricron-data), three orientations, given a smooth random phase; complex
images as two channels, |x| <= 1. `natural`: photographs (Debian wallpaper packages, scikit-image), grey,
in [-1, 1]. The held-out images (ICBM152, and the photographs in `HELD_OUT`) never appear here.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..data.make import ICBM152
from ..errors import check, check_choice
from ..limits import check_memory

COLIN = ("/usr/share/mricron/templates/ch2better.nii.gz", "/usr/share/mricron/templates/ch2.nii.gz")
BRAIN_PACKAGES = ("mricron-data",)
NATURAL_PACKAGES = ("lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04", "mate-backgrounds", "plasma-workspace-wallpapers")
LOMIRI = ("Bridge_by_Sander_Klootwijk", "Dragonfly_by_Bolly", "Fossa_by_Jasper_Roks", "Kleiber_by_Lukas_Baubkus",
          "Picture_0B_by_freespace", "Picture_1A_by_freespace", "Wine_by_Jakkub_Mede", "aitzgorri_by_Aitzol_Berasategi",
          "friends_by_Aitzol_Berasategi", "greentock_by_Peter_Nerlich", "free_by_Peter_Nerlich",
          "life_by_Aitzol_Berasategi", "picosdeeuropa_by_Aitzol_Berasategi", "seeding_by_Clements_Engelhardt",
          "sunset_by_Aitzol_Berasategi", "analogpattern_by_Peter_Nerlich")
MATE = ("abstract/Elephants", "nature/Aqua", "nature/Blinds", "nature/Dune", "nature/FreshFlower", "nature/Garden",
        "nature/GreenMeadow", "nature/LadyBird", "nature/RainDrops", "nature/Storm", "nature/TwoWings", "nature/Wood",
        "nature/YellowFlower")
PLASMA = ("Autumn", "BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Kite",
          "OneStandsOut", "Path", "summer_1am")
SCIKIT_IMAGE = ("brick", "coins", "grass", "gravel", "moon", "motorcycle_left", "page", "rocket", "text", "hubble_deep_field")
HELD_OUT = ("astronaut", "camera", "chelsea", "coffee", "china", "flower")


def natural_files() -> list[Path]:
    """The training photographs that are installed; raises if a package is missing, naming it."""
    backgrounds, plasma = Path("/usr/share/backgrounds"), Path("/usr/share/wallpapers")
    files = [backgrounds / f"{n}.jpg" for n in LOMIRI] + [backgrounds / "mate" / f"{n}.jpg" for n in MATE]
    files += [plasma / n / "contents/images/2560x1600.jpg" for n in PLASMA]
    missing = [f for f in files if not f.exists()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} training photographs are not installed (first: {missing[0]}); "
                                f"run: apt-get install {' '.join(NATURAL_PACKAGES)}")
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return files + [p for n in SCIKIT_IMAGE for p in sorted(folder.glob(f"{n}.*")) if p.suffix in (".png", ".jpg", ".jpeg")]


def _grey_pyramid(path: Path) -> list[np.ndarray]:
    image = Image.open(path).convert("L")
    out: list[np.ndarray] = []
    for side in (1200, 700, 400, 250):  # reduction also removes the noise and JPEG blocks of the originals
        factor = side / max(image.size)
        if factor < 1.0 or (not out and factor < 2.0):
            size = tuple(round(s * min(factor, 1.0)) for s in image.size)
            if min(size) >= 96:
                out.append(np.asarray(image.resize(size, Image.Resampling.LANCZOS), dtype=np.uint8))
    return out


def natural_images() -> list[np.ndarray]:
    """Grey photographs (H, W) uint8, each at up to four sizes."""
    return [level for path in natural_files() for level in _grey_pyramid(path)]


def brain_volume(path: Path) -> np.ndarray:
    """A NIfTI volume as float32 in [0, 1], 1 its 99.9 % quantile."""
    import nibabel

    volume = np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj, dtype=np.float32)
    return np.clip(volume / np.percentile(volume[volume > 0], 99.9), 0, 1)


def icbm152() -> np.ndarray:
    """The T1 template of 152 people, 1 mm, as nilearn ships it; never trained on. ImportError: nilearn is not installed."""
    import nilearn

    return brain_volume(Path(nilearn.__file__).parent / ICBM152)


def brain_images() -> list[np.ndarray]:
    """Colin27 slices (H, W) uint8 of three orientations at 0.5, 0.75 and 1 mm, scaled to the volume's 99.9 %."""
    missing = [f for f in COLIN if not Path(f).exists()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} is not installed; run: apt-get install {' '.join(BRAIN_PACKAGES)}")
    slices: list[np.ndarray] = []
    for path, scales in zip(COLIN, ((1.0, 2 / 3, 0.5), (1.0,)), strict=True):
        volume = brain_volume(Path(path))
        for axis in range(3):
            for index in range(int(0.15 * volume.shape[axis]), int(0.85 * volume.shape[axis])):
                plane = np.take(volume, index, axis)
                if (plane > 0).mean() < 0.15:
                    continue
                scale = scales[index % len(scales)]
                if scale < 1.0:
                    size = tuple(round(s * scale) for s in plane.shape[::-1])
                    plane = np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX))
                slices.append((plane * 255).round().astype(np.uint8))
    return slices


def random_phase(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Smooth phase (n, size, size) in radians: a uniform offset plus a cubic surface through 4x4 random knots."""
    knots = torch.randn(n, 1, 4, 4, generator=generator) * 1.2
    surface = F.interpolate(knots, size=(size, size), mode="bicubic", align_corners=True)[:, 0]
    return surface + 2 * math.pi * torch.rand(n, 1, 1, generator=generator)


class Crops:
    """Random crops with flips and quarter turns, a pure function of (seed, batch number), so training resumes.

    Slices are drawn with probability proportional to the square root of their area. Photographs are drawn alike
    whatever their size: a large version is mostly soft, and a prior that has seen little else is poor at sharp edges.

    Args:
        domain: "brain" or "natural". size: side of a crop. batch: crops a call. seed: of the choice.
        sharp: photographs are drawn with probability proportional to (longer side)^-sharp, so the reduced versions more often.
    """

    def __init__(self, domain: str, size: int = 64, batch: int = 16, seed: int = 0, sharp: float = 0.0):
        check_choice("domain", domain, ("brain", "natural"))
        self.domain, self.size, self.batch, self.seed = domain, size, batch, seed
        self.images = brain_images() if domain == "brain" else natural_images()
        largest = max(min(i.shape) for i in self.images)
        check(size <= largest, "size", size, f"at most {largest}, which an image of {domain} has")
        check_memory("batch", batch, 5 * batch * size**2, torch.device("cpu"))
        self.images = [i for i in self.images if min(i.shape) >= size]
        weight = np.array([float(i.size)**0.5 if domain == "brain" else max(i.shape)**-sharp for i in self.images])
        self.weight = weight / weight.sum()

    @property
    def channels(self) -> int:
        return 2 if self.domain == "brain" else 1

    def get(self, number: int) -> Tensor:
        """Batch `number`: (batch, channels, size, size) float32."""
        rng = np.random.default_rng((self.seed, number))
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        crops = np.stack([self._crop(rng) for _ in range(self.batch)])
        x = torch.from_numpy(crops).float() / 255
        if self.domain == "natural":
            return (2 * x - 1)[:, None]
        gain = 0.7 + 0.35 * torch.rand(self.batch, 1, 1, generator=generator)
        gamma = torch.exp(0.25 * torch.randn(self.batch, 1, 1, generator=generator))  # other contrasts than Colin27's
        magnitude, phase = gain * x**gamma, random_phase(self.batch, self.size, generator)
        return torch.stack([magnitude * phase.cos(), magnitude * phase.sin()], 1)

    def _crop(self, rng: np.random.Generator) -> np.ndarray:
        size = self.size
        for _ in range(4):  # mostly avoid empty background; some stays, as the prior must know it
            image = self.images[rng.choice(len(self.images), p=self.weight)]
            i, j = (rng.integers(s - size + 1) for s in image.shape)
            crop = image[i:i + size, j:j + size]
            if crop.std() > 6:
                break
        return np.rot90(crop[:, ::-1] if rng.random() < 0.5 else crop, rng.integers(4)).copy()
