"""Images and k-space in, and k-space scaled to what priors know, as `alps-fast reconstruct` does both.

Every error names the file and what was wanted; pickles are never loaded.
"""

from .files import check_outputs, check_writable, replacing
from .geometry import Geometry
from .images import image_noise, read_image, read_mask, read_psf
from .kspace import KSpace
from .mri import ScaledKSpace, kspace_noise, normalised_maps, scaled_kspace
from .slices import Slices
from .volume import open_kspace, read_kspace

__all__ = ["Geometry", "KSpace", "ScaledKSpace", "Slices", "check_outputs", "check_writable", "image_noise", "kspace_noise",
           "normalised_maps", "open_kspace", "read_image", "read_kspace", "read_mask", "read_psf", "replacing", "scaled_kspace"]
