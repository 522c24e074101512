"""What is done to k-space before sampling. A step takes and returns `KSpace`; it is whoever calls who says which, in what order.

None of them changes what the image means: the likelihood of what a step leaves is exact, with the noise that it says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import check, whole
from ..io.kspace import KSpace
from ..io.mri import normalised_maps
from ..ops._modes import one_thread
from .espirit import estimate_maps
from .transforms import middle, to_image, to_kspace
from .words import Done

SAMPLES = 2  # noise samples a coil at least, that a covariance is told from
SLACK = 1  # samples that the echo may be off by: as much as a phase of 2π across the image, or a coil's own, moves it
ENERGY = 0.99  # share of it that virtual coils keep

Step = Callable[[KSpace], Done]


class Prepared(NamedTuple):
    """k-space, a sentence a step, and the noise in real and imaginary part each where a step made it known."""

    data: KSpace
    words: tuple[str, ...]
    noise_std: float | None


def prepare(data: KSpace, steps: Sequence[Step] | None = None, noise: Tensor | None = None) -> Prepared:
    """Steps one after another.

    Args:
        data: k-space (coils, H, W); maps may be None whatever the number of coils.
        steps: functions from `KSpace` to `Done`, those of this package or yours; options by functools.partial. None: `recentre`,
            `compress_coils`, `estimate_maps`, `normalise_maps`.
        noise: (coils, samples) measured without a signal, for `prewhiten`, which then comes first.

    Raises:
        ArgumentError: by a step, naming the argument.
    """
    if steps is None:
        steps = (recentre, compress_coils, estimate_maps, normalise_maps)
    if noise is not None:
        steps = (partial(prewhiten, noise=noise), *steps)
    words: list[str] = []
    noise_std = None
    for step in steps:
        done = step(data)
        data, noise_std = done.data, noise_std if done.noise_std is None else done.noise_std
        words.append(done.words)
    return Prepared(data, tuple(words), noise_std)


def noise_covariance(noise: Tensor) -> Tensor:
    """Ψ = N Nᴴ/(2 n), (coils, coils) complex128, of n samples N (coils, ...) without a signal.

    The half makes its diagonal the variance of real and imaginary part each, as `noise_std` counts. Samples must have the
    receiver bandwidth of the scan, or have been scaled to it.

    Raises:
        ArgumentError: too few samples.
    """
    check(noise.ndim > 1 and noise.is_complex(), "noise", f"{noise.dtype} of shape {tuple(noise.shape)}",
          "complex (coils, samples)")
    samples = noise.to(torch.complex128).flatten(1)
    coils, count = samples.shape
    check(count >= SAMPLES * coils, "noise", f"{count} samples of {coils} coils", f"at least {SAMPLES * coils} samples")
    check(bool(samples.isfinite().all()), "noise", "NaN or infinity in it", "finite numbers")
    with one_thread():
        return samples @ samples.mH / (2 * count)


def prewhiten(data: KSpace, noise: Tensor | None = None, covariance: Tensor | None = None) -> Done:
    """Coils mixed so that their noise is independent and of standard deviation 1 in real and imaginary part each.

        Ψ = L Lᴴ,   y ← L⁻¹ y,   S ← L⁻¹ S

    Args:
        data: k-space, with maps or without.
        noise: (coils, samples) measured without a signal. Or
        covariance: Ψ (coils, coils), Hermitian, or (coils,) variances where coils differ in noise alone; of real and imaginary
            part each, as `noise_covariance` gives it.

    Raises:
        ArgumentError: naming the argument; a Ψ that is not positive definite, as of a coil without noise.
    """
    coils = len(data.kspace)
    check((noise is None) != (covariance is None), "noise and covariance", "both or neither", "one of them")
    if covariance is None:
        assert noise is not None
        check(len(noise) == coils, "noise", f"{len(noise)} coils", f"the {coils} of kspace")
        psi, of = noise_covariance(noise), f"from {noise[0].numel()} noise samples"
    else:
        check(tuple(covariance.shape) in ((coils, coils), (coils,)), "covariance", f"shape {tuple(covariance.shape)}",
              f"({coils}, {coils}) or ({coils},)")
        psi, of = covariance.to(torch.complex128), "by the covariance given"
        psi = psi.diag() if psi.ndim == 1 else psi
        check(bool(torch.allclose(psi, psi.mH, rtol=1e-5, atol=1e-6 * float(psi.abs().max()))), "covariance", "other than its "
              "conjugate transpose", "a Hermitian matrix")
    root, failed = torch.linalg.cholesky_ex(psi)
    check(int(failed) == 0 and bool(root.isfinite().all()), "noise" if covariance is None else "covariance",
          "one without noise in some direction", "a positive definite covariance: noise in every coil")

    def whitened(coils: Tensor) -> Tensor:
        rows = torch.linalg.solve_triangular(root, coils.to(torch.complex128).flatten(-2), upper=False)
        return rows.unflatten(-1, coils.shape[-2:]).to(coils.dtype)

    stds = psi.diagonal().real.sqrt()
    between = (psi / (stds[:, None] * stds)).fill_diagonal_(0).abs().max()
    with one_thread():
        data = data._replace(kspace=whitened(data.kspace), maps=None if data.maps is None else whitened(data.maps))
    return Done(data, f"prewhitened {of}: noise_std was {float(stds.min()):.3g} to {float(stds.max()):.3g} in {coils} coils, "
                f"correlation at most {float(between):.2f}; now it is 1", 1.0)


def remove_oversampling(data: KSpace, to: int | None = None, axis: int | None = None) -> Done:
    """Readout oversampling removed: k-space of the middle of the field of view along the readout.

    An inverse transform along the readout, a crop, a transform back, both orthonormal: white noise stays white and as large.

    Args:
        data: its mask must not vary along the readout.
        to: samples that are left; None: half of them, rounded up.
        axis: of the readout: 0 (H) or 1 (W). None: the only one along which the mask does not vary.

    Raises:
        ArgumentError: naming the argument.
    """
    kspace, maps, mask = data
    constant = [bool((mask == mask.narrow(k, 0, 1)).all()) for k in (0, 1)]
    if axis is None:
        check(constant[0] != constant[1], "axis", "none, and the mask varies along both or neither",
              "0 or 1, that of the readout")
        axis = constant.index(True)
    check(axis in (0, 1), "axis", axis, "0 or 1")
    check(constant[axis], "mask", f"one that varies along the readout, axis {axis}",
          "a readout that is whole wherever it is measured")
    size = mask.shape[axis]
    to = whole("to", -(-size // 2) if to is None else to, 1, size + 1)
    image = to_image(kspace, axis - 2)
    kept = middle(image, to, axis - 2)
    share = 1 - float(kept.abs().double().square().sum() / image.abs().double().square().sum().clamp_min(1e-300))
    data = KSpace(to_kspace(kept, axis - 2), None if maps is None else middle(maps, to, axis - 2).clone(),
                  middle(mask, to, axis).clone())
    return Done(data, f"readout (axis {axis}) cut from {size} to {to} in image space; {100 * share:.2g} % of the energy "
                "lay outside")


def recentre(data: KSpace) -> Done:
    """Frequency zero brought to the middle, (H // 2, W // 2), by whole samples, with the mask.

    It is where Σ_c |y_c|² of 3 × 3 samples is largest. What leaves at one side is dropped, as it is of frequencies that pixels of
    this size do not have, and at the other side nothing is measured; maps stay. One sample beside the middle is left alone.
    """
    kspace, maps, mask = data
    power = (kspace * mask).abs().double().square().sum(0)[None, None]
    around = torch.nn.functional.avg_pool2d(power, 3, 1, 1)[0, 0]
    height, width = mask.shape
    peak = int(around.argmax())
    off = peak // width - height // 2, peak % width - width // 2
    if max(map(abs, off)) <= SLACK:
        return Done(data, f"echo in the middle, {_samples(off)} off: left alone")
    moved = KSpace(_moved(kspace, off), maps, _moved(mask, off))
    lost = int(mask.sum()) - int(moved.mask.sum())
    return Done(moved, f"echo was {_samples(off)} beside the middle, as (H, W): moved there; {lost} of {int(mask.sum())} samples "
                "left the grid")


def _samples(off: tuple[int, int]) -> str:
    return f"({off[0]:+d}, {off[1]:+d}) samples"


def _moved(x: Tensor, off: tuple[int, int]) -> Tensor:
    """x[..., i + off] at i, 0 where there is no such sample."""
    out = torch.zeros_like(x)
    to, of = zip(*((slice(max(0, -d), n - max(0, d)), slice(max(0, d), n - max(0, -d)))
                   for d, n in zip(off, x.shape[-2:], strict=True)), strict=True)
    out[..., to[0], to[1]] = x[..., of[0], of[1]]
    return out


def compress_coils(data: KSpace, energy: float = ENERGY, coils: int | None = None) -> Done:
    """Virtual coils: those combinations of coils that hold the most energy, as few as hold the share `energy` of it, or `coils`.

        Y = U Σ Vᴴ over the samples,   y ← U_mᴴ y,   S ← U_mᴴ S

    U_m has orthonormal columns, so white noise stays white: prewhiten first. What is dropped is data, a share of 1 − `energy`;
    the likelihood of the rest is exact.

    Raises:
        ArgumentError: naming the argument; k-space that is all zero.
    """
    kspace, maps, mask = data
    check(0 < energy <= 1, "energy", energy, "a number in (0, 1]")
    rows = kspace.to(torch.complex128).flatten(1)
    with one_thread():  # signs and rounding of vectors are the same on any number
        values, vectors = torch.linalg.eigh(rows @ rows.mH)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    check(float(values[0]) > 0, "kspace", "all zero", "samples that are not")
    shares = (values.cumsum(0) / values.sum()).clamp(max=1.0)
    count = int((shares < energy).sum()) + 1 if coils is None else whole("coils", coils, 1, len(rows) + 1)
    count = min(count, len(rows))
    if count == len(rows):
        return Done(data, f"coils: all {count} are needed for {100 * energy:g} % of the energy: left alone" if coils is None else
                    f"coils: {count} already: left alone")

    def virtual(coil: Tensor) -> Tensor:
        return (vectors[:, :count].mH @ coil.to(torch.complex128).flatten(-2)).unflatten(-1, coil.shape[-2:]).to(coil.dtype)

    with one_thread():
        data = KSpace(virtual(kspace), None if maps is None else virtual(maps), mask)
    return Done(data, f"coils: {len(rows)} compressed to {count} virtual ones with {100 * float(shares[count - 1]):.4g} % of the "
                "energy")


def normalise_maps(data: KSpace) -> Done:
    """Maps over √Σ_c |S_c|², so that the image is the root of the sum of squares over coils; zero where all are zero."""
    if data.maps is None:
        return Done(data, "maps: none, of one coil")
    root = data.maps.abs().square().sum(-3).sqrt()
    seen = root[root > 0]
    if bool(((seen - 1).abs() < 1e-3).all()):
        return Done(data, "maps: root of the sum of squares is 1 already")
    sets = data.maps if data.maps.ndim == 4 else data.maps[None]
    maps = torch.stack([normalised_maps(v) for v in sets]).view_as(data.maps)
    return Done(data._replace(maps=maps), f"maps: root of the sum of squares was {float(seen.min()):.3g} to "
                f"{float(seen.max()):.3g}, now it is 1")
