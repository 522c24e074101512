"""A multi-coil MRI scan of which a third was measured: mean, uncertainty, and the most probable image.

    python examples/mri.py [--out posterior.png]

For scans in files: alps_fast.io.read_kspace, or `alps-fast reconstruct scan.h5 --operator mri --energy brain`.
"""

import argparse

import alps_fast as af
from alps_fast import data


def main():
    """Sample a slice of the template brain through four simulated coils."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", help="a picture of the posterior")
    out = parser.parse_args().out
    image = data.brain()[:, 64:128, 48:112]
    height, width = image.shape[-2:]
    maps = data.coil_maps(4, height, width)
    mask = data.line_mask(height, width, acceleration=3, centre=8)
    operator = af.operators.CartesianMRI(mask, maps, noise_std=0.02)
    kspace = data.measure(operator, image, mask)

    prior = af.energies.load("brain-ridge")  # "brain" is better, and slower
    post = af.sample(kspace, operator, prior, chains=4, draws=2, progress=False)
    print(post)
    low, high = post.interval(0.9, of="magnitude")
    inside = float(((low <= image.abs()) & (image.abs() <= high)).float().mean())
    best = af.map_estimate(kspace, operator, prior, progress=False)
    for name, found in (("mean", post.mean), ("most probable", best.image), ("zeros filled in", operator.adjoint(kspace))):
        print(f"{name}: off by {float((found - image).abs().square().mean().sqrt()):.4f} rms")
    print(f"90 % intervals of magnitudes hold {100 * inside:.0f} % of the pixels")
    if out:
        post.plot(out)


if __name__ == "__main__":
    main()
