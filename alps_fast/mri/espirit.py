"""Coil maps from the fully sampled middle of k-space: ESPIRiT, its calibration by SigPy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import check, check_choice, whole
from ..io.kspace import KSpace
from ..ops._modes import one_thread
from .words import Done

ROOM = 2  # places at least that a kernel must have along an axis of the calibration


def estimate_maps(data: KSpace, sets: int = 1, calibration: int = 24, kernel: int = 6, threshold: float = 0.02,
                  crop: float = 0.95) -> Done:
    """ESPIRiT maps, (coils, H, W), or (2, coils, H, W) of two sets; k-space that has maps, or one coil, keeps what it has.

    Maps have unit norm where the eigenvalue exceeds `crop` and are 0 elsewhere, outside the support; the first coil's phase is
    0. The second set is there where a pixel is seen twice, as where the body is larger than the field of view.

    Maps are eigenvectors of SigPy's Gram matrices, one a pixel. These have 2 kernel − 1 frequencies along an axis, so they are
    computed on the few pixels of the calibration and interpolated, which is exact.

    Args:
        sets: 1 or 2. calibration: side of the middle that maps are found from, less where less was measured wholly.
        kernel, threshold, crop: as SigPy's EspiritCalib has them.

    Raises:
        ArgumentError: naming the argument; a middle that is too small; SigPy is not installed.

    Source: Uecker et al., "ESPIRiT – an eigenvalue approach to autocalibrating parallel MRI", 2014.
    """
    check_choice("sets", sets, (1, 2))
    kernel, calibration = whole("kernel", kernel, 1), whole("calibration", calibration, 1)
    check(0 < threshold < 1, "threshold", threshold, "a number in (0, 1)")
    check(0 <= crop < 1, "crop", crop, "a number in [0, 1)")
    kspace, maps, mask = data
    if maps is not None:
        return Done(data, "maps: those given")
    if len(kspace) == 1:
        return Done(data, "maps: none, of one coil")
    side = _whole_middle(mask, calibration)
    check(side >= kernel + ROOM, "mask", f"{side} x {side} samples around the middle that are all measured",
          f"at least {kernel + ROOM} to estimate maps from, or maps")
    check(bool((kspace != 0).any()), "kspace", "all zero", "samples that are not")
    gram = _gram(kspace, side, kernel, threshold)
    count = min(sets, len(kspace))
    spectrum, (height, width) = _centred(torch.fft.fft2, gram), mask.shape
    rows = torch.zeros(*gram.shape[:2], height, width, dtype=gram.dtype, device=gram.device)
    to, of = zip(*((slice(n // 2 - k // 2, n // 2 - k // 2 + k), slice(m // 2 - k // 2, m // 2 - k // 2 + k))
                   for n, m, k in ((n, m, min(n, m)) for n, m in zip(mask.shape, gram.shape[-2:], strict=True))), strict=True)
    rows[..., to[0], to[1]] = spectrum[..., of[0], of[1]]
    scale = height * width / spectrum[0, 0].numel()
    pixels = (_centred(torch.fft.ifft2, rows) * scale).permute(2, 3, 0, 1)
    with one_thread():
        values, vectors = torch.linalg.eigh(pixels)
    found = vectors[..., -count:].flip(-1).permute(3, 2, 0, 1)  # (sets, coils, H, W)
    found = found * torch.exp(-1j * found[:, :1].angle())
    seen = values[..., -count:].flip(-1).permute(2, 0, 1)[:, None] > crop
    found = torch.where(seen, found, 0).to(kspace.dtype).contiguous()
    check(bool(seen.any()), "crop", crop, "less: no pixel has an eigenvalue above it, so no map is anywhere")
    shares = [f"{100 * float(part.float().mean()):.0f} %" for part in seen]
    return Done(data._replace(maps=found[0] if sets == 1 else found), f"maps: ESPIRiT from the middle {side} x {side} samples, "
                f"{'one set' if sets == 1 else 'two sets'}, on {' and '.join(shares)} of the pixels")


def _whole_middle(mask: Tensor, most: int) -> int:
    """Side of the largest square around the middle, at most `most`, in which all was measured."""
    for side in range(min(most, *mask.shape), 0, -1):
        first = [n // 2 - side // 2 for n in mask.shape]
        if bool((mask[first[0]:first[0] + side, first[1]:first[1] + side] > 0).all()):
            return side
    return 0


def _gram(kspace: Tensor, side: int, kernel: int, threshold: float) -> Tensor:
    """SigPy's matrices (coils, coils, n, n) on a grid of as many pixels as the calibration has samples, or a few more."""
    try:
        from sigpy.mri.app import EspiritCalib
    except ImportError as error:
        check(False, "maps", f"none, and {error}", "maps, or SigPy to estimate them: pip install 'alps_fast[mri]'")
    size = max(side, 2 * kernel)
    middle = torch.zeros(len(kspace), size, size, dtype=torch.complex64, device="cpu")
    to, of = size // 2 - side // 2, [n // 2 - side // 2 for n in kspace.shape[-2:]]
    middle[:, to:to + side, to:to + side] = kspace[:, of[0]:of[0] + side, of[1]:of[1] + side]
    middle = middle / middle.abs().max()
    with one_thread():
        calibrated = EspiritCalib(middle.numpy(), side, threshold, kernel, show_pbar=False)
        found = calibrated.alg.A(np.eye(len(kspace), dtype=np.complex64))
    return torch.from_numpy(found).permute(2, 3, 1, 0).to(torch.complex128)


def _centred(transform: object, x: Tensor) -> Tensor:
    """A transform of the last two axes, pixel and frequency zero in the middle."""
    return torch.fft.fftshift(transform(torch.fft.ifftshift(x, (-2, -1))), (-2, -1))  # type: ignore[operator]
