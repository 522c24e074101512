"""A DeepInverse physics and a DeepInverse denoiser, sampled here: by our call, and by theirs.

    python examples/from_deepinverse.py [--out posterior.png]

Needs deepinv. The denoiser is a small one without weights to download, a closed form; put your network in its place.
"""

import argparse

import deepinv as dinv
import torch

import alps_fast as af
from alps_fast import data
from alps_fast.integrations import DeepInverseSampler, from_deepinv

SIDE = 32


def main():
    """Undo a blur that moves every edge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", help="a picture of the posterior")
    out = parser.parse_args().out
    torch.manual_seed(0)

    # DeepInverse's world: images in [0, 1], (B, C, H, W); a physics that knows its noise.
    truth = (data.photograph()[None, :, :SIDE, :SIDE] + 1) / 2
    physics = dinv.physics.BlurFFT((1, SIDE, SIDE), dinv.physics.functional.gaussian_blur(sigma=(1.0, 1.0)),
                                   noise_model=dinv.physics.GaussianNoise(0.02))
    y = physics(truth)

    # Their call: the posterior mean and variance in their units. The prior knows [-1, 1]; measurement and noise are rescaled.
    model = DeepInverseSampler(af.energies.load("natural-ridge"), chains=4, draws=3)
    mean, variance = model.sample(y, physics, seed=0)
    psnr = dinv.metric.PSNR()
    print(f"blurred {float(psnr(y, truth)):.1f} dB, mean {float(psnr(mean, truth)):.1f} dB, "
          f"standard deviation {float(variance.sqrt().mean()):.3f}, off by {float((mean - truth).abs().mean()):.3f}")

    # Our call: the operator is one of the fused ones; a denoiser of theirs goes in as a prior, in units of [0, 1].
    operator = from_deepinv(physics)
    print("fused:", type(operator).__name__, "with noise_std", round(operator.noise_std, 3))
    prior = af.energies.DiffusionPrior(Smooth(), channels=1, value_range=(0, 1), image_range=(0, 1))
    post = af.sample(y, operator, prior, chains=4, schedule=af.Schedule(sigma_max=5, sigma_min=0.02, levels=10), progress=False)
    print(post)

    # What is not ours is named.
    try:
        af.sample(y, physics, prior)
    except af.ArgumentError as error:
        print("refused:", error)
    if out:
        post.plot(out)


class Smooth(dinv.models.Denoiser):
    """D(x, sigma) of Gaussian images about a half with the spectrum of natural ones."""

    def forward(self, x, sigma):
        f = torch.fft.fftfreq(SIDE)
        power = 0.05 / (0.01 + f[:, None] ** 2 + f[None] ** 2) ** 0.5
        gain = power / (power + torch.as_tensor(sigma).view(-1, 1, 1, 1) ** 2)
        return 0.5 + torch.fft.ifft2(gain * torch.fft.fft2(x - 0.5)).real


if __name__ == "__main__":
    main()
