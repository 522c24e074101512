"""A script written for the code that was published with ALPS (arXiv 2601.02594): its call, unchanged.

    python examples/published_call.py [--out posterior.png]

Its operators, Denoiser and Options go in as they are; here small ones stand for them, with the prior shipped here.
"""

import argparse
from dataclasses import dataclass

import torch

import alps_fast as af
from alps_fast import data
from alps_fast.integrations import ALPS

SIDE, ETA = 32, 0.05


@dataclass
class Options:
    """As in that code."""

    num_steps: int = 20
    sigma_max: float = 100.0
    sigma_min: float = 0.1
    rho: float = 5.0
    K: int = 5


class Inpainting(torch.nn.Module):
    """What is asked of such an operator: the mask, and the variance of the noise."""

    def __init__(self, mask, eta):
        super().__init__()
        self.mask, self.eta2 = mask, eta**2


def main():
    """A sample, its way there, and the MAP estimate by that call; then what this package adds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", help="a picture of the posterior")
    out = parser.parse_args().out
    torch.manual_seed(0)
    image = data.photograph()[None, :, :SIDE, :SIDE]
    mask = data.pixel_mask(SIDE, SIDE, keep=0.4)[None]
    y = mask * (image + ETA * torch.randn(image.shape))
    A, net, opts = Inpainting(mask, ETA), af.energies.load("natural-ridge"), Options()  # net: a Denoiser of that code, or ours

    x, states = ALPS(A, net, y, opts, isALPS=True, storeIntermediate=True)
    best = ALPS(A, net, y, opts, isALPS=False)
    for name, found in (("sample", x), ("most probable", best)):
        print(f"{name}: off by {float((found - image).square().mean().sqrt()):.3f} rms; {len(states)} states on the way")

    post = af.sample(y, af.operators.Inpainting(mask[0], ETA), net, chains=8, progress=False)  # many, with exact variance
    print(f"mean of 8: off by {float((post.mean - image).square().mean().sqrt()):.3f} rms, standard deviation "
          f"{float(post.std.mean()):.3f}")
    if out:
        post.plot(out)


if __name__ == "__main__":
    main()
