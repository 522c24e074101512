"""3-D Cartesian volumes, slice by slice."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ..errors import check
from ..io.kspace import KSpace
from .transforms import to_image


def hybrid_slices(kspace: Tensor, mask: Tensor | None = None, maps: Tensor | None = None, *, readout: int = 0,
                  transformed: bool = False) -> Iterator[KSpace]:
    """A volume as slices across its readout, each with its own plane of the mask; operators take one mask, so a slice a run.

    The readout is whole wherever it is measured, so a transform along it (orthonormal: the noise stays as it is) leaves
    independent problems in two dimensions.

    Args:
        kspace: (coils, kx, ky, kz), frequency zero in the middle; one coil too.
        mask: (ky, kz), the axes that `readout` leaves, or (kx, ky, kz). None: where kspace is not 0.
        maps: (coils, x, y, z) in image space, or None.
        readout: which of the three axes it is. transformed: it is in image space already, and then masks may differ along it.

    Yields:
        KSpace for x = 0, 1, ….

    Raises:
        ArgumentError: naming the argument; a mask that varies along a readout that is to be transformed.
    """
    check(kspace.ndim == 4 and kspace.is_complex() and kspace.numel() > 0, "kspace",
          f"{kspace.dtype} of shape {tuple(kspace.shape)}", "complex (coils, kx, ky, kz)")
    check(readout in (0, 1, 2), "readout", readout, "0, 1 or 2")
    check(maps is None or maps.shape == kspace.shape, "maps", f"shape {tuple(maps.shape) if maps is not None else ()}",
          f"that of kspace, {tuple(kspace.shape)}")
    kspace, maps = kspace.movedim(readout + 1, 1), None if maps is None else maps.movedim(readout + 1, 1)
    plane = tuple(kspace.shape[2:])
    if mask is None:
        mask = (kspace != 0).any(0)
    elif mask.ndim == 3:
        check(mask.movedim(readout, 0).shape == kspace.shape[1:], "mask", f"shape {tuple(mask.shape)}", "that of a coil")
        mask = mask.movedim(readout, 0)
    else:
        check(tuple(mask.shape) == plane, "mask", f"shape {tuple(mask.shape)}", f"{plane}, or three axes")
        mask = mask.expand(kspace.shape[1:])
    check(bool(((mask == 0) | (mask == 1)).all()), "mask", "other values", "zeros and ones")
    mask = mask.float()
    if not transformed:
        check(bool((mask == mask[:1]).all()), "mask", f"one that varies along the readout, axis {readout}",
              "a readout that is whole wherever it is measured, or transformed=True")
        kspace = to_image(kspace, 1)
    return _planes(kspace, mask, maps)


def _planes(kspace: Tensor, mask: Tensor, maps: Tensor | None) -> Iterator[KSpace]:
    for x in range(kspace.shape[1]):
        yield KSpace((kspace[:, x] * mask[x]).contiguous(), None if maps is None else maps[:, x].contiguous(), mask[x].clone())
