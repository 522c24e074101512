"""A SigPy Linop, here an MRI scan along spokes, sampled with a prior of brains; and one of our operators in a SigPy app.

    python examples/from_sigpy.py [--out posterior.png]

Needs sigpy.
"""

import argparse

import numpy as np
import sigpy as sp
import sigpy.mri
import torch

import alps_fast as af
from alps_fast import data
from alps_fast.integrations import from_sigpy, to_sigpy

SIDE, COILS, NOISE = 16, 2, 0.05


def main():
    """Reconstruct a slice from spokes through the middle of k-space."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", help="a picture of the posterior")
    out = parser.parse_args().out
    rng = np.random.default_rng(0)

    truth = torch.nn.functional.interpolate(data.brain().abs()[None], (SIDE, SIDE), mode="area")[0].to(torch.complex64)
    maps = data.coil_maps(COILS, SIDE, SIDE).numpy()
    angles = np.pi * np.arange(8)[:, None] / 8
    radius = np.linspace(-SIDE / 2, SIDE / 2, SIDE)
    spokes = np.stack([radius * np.cos(angles), radius * np.sin(angles)], -1).reshape(-1, 2)
    linop = sp.mri.linop.Sense(maps, coord=spokes)  # any Linop of images (H, W) or (C, H, W)
    clean = linop(truth[0].numpy())
    y = clean + NOISE * (rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape))

    operator = from_sigpy(linop, noise_std=NOISE, tol=0.1)  # a tenth of a posterior standard deviation will do
    post = af.sample(torch.from_numpy(y.astype(np.complex64)), operator, af.energies.load("brain"), chains=4,
                     schedule=af.Schedule(sigma_max=1, sigma_min=0.05, levels=4, steps=1, predictor=True), progress=False)
    print(f"{linop.repr_str}: {y.size} samples of {SIDE * SIDE} pixels; off by {float((post.mean - truth).abs().mean()):.3f}, "
          f"standard deviation {float(post.std.mean()):.3f}")

    # A Cartesian Sense is CartesianMRI: the same numbers, by fused kernels, and a Linop again for SigPy's apps.
    mask = data.line_mask(SIDE, SIDE, 2, centre=4)
    fused = af.operators.CartesianMRI(mask, torch.from_numpy(maps), noise_std=NOISE)
    cartesian = sp.mri.linop.Sense(maps, weights=mask.numpy())
    apart = np.abs(cartesian(truth[0].numpy()) - fused.forward(truth).numpy()).max()
    kspace = fused.forward(truth).numpy()
    least = sp.app.LinearLeastSquares(to_sigpy(fused, (1, SIDE, SIDE)), kspace, lamda=1e-3, max_iter=30, show_pbar=False).run()
    error = np.abs(least - truth.numpy()).mean()
    print(f"Sense and CartesianMRI differ by {apart:.1e}; SigPy's least squares is off by {error:.3f}")
    if out:
        post.plot(out)


if __name__ == "__main__":
    main()
