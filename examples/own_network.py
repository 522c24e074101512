"""Your own diffusion model as the prior, and what to do where its convention is another.

    python examples/own_network.py [--out posterior.png]

The network here is a denoiser in closed form, of smooth images, so that what comes out can be checked. Put yours in its place.
"""

import argparse

import torch

import alps_fast as af
from alps_fast import data

SIDE = 32


class Denoiser(torch.nn.Module):
    """D(x, sigma), the mean of x₀ given x = x₀ + sigma n, for stationary Gaussian images with a smooth spectrum."""

    def __init__(self):
        super().__init__()
        f = torch.fft.fftfreq(SIDE)
        self.register_buffer("power", 6.0 / (1 + (f[:, None] ** 2 + f[None] ** 2) * SIDE**2) ** 1.5)

    def forward(self, x, sigma):
        gain = self.power / (self.power + sigma.view(-1, 1, 1, 1) ** 2)
        return torch.fft.ifft2(gain * torch.fft.fft2(x)).real

    def draw(self, generator):
        """An image of this prior."""
        noise = torch.randn(1, SIDE, SIDE, generator=generator)
        return torch.fft.ifft2(self.power.sqrt() * torch.fft.fft2(noise)).real


class Noise(torch.nn.Module):
    """The same as a DDPM's network: the noise in √ᾱ x₀ + √(1 − ᾱ) n, at timestep k."""

    def __init__(self, denoiser, alphas_cumprod):
        super().__init__()
        self.denoiser, self.logs = denoiser, 0.5 * (1 / alphas_cumprod - 1).log()

    def forward(self, x, k):
        low = k.long().clamp(max=len(self.logs) - 2)
        sigma = torch.lerp(self.logs[low], self.logs[low + 1], k.to(self.logs) - low).exp().view(-1, 1, 1, 1).to(x)
        u = x * (1 + sigma**2).sqrt()
        return (u - self.denoiser(u, sigma.flatten())) / sigma


def main():
    """Fill in four pixels of five, by both networks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", help="a picture of the posterior")
    out = parser.parse_args().out
    network, generator = Denoiser(), torch.Generator().manual_seed(0)
    image = network.draw(generator)
    mask = data.pixel_mask(SIDE, SIDE, keep=0.2)
    op = af.operators.Inpainting(mask, noise_std=0.02)
    y = data.measure(op, image, mask, seed=1)  # the image has 0

    # An EDM network, a wrapper of k-diffusion, any function of (x, sigma): as it is.
    prior = af.energies.DiffusionPrior(network, channels=1)

    # A DDPM's network: say what it predicts, and its schedule. With diffusers: integrations.from_diffusers(unet, scheduler).
    alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    ddpm = af.energies.DiffusionPrior(Noise(network, alphas_cumprod), channels=1, predicts="noise", alphas_cumprod=alphas_cumprod)

    # Said wrongly, it is refused before anything is sampled.
    try:
        af.energies.DiffusionPrior(Noise(network, alphas_cumprod), channels=1, alphas_cumprod=alphas_cumprod).grad(image, 0.5)
    except af.ArgumentError as error:
        print("refused:", error)

    options = {"chains": 16, "schedule": af.Schedule(sigma_max=10, sigma_min=0.02, levels=20, steps=10), "progress": False}
    for name, each in (("D(x, sigma)", prior), ("DDPM", ddpm)):
        post = af.sample(y, op, each, **options)
        error, spread = (post.mean - image).square().mean().sqrt(), post.std.square().mean().sqrt()
        print(f"{name}: the mean is off by {error:.3f} rms, its standard deviation says {spread:.3f}")
    best = af.map_estimate(y, op, prior, schedule=options["schedule"], progress=False)
    print(f"most probable image: off by {(best.image - image).square().mean().sqrt():.3f}; its energy is {best.energy:.3g}")
    if out:
        post.plot(out)


if __name__ == "__main__":
    main()
