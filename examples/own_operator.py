"""An operator of your own: two functions, and nothing else.

    python examples/own_operator.py [--out posterior.png]

Here a camera without a lens: every reading is a random sum of a few hundred pixels.
"""

import argparse
import time

import torch

import alps_fast as af
from alps_fast import data

SIDE, READINGS, NOISE, SECONDS = 24, 300, 0.05, 60.0


def main():
    """Reconstruct from fewer readings than pixels, watch it, and stop when time is up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", help="a picture of the posterior")
    out = parser.parse_args().out
    matrix = torch.randn(READINGS, SIDE * SIDE, generator=torch.Generator().manual_seed(0)) / READINGS**0.5

    def forward(x):  # (B, 1, H, W) -> (B, READINGS)
        return x.flatten(1) @ matrix.T

    def adjoint(y):  # its adjoint, which is checked at the first use
        return (y @ matrix).view(-1, 1, SIDE, SIDE)

    operator = af.operators.LinearOperator(forward, adjoint, noise_std=NOISE, image_shape=(1, SIDE, SIDE))
    image = data.photograph()[:, :SIDE, :SIDE]
    y = operator.forward(image) + NOISE * torch.randn(READINGS, generator=torch.Generator().manual_seed(1))

    means, until = [], time.perf_counter() + SECONDS

    def watch(progress):
        means.append(progress.means.mean(0))  # images, without the noise of the last step
        if time.perf_counter() > until:
            raise StopIteration  # what there is so far is returned

    prior = af.energies.load("natural-ridge")
    post = af.sample(y, operator, prior, chains=4, schedule=af.Schedule(sigma_max=5, sigma_min=0.05, levels=10, steps=3),
                     callback=watch, progress=False)
    print(f"{READINGS} readings of {SIDE * SIDE} pixels: off by {float((post.mean - image).abs().mean()):.3f}, "
          f"standard deviation {float(post.std.mean()):.3f}; {len(means)} levels seen")
    if out:
        post.plot(out)


if __name__ == "__main__":
    main()
