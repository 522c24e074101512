"""Images and k-space in. Every error names the file and what was wanted; pickles are never loaded."""

from .files import check_outputs, check_writable, replacing
from .images import read_image, read_mask, read_psf
from .kspace import KSpace, read_kspace

__all__ = ["KSpace", "check_outputs", "check_writable", "read_image", "read_kspace", "read_mask", "read_psf", "replacing"]
